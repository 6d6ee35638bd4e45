"""Deliveries with a real receiver: tried again, signed, never lost, never into private networks."""

import json
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import anyio
import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session
from structlog.testing import capture_logs

from service.errors import WebhookAddressRefused
from service.labeling import labels, rounds
from service.labeling.labels import NewLabel
from service.projects import projects
from service.settings import Settings
from service.store import jobs, outbox
from service.store.ids import public_id
from service.store.session import make_engine, read_session, write_session
from service.store.tables import Delivery, Project, Webhook, utc_now
from service.webhooks import addresses, deliverer, deliveries, webhooks
from service.webhooks.deliverer import Deliverer
from service.webhooks.deliveries import Attempt
from tests import factories
from tests.service.receivers import receiver
from tests.worker.processes import REPOSITORY

SECRET = b"the server's secret"
on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
LOOPBACK = Settings(webhooks_to_private_addresses=True)


def hooked(session: Session, url: str, **more: Any) -> Webhook:
    """A webhook of a new project."""
    project = factories.make_project(session)
    return webhooks.create(session, project, LOOPBACK, url=url, events=more.get("events", outbox.EVENTS))


def told(engine: sa.Engine, url: str, count: int = 1) -> int:
    """The number of a webhook that has so many events to be told of."""
    with write_session(engine) as session:
        webhook = hooked(session, url)
        for number in range(count):
            outbox.tell(session, webhook.project_id, "round.closed", {"round": number + 1})
        session.flush()
        return webhook.id


def states(engine: sa.Engine) -> list[str]:
    with read_session(engine) as session:
        return list(session.scalars(sa.select(Delivery.state).order_by(Delivery.id)))


def deliver(engine: sa.Engine, until: Callable[[], bool], **options: Any) -> None:
    """Run a deliverer until it has come so far."""
    chosen: dict[str, Any] = {"private_allowed": True, "delays_s": (0.01, 0.01)} | options

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(Deliverer(engine, SECRET, write_slots=anyio.CapacityLimiter(1), **chosen).run)
            with anyio.fail_after(30):
                while not until():
                    await anyio.sleep(0.02)
            tasks.cancel_scope.cancel()

    anyio.run(main)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deliverer, "TICK_S", 0.02)


def test_tried_again_until_it_is_accepted(engine: sa.Engine) -> None:
    with receiver(lambda n: 503 if n < 3 else 200) as there:
        webhook_id = told(engine, there.url)
        with capture_logs() as lines:
            deliver(engine, lambda: states(engine) == ["delivered"])
    assert len(there.received) == 3
    assert len({each.id for each in there.received}) == 1
    first, last = there.received[0], there.received[-1]
    assert first.path == "/hook?tool=1"
    body = json.loads(last.body)
    assert (body["type"], body["data"]) == ("round.closed", {"project": "p_1", "round": 1})
    assert body["timestamp"].endswith("Z")
    with read_session(engine) as session:
        webhook, delivery = session.get_one(Webhook, webhook_id), session.scalars(sa.select(Delivery)).one()
    assert (delivery.attempts, delivery.status, delivery.error) == (3, 200, None)
    secret = webhooks.shown(webhooks.secret_of(SECRET, webhook.nonce))
    assert all(each.signed_with(secret) for each in there.received)
    assert not last.signed_with(webhooks.shown(webhooks.secret_of(b"another", webhook.nonce)))
    assert secret not in str(lines)
    assert "/hook" not in str(
        lines
    )  # an address may hold a secret of the receiver, and answers may repeat it


@on_sqlite
def test_given_up_and_sent_again_when_asked(engine: sa.Engine) -> None:
    with receiver(lambda n: 500 if n <= 3 else 200) as there:
        webhook_id = told(engine, there.url)
        deliver(engine, lambda: states(engine) == ["dead"])
        with write_session(engine) as session:
            webhook = session.get_one(Webhook, webhook_id)
            dead = deliveries.page(session, webhook, "dead", None, 10)[0]
            assert (dead.attempts, dead.error) == (3, "500 Internal Server Error. Cannot POST /hook?tool=1")
            assert deliveries.send_dead_again(session, webhook) == 1
        deliver(engine, lambda: states(engine) == ["delivered"])
    assert len({each.id for each in there.received}) == 1


@on_sqlite
@pytest.mark.parametrize(("status", "state", "requests"), [(302, "dead", 3), (410, "dead", 1)])
def test_redirects_are_not_followed_and_gone_is_believed(
    engine: sa.Engine, status: int, state: str, requests: int
) -> None:
    with receiver(lambda _: status) as there:
        told(engine, there.url)
        deliver(engine, lambda: states(engine) == [state])
    assert [each.path for each in there.received] == ["/hook?tool=1"] * requests


@on_sqlite
def test_a_receiver_that_hangs_holds_up_no_other(engine: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deliverer, "SEND_S", 1.0)
    asked, goes_on = threading.Event(), threading.Event()

    def hang(_: int) -> int:
        asked.set()
        goes_on.wait(30)
        return 200

    with receiver(hang) as slow, receiver() as quick:
        told(engine, slow.url, count=2 * deliverer.AT_ONCE)
        told(engine, quick.url, count=3)
        deliver(engine, lambda: len(quick.received) == 3 and asked.is_set())
        assert len(slow.received) <= 2  # one at a time
        deliver(engine, lambda: any("No answer" in (error or "") for error in errors(engine)), lease_s=0.1)
        goes_on.set()


def errors(engine: sa.Engine) -> list[str | None]:
    with read_session(engine) as session:
        return list(session.scalars(sa.select(Delivery.error)))


def test_killed_after_sending_it_is_sent_again(
    engine: sa.Engine, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`kill -9` while the receiver has it and the answer is not noted."""
    got, killed = threading.Event(), threading.Event()

    def answer(_: int) -> int:
        got.set()
        killed.wait(30)
        return 200

    with receiver(answer) as there:
        told(engine, there.url)
        command = [sys.executable, "-m", "tests.chaos.sender", database_url, SECRET.decode(), "0.5"]
        process = subprocess.Popen(command, cwd=REPOSITORY)
        assert got.wait(60)
        process.kill()
        process.wait()
        killed.set()
        assert states(engine) == ["pending"]
        deliver(engine, lambda: states(engine) == ["delivered"])
    assert len(there.received) == 2
    assert len({each.id for each in there.received}) == 1


@on_sqlite
def test_a_webhook_replaced_while_it_is_sent_to(engine: sa.Engine) -> None:
    """SQLite gives the number of a deleted row away again: the outcome is not the new delivery's."""
    webhook_id = told(engine, "http://127.0.0.1:9/")
    with write_session(engine) as session:
        (due,) = deliveries.take(session, busy=(), limit=1, lease_s=20)
        webhooks.delete(session, session.get_one(Webhook, webhook_id))
    assert told(engine, "http://127.0.0.1:9/") == webhook_id
    with write_session(engine) as session:
        deliveries.settle(session, due, Attempt(200, None))
    assert states(engine) == ["pending"]


def test_two_at_once_send_each_once(engine: sa.Engine) -> None:
    """Two services on one database."""
    with receiver() as there:
        for _ in range(4):
            told(engine, there.url, count=5)
        slots = anyio.CapacityLimiter(1)

        async def main() -> None:
            async with anyio.create_task_group() as tasks:
                for _ in range(2):
                    tasks.start_soon(Deliverer(engine, SECRET, True, slots).run)
                with anyio.fail_after(30):
                    while states(engine) != ["delivered"] * 20:
                        await anyio.sleep(0.02)
                tasks.cancel_scope.cancel()

        anyio.run(main)
    assert len(there.received) == len({each.id for each in there.received}) == 20


@on_sqlite
def test_goes_on_when_no_connection_could_be_had(engine: sa.Engine, database_url: str) -> None:
    """A database that hangs: others wait in vain for a connection, which is no error of the database's own."""
    with receiver() as there, capture_logs() as lines:
        told(engine, there.url)
        narrow = make_engine(database_url, pool_size=1, max_overflow=0, pool_timeout=0.01)
        with ExitStack() as held:
            held.enter_context(narrow.connect())

            def delivered() -> bool:
                if any(line["event"] == "database not reached" for line in lines):
                    held.close()
                return states(engine) == ["delivered"]

            deliver(narrow, delivered)
        narrow.dispose()


@on_sqlite
def test_a_name_with_several_addresses(engine: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody listens at the first one, as where `localhost` is ::1 before it is 127.0.0.1."""
    resolve = anyio.getaddrinfo

    async def resolved(_: str, *rest: Any, **more: Any) -> Any:
        return [found for host in ("127.0.0.9", "127.0.0.1") for found in await resolve(host, *rest, **more)]

    monkeypatch.setattr(anyio, "getaddrinfo", resolved)
    with receiver() as there:
        told(engine, there.url.replace("127.0.0.1", "tool.example"))
        deliver(engine, lambda: states(engine) != ["pending"], delays_s=())
    assert states(engine) == ["delivered"]


@on_sqlite
def test_little_is_kept_of_a_refusal(engine: sa.Engine) -> None:
    with receiver(lambda _: 500, reason="no" * 5000) as there:
        told(engine, there.url)
        deliver(engine, lambda: states(engine) == ["dead"])
    (error,) = errors(engine)
    assert error is not None
    assert error.startswith("500 nono")
    assert len(error) <= deliverer.EXCERPT
    assert there.received[0].headers["Accept-Encoding"] == "identity"  # people are to read it


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)  # on SQLite one writes at a time
def test_a_webhook_deleted_while_it_is_told(engine: sa.Engine) -> None:
    """Whose change is told knows nothing of the webhook, and must not fail for it."""
    with write_session(engine) as session:
        webhook = hooked(session, "http://127.0.0.1/")

    def delete() -> None:
        with write_session(engine) as session:
            webhooks.delete(session, session.get_one(Webhook, webhook.id))

    with write_session(engine) as session, session.no_autoflush:
        outbox.tell(session, webhook.project_id, "job.failed", {})
        deleting = threading.Thread(target=delete)
        deleting.start()
        deleting.join(timeout=0.5)
    deleting.join()
    assert states(engine) == []


class TestWhatIsTold:
    pytestmark = on_sqlite

    def test_only_what_was_chosen_and_only_of_its_project(self, engine: sa.Engine) -> None:
        with write_session(engine) as session:
            webhook = hooked(session, "http://127.0.0.1/", events=["job.failed"])
            other = factories.make_project(session)
            outbox.tell(session, webhook.project_id, "round.closed", {})
            outbox.tell(session, other.id, "job.failed", {})
            outbox.tell(session, webhook.project_id, "job.failed", {})
        with read_session(engine) as session:
            assert list(session.scalars(sa.select(Delivery.event))) == ["job.failed"]

    def test_a_round_that_closes_with_its_transaction(self, engine: sa.Engine) -> None:
        with write_session(engine) as session:
            project = session.get_one(Project, hooked(session, "http://127.0.0.1/").project_id)
        for commits in (False, True):
            with Session(engine) as session:
                found = session.get_one(Project, project.id)
                current = rounds.open_round(session, found)
                rounds.close(session, found, current, last_label_id=1, labels_used=50, now=project.created_at)
                (session.commit if commits else session.rollback)()
            assert len(states(engine)) == int(commits)
        with read_session(engine) as session:
            body = json.loads(session.scalars(sa.select(Delivery.body)).one())
        assert body["data"] == {"project": "p_1", "round": 1, "labels": 50, "labels_used": 50}

    def test_labels_look_for_webhooks_only_when_a_round_closes(self, engine: sa.Engine) -> None:
        statements: list[str] = []
        sa.event.listen(engine, "before_cursor_execute", lambda *call: statements.append(call[2]))
        with write_session(engine) as session:
            project = factories.make_project(session, settings={"round_size": 2})
            items = [factories.make_item(session, project=project) for _ in range(2)]
            for item, looks in zip(items, (0, 1), strict=True):
                statements.clear()
                label = NewLabel(item=public_id("i", item.id), annotator="ann", class_name="cat")
                labels.store(session, project, [label], utc_now())
                assert sum("webhooks" in statement for statement in statements) == looks

    def test_a_job_that_failed_for_good(self, engine: sa.Engine) -> None:
        with write_session(engine) as session:
            project_id = hooked(session, "http://127.0.0.1/").project_id
            for _ in range(2):
                jobs.enqueue(session, "rank", {}, project_id=project_id, max_attempts=1)
        job = jobs.claim(engine, "w", ["short"], 30)
        assert job is not None
        jobs.fail(engine, job, "Disk full.")
        assert jobs.claim(engine, "w", ["short"], -1) is not None  # it falls silent
        assert jobs.claim(engine, "w", ["short"], 30) is None
        with read_session(engine) as session:
            bodies = [json.loads(body)["data"] for body in session.scalars(sa.select(Delivery.body))]
        assert bodies[0] == {"project": "p_1", "job": "j_1", "kind": "rank", "error": "Disk full."}
        assert (bodies[1]["job"], bodies[1]["error"]) == ("j_2", jobs.SILENT)

    def test_a_deleted_project_takes_them_along(self, engine: sa.Engine) -> None:
        webhook_id = told(engine, "http://127.0.0.1/")
        with write_session(engine) as session:
            projects.delete(
                session, session.get_one(Project, session.get_one(Webhook, webhook_id).project_id)
            )
        assert states(engine) == []


class TestAddresses:
    @pytest.mark.parametrize(
        "url",
        [
            "http://127.0.0.1/",
            "http://localhost:8000/",
            "https://printer.local/x",
            "http://10.0.0.3/",
            "http://169.254.169.254/latest/meta-data",
            "http://[::1]/",
            "http://[::ffff:192.168.0.1]/",
            "http://[64:ff9b::7f00:1]/",
            "http://[2002:7f00:1::]/",
            "http://0.0.0.0/",
            "http://224.0.0.1/",
            "http://[::127.0.0.1]/",
            "http://[::ffff:0:127.0.0.1]/",
            "http://[64:ff9b:1::7f00:1]/",
            "http://[fec0::1]/",
            "http://[ff0e::1]/",
            "http://localhost./",
            "http://127.0.0.1./",
            "ftp://example.com/",
            "https:///path",
            "nonsense",
            "https://me:secret@example.com/",
            "https://example.com/#here",
            "https://example.com:99999/",
            "https://exa mple.com/",
            "",
        ],
    )
    def test_refused(self, url: str) -> None:
        with pytest.raises(WebhookAddressRefused):
            addresses.checked_url(url, False, "url")

    @pytest.mark.parametrize(
        "url",
        [
            "https://example.com/hook?x=1",
            "http://1.1.1.1:8080/",
            "https://bücher.example/",
            "https://notlocalhost.example/",
            "http://[2606:4700::1]/",
            "http://[64:ff9b::101:101]/",
        ],
    )
    def test_accepted(self, url: str) -> None:
        assert addresses.checked_url(url, False, "url") == url

    @on_sqlite
    @pytest.mark.parametrize("host", ["2130706433", "127.1", "rebinds.example"])
    def test_names_are_judged_by_where_they_lead(
        self, engine: sa.Engine, host: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Also a name that led somewhere else when the webhook was made."""
        resolve = anyio.getaddrinfo

        async def resolved(name: str, *rest: Any, **more: Any) -> Any:
            return await resolve("127.0.0.1" if name == "rebinds.example" else name, *rest, **more)

        monkeypatch.setattr(anyio, "getaddrinfo", resolved)
        with receiver() as there:
            told(engine, there.url.replace("127.0.0.1", host))
            deliver(engine, lambda: states(engine) == ["dead"], private_allowed=False)
            assert there.received == []
            assert "SHORTLIST_WEBHOOKS_TO_PRIVATE_ADDRESSES" in str(errors(engine)[0])
            told(engine, there.url.replace("127.0.0.1", host))
            deliver(engine, lambda: states(engine) == ["dead", "delivered"])
        assert there.received[0].headers["Host"] == there.url.replace("127.0.0.1", host).split("/")[2]

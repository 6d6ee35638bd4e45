"""Labeling through the client, with a service behind it."""

import asyncio
import threading
import time

import httpx2 as httpx
import pytest
import sqlalchemy as sa

from service.store.session import read_session, write_session
from service.store.tables import Label, Reservation
from shortlist_client import AsyncShortlist, Project, Shortlist
from tests.served import Served


def open_reservations(engine: sa.Engine) -> int:
    query = sa.select(sa.func.count()).where(Reservation.state == "open")
    with read_session(engine) as session:
        return session.scalars(query).one()


def renewing() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "shortlist-renew"]


def test_a_loop_labels_the_pool(project: Project, engine: sa.Engine) -> None:
    annotating = project.annotate("ann", size=7)
    outcomes = []
    for item in annotating:
        assert item.text == f"text {int(item.key)}"
        assert item.read() == item.text.encode()
        outcomes.append(item.label("good" if int(item.key) % 2 else "bad"))
    assert outcomes == ["accepted"] * 30
    assert annotating.reason == "pool_exhausted"
    assert renewing() == []
    labels = list(project.labels())
    assert {label["key"]: label["class"] for label in labels} == {
        f"{number:03}": "good" if number % 2 else "bad" for number in range(30)
    }
    assert all(label["batch"] and label["duration_ms"] >= 0 for label in labels)
    assert project.metrics().labels_used == 30


def test_what_was_not_labeled_is_given_back(project: Project, engine: sa.Engine) -> None:
    for number, item in enumerate(project.annotate("ann", size=10)):
        if number == 3:
            assert open_reservations(engine) == 7
            break
        item.label("good")
    assert open_reservations(engine) == 0
    assert renewing() == []

    def fails() -> None:
        for _ in project.annotate("ann"):
            raise RuntimeError("the tool has a fault")

    with pytest.raises(RuntimeError):
        fails()
    assert open_reservations(engine) == 0


def test_the_end_of_the_client_is_the_end_of_its_annotators(
    project: Project, served: Served, key: str, engine: sa.Engine
) -> None:
    with Shortlist(served.url, key) as client:
        items = iter(client.project("texts").annotate("ann"))
        next(items)
        assert open_reservations(engine) == 10
    assert open_reservations(engine) == 0
    assert renewing() == []


def test_items_that_are_passed_over_do_not_come_again(project: Project, engine: sa.Engine) -> None:
    seen = []
    with project.annotate("ann", size=4, limit=12) as items:
        for item in items:
            seen.append(item.id)
            if len(seen) % 2:
                item.label("good")
    assert len(set(seen)) == len(seen) == 12
    assert items.reason is None
    assert open_reservations(engine) == 0
    assert len(list(project.labels())) == 6


def test_skips_revisions_and_withdrawals(project: Project) -> None:
    for item in project.annotate("ann", limit=1):
        assert item.label("good") == "accepted"
    assert item.label("good") == "duplicate"
    assert item.label("bad") == "revised"
    assert item.undo() == "revised"
    assert item.skip() == "revised"
    (label,) = project.labels()
    assert (label["class"], label["skip"]) == (None, "unsure")
    assert len(list(project.labels(history=True))) == 4
    with pytest.raises(ValueError, match="needs a class"):
        item.label(None)  # type: ignore[arg-type]


def test_a_reservation_is_renewed_while_somebody_thinks(project: Project, engine: sa.Engine) -> None:
    project.update(reservation_ttl_s=4)
    with project.annotate("ann", size=2, limit=2) as items:
        outcomes: list[str] = []
        for item in items:
            time.sleep(4.5 if not outcomes else 0.5)
            outcomes.append(item.label("good"))
    assert outcomes == ["accepted", "accepted"]  # and not `late`


def test_what_ran_out_is_not_handed_on(project: Project, engine: sa.Engine) -> None:
    """As after a laptop has slept: the rest of the batch may be somebody else's by now."""
    project.update(reservation_ttl_s=2)
    with project.annotate("ann", size=10) as items:
        loop = iter(items)
        first = next(loop)
        with write_session(engine) as session:
            session.execute(sa.update(Reservation).values(state="expired"))
        batch = first._handed.held
        give_up_at = time.monotonic() + 20
        while not batch.lost:
            assert time.monotonic() < give_up_at
            time.sleep(0.05)
        second = next(loop)
        assert second._handed.held.batch != batch.batch
        assert first.label("good") in ("late", "accepted")  # it is kept all the same


def test_it_goes_on_where_waiting_helps(project: Project) -> None:
    """Others hold what is left, until it runs out."""
    project.update(reservation_ttl_s=1)
    assert len(project.next_batch("bob", size=100).items) == 30
    impatient = project.annotate("ann")
    assert list(impatient) == []
    assert impatient.reason == "all_reserved"
    assert len(list(project.annotate("ann", wait=True, limit=3))) == 3


def test_a_service_that_starts_again_costs_no_label(project: Project, served: Served) -> None:
    loop = iter(project.annotate("ann"))
    item = next(loop)
    served.stop()
    again = threading.Timer(1.0, served.start)
    again.start()
    assert item.label("good") == "accepted"
    again.join()
    loop.close()  # type: ignore[attr-defined]
    assert [label["class"] for label in project.labels()] == ["good"]


class LosesAnswers(httpx.HTTPTransport):
    """Each POST is done, and its first answer lost on the way back."""

    def __init__(self) -> None:
        super().__init__()
        self._lost: set[str] = set()
        self.asked = 0

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.asked += 1
        response = super().handle_request(request)
        key = request.headers.get("Idempotency-Key")
        if key is not None and key not in self._lost:
            self._lost.add(key)
            response.read()
            raise httpx.ReadError("the cable was pulled", request=request)
        return response


def test_a_lost_answer_does_nothing_twice(
    project: Project, served: Served, key: str, engine: sa.Engine
) -> None:
    transport = LosesAnswers()
    with httpx.Client(transport=transport) as http, Shortlist(served.url, key, http=http) as client:
        for item in client.project("texts").annotate("ann", size=2, limit=2):
            assert item.label("good") == "accepted"  # and not `duplicate`
    assert transport.asked > 6
    with read_session(engine) as session:
        assert session.scalars(sa.select(sa.func.count(Label.id))).one() == 2
        assert session.scalars(sa.select(sa.func.count(Reservation.id))).one() == 2


def test_many_annotators_get_every_item_once(project: Project) -> None:
    seen: list[str] = []

    def work(annotator: str) -> None:
        for item in project.annotate(annotator, size=3):
            seen.append(item.id)
            item.label("good")

    threads = [threading.Thread(target=work, args=(f"ann {number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == len(set(seen))
    project.client.close()
    assert renewing() == []


def test_on_asyncio(project: Project, served: Served, key: str, engine: sa.Engine) -> None:
    async def work() -> list[str]:
        outcomes: list[str] = []
        async with AsyncShortlist(served.url, key) as client:
            found = await client.project("texts")
            await found.update(reservation_ttl_s=4)
            async with found.annotate("ann", size=5) as items:
                async for item in items:
                    if not outcomes:
                        await asyncio.sleep(4.5)
                    outcomes.append(await item.label("good"))
                    assert await item.read() == (item.text or "").encode()
                    if len(outcomes) == 3:
                        break
            assert open_reservations(engine) == 0
            async for item in found.annotate("bob", size=5):  # given back when the client is closed
                await item.skip("other")
                break
            assert [label["class"] async for label in found.labels()] == ["good"] * 3 + [None]
            assert len([item async for item in found.items(state="done")]) == 3
            assert (await found.metrics()).labels_used == 3
        return outcomes

    assert asyncio.run(work()) == ["accepted"] * 3
    assert open_reservations(engine) == 0

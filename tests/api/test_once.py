"""`Idempotency-Key`: done once, whatever is repeated; and how many requests a key may make."""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient

from service.access.idempotency import KEPT_FOR
from service.access.rate_limits import RateLimits
from service.errors import TooManyRequests
from service.settings import Settings
from service.store.session import read_session, write_session
from service.store.tables import Item, KeptAnswer, Key, Project, utc_now
from tests import factories
from tests.api.conftest import Callers, created
from tests.applications import make_app

on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


def once(name: str) -> dict[str, str]:
    return {"Idempotency-Key": name}


def count(engine: sa.Engine, table: Any) -> int:
    with read_session(engine) as session:
        return session.scalar(sa.select(sa.func.count()).select_from(table)) or 0


@pytest.fixture
def pool(admin: TestClient, engine: sa.Engine) -> None:
    created(admin)
    with write_session(engine) as session:
        for _ in range(8):
            factories.make_item(session, project=session.get_one(Project, 1))


def test_the_same_again_is_answered_again_and_not_done_again(admin: TestClient, engine: sa.Engine) -> None:
    body = {"name": "shirts", "classes": ["coat", "shirt"]}
    first = admin.post("/projects", json=body, headers=once("a"))
    again = admin.post("/projects", json=body, headers=once("a"))
    assert (first.status_code, "Idempotency-Replayed" in first.headers) == (201, False)
    assert (again.status_code, again.headers["Idempotency-Replayed"]) == (201, "true")
    assert again.json() == first.json()
    assert [again.headers[name] for name in ("Location", "ETag", "Content-Type")] == [
        first.headers[name] for name in ("Location", "ETag", "Content-Type")
    ]
    assert count(engine, Project) == 1
    assert admin.post("/projects", json=body, headers=once("b")).json()["code"] == "name_taken"


@on_sqlite
@pytest.mark.usefixtures("pool")
def test_every_post_takes_it(admin: TestClient, engine: sa.Engine, settings: Settings) -> None:
    new = {"annotator": "ann", "size": 2, "new": True}
    first = admin.post("/next-batch", json=new, headers=once("a")).json()
    assert admin.post("/next-batch", json=new, headers=once("a")).json() == first
    assert admin.post("/next-batch", json=new, headers=once("b")).json()["batch"] != first["batch"]

    label = {"labels": [{"item": "i_1", "class": "coat", "annotator": "ann"}]}
    answers = [admin.post("/labels", json=label, headers=once("c")).json() for _ in range(2)]
    assert [answer["results"][0]["outcome"] for answer in answers] == ["accepted", "accepted"]

    entry = {"key": "new", "uri": str(settings.source_roots[0]) + "/new.png"}
    answers = [
        admin.post("/projects/p_1/items", json={"items": [entry]}, headers=once("d")).json() for _ in range(2)
    ]
    assert [(answer["added"], answer["known"]) for answer in answers] == [(1, 0), (1, 0)]
    assert count(engine, Item) == 9


@on_sqlite
@pytest.mark.usefixtures("pool")
def test_another_request_needs_another_one(admin: TestClient, caller: Callers) -> None:
    admin.post("/next-batch", json={"annotator": "ann"}, headers=once("a"))
    for path, body in (
        ("/next-batch", {"annotator": "bob"}),
        ("/labels", {"annotator": "ann"}),
        ("/projects/p_1/next-batch", {"annotator": "ann"}),
    ):
        answer = admin.post(path, json=body, headers=once("a"))
        assert (answer.status_code, answer.json()["code"]) == (422, "idempotency_key_reused")
    # It belongs to the key that sent it: another caller's is another one.
    bob = caller("annotator").post("/next-batch", json={"annotator": "bob"}, headers=once("a"))
    assert (bob.status_code, "Idempotency-Replayed" in bob.headers) == (200, False)


@on_sqlite
@pytest.mark.usefixtures("pool")
@pytest.mark.parametrize("bad", ["", "x" * 256, "a b", "\x7f", "é"])
def test_a_bad_one_is_refused(admin: TestClient, bad: str) -> None:
    answer = admin.post("/next-batch", json={"annotator": "ann"}, headers={b"Idempotency-Key": bad.encode()})
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "Idempotency-Key")


@on_sqlite
def test_what_was_refused_may_be_tried_again(admin: TestClient, engine: sa.Engine) -> None:
    body = {"name": "shirts", "classes": ["coat", "shirt"], "pretext_from": "p_1"}
    assert admin.post("/projects", json=body, headers=once("a")).status_code == 404
    assert count(engine, KeptAnswer) == 0
    created(admin, name="first")
    assert admin.post("/projects", json=body, headers=once("a")).status_code == 201


@on_sqlite
@pytest.mark.usefixtures("pool")
def test_a_revoked_key_gets_no_kept_answer(admin: TestClient, caller: Callers, engine: sa.Engine) -> None:
    tool = caller("annotator")
    send: dict[str, Any] = {"json": {"annotator": "ann"}, "headers": once("a")}
    assert tool.post("/next-batch", **send).status_code == 200
    with read_session(engine) as session:
        newest = session.scalars(sa.select(sa.func.max(Key.id))).one()
    admin.delete(f"/keys/k_{newest}")
    assert tool.post("/next-batch", **send).json()["code"] == "key_refused"


@on_sqlite
def test_a_secret_is_not_kept(admin: TestClient, engine: sa.Engine) -> None:
    body = {"name": "tool", "role": "reader"}
    made = admin.post("/keys", json=body, headers=once("a")).json()
    again = admin.post("/keys", json=body, headers=once("a"))
    assert (again.status_code, again.json()["code"]) == (409, "answer_not_kept")
    assert count(engine, Key) == 2  # the admin's and this one
    with engine.connect() as connection:
        kept = connection.execute(sa.select(KeptAnswer.__table__)).all()
    assert made["key"] not in str(kept)


@on_sqlite
@pytest.mark.usefixtures("pool")
def test_answers_are_kept_for_a_day(admin: TestClient, engine: sa.Engine) -> None:
    send: dict[str, Any] = {"json": {"annotator": "ann", "size": 1, "new": True}, "headers": once("a")}
    first = admin.post("/next-batch", **send).json()
    with write_session(engine) as session:
        session.execute(sa.update(KeptAnswer).values(created_at=utc_now() - KEPT_FOR - timedelta(minutes=1)))
    second = admin.post("/next-batch", **send).json()
    assert second["batch"] != first["batch"]
    assert count(engine, KeptAnswer) == 1


@pytest.mark.usefixtures("pool")
def test_of_many_at_once_one_is_done(admin: TestClient, engine: sa.Engine) -> None:
    start = threading.Barrier(8)

    def take(_: int) -> tuple[int, Any]:
        start.wait()
        answer = admin.post(
            "/next-batch", json={"annotator": "ann", "size": 1, "new": True}, headers=once("a")
        )
        return answer.status_code, answer.json()

    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(take, range(8)))
    good = [answer for status, answer in answers if status == 200]
    assert good
    assert all(answer == good[0] for answer in good)
    assert {answer["code"] for status, answer in answers if status != 200} <= {"idempotency_key_in_use"}
    with read_session(engine) as session:
        assert session.get_one(Project, 1).served == 1


@on_sqlite
@pytest.mark.usefixtures("pool")
def test_one_that_is_being_done_is_said_to_be(admin: TestClient, engine: sa.Engine, monkeypatch: Any) -> None:
    """Another service did it between our look and our own answer."""
    monkeypatch.setattr("service.access.idempotency.find", lambda *_: None)
    send: dict[str, Any] = {"json": {"annotator": "ann", "size": 1, "new": True}, "headers": once("a")}
    assert admin.post("/next-batch", **send).status_code == 200
    again = admin.post("/next-batch", **send)
    assert (again.status_code, again.json()["code"], again.headers["Retry-After"]) == (
        409,
        "idempotency_key_in_use",
        "1",
    )
    with read_session(engine) as session:
        assert session.get_one(Project, 1).served == 1, "what was done twice was not undone"


def test_a_key_has_so_many_requests_and_gets_them_back_with_time() -> None:
    now = 0.0
    limits = RateLimits(2, clock=lambda: now)
    for _ in range(20):
        limits.take(1)
    with pytest.raises(TooManyRequests) as refused:
        limits.take(1)
    assert refused.value.fields["retry_after_s"] == 1
    limits.take(2)  # another key
    now = 0.5
    limits.take(1)
    with pytest.raises(TooManyRequests):
        limits.take(1)
    now = 1000.0
    for _ in range(20):  # never more than 10 s' worth
        limits.take(1)
    with pytest.raises(TooManyRequests):
        limits.take(1)


def test_a_slow_limit_still_lets_one_through() -> None:
    now = 0.0
    limits = RateLimits(0.01, clock=lambda: now)
    limits.take(1)
    with pytest.raises(TooManyRequests) as refused:
        limits.take(1)
    assert refused.value.fields["retry_after_s"] == 100


@on_sqlite
def test_too_many_requests_are_refused(settings: Settings, admin: TestClient, anyone: TestClient) -> None:
    limited = make_app(settings.model_copy(update={"rate_limit_per_s": 0.1}))
    with TestClient(limited, headers=dict(admin.headers)) as client:
        assert client.get("/projects").status_code == 200
        refused = client.get("/projects")
        assert (refused.status_code, refused.json()["code"]) == (429, "too_many_requests")
        assert refused.headers["Retry-After"] == "10"
        assert "SHORTLIST_RATE_LIMIT_PER_S" in refused.json()["detail"]
        assert client.get("/healthz").status_code == 200


@on_sqlite
@pytest.mark.usefixtures("pool")
def test_of_two_changes_at_once_one_is_refused(admin: TestClient) -> None:
    etag = admin.get("/projects/p_1").headers["ETag"]
    start = threading.Barrier(2)

    def change(budget: int) -> int:
        start.wait()
        return admin.patch("/projects/p_1", json={"budget": budget}, headers={"If-Match": etag}).status_code

    with ThreadPoolExecutor(2) as threads:
        assert sorted(threads.map(change, (1, 2))) == [200, 412]

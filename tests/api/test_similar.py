"""Find more like this, through HTTP; what is near is tested in tests/worker/jobs/test_index_items.py."""

from typing import Any

import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient

from service.pool import similar
from service.settings import Settings
from service.store import pipeline
from service.store.artifacts import Artifacts
from service.store.ids import public_id, row_number
from service.store.session import write_session
from service.store.tables import Item, Project
from tests import factories
from tests.api.conftest import Callers, created
from tests.worker import running
from tests.worker.jobs.scored_projects import CLASSES, ScoredProject, make_scored_project


@pytest.fixture
def scored(engine: sa.Engine, artifacts: Artifacts) -> ScoredProject:
    return make_scored_project(engine, artifacts, pool=60, test=6)


@pytest.fixture
def indexed(
    scored: ScoredProject, engine: sa.Engine, artifacts: Artifacts, settings: Settings
) -> ScoredProject:
    with write_session(engine) as session:
        pipeline.queue_index_items(session, session.get_one(Project, scored.id))
    running.run(running.claim(engine, settings, artifacts, kind="index_items"))
    return scored


def ids(found: dict[str, Any]) -> list[str]:
    return [item["id"] for item in found["items"]]


def of_class(scored: ScoredProject, name: str, count: int) -> list[str]:
    return [public_id("i", item) for item in scored.pool if scored.true_class(item) == name][:count]


def classes_of(scored: ScoredProject, found: dict[str, Any], engine: sa.Engine) -> list[str]:
    numbers = {public_id("i", item): item for item in [*scored.pool, *scored.test]}
    return [scored.true_class(numbers[each]) for each in ids(found)]


def test_items_like_one(admin: TestClient, indexed: ScoredProject, engine: sa.Engine) -> None:
    (example,) = of_class(indexed, "owl", 1)
    at = f"/projects/p_1/items/{example}/similar"
    answer = admin.get(at, params={"limit": 8})
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert len(found["items"]) == 8
    assert example not in ids(found)
    assert classes_of(indexed, found, engine).count("owl") >= 6
    similarities = [item["similarity"] for item in found["items"]]
    assert sorted(similarities, reverse=True) == similarities
    assert found["items"][0].keys() >= {"key", "content", "state", "duplicate_of", "pretext_loss"}
    again = admin.get(at, params={"limit": 8}, headers={"If-None-Match": answer.headers["ETag"]})
    assert again.status_code == 304
    assert len(admin.get(at, params={"limit": 200}).json()["items"]) == 59
    assert {item["split"] for item in admin.get(at, params={"split": "test"}).json()["items"]} == {"test"}


def test_items_like_several_and_unlike_others(
    admin: TestClient, indexed: ScoredProject, engine: sa.Engine
) -> None:
    body: dict[str, Any] = {
        "positive": of_class(indexed, "owl", 2),
        "negative": of_class(indexed, "cat", 3),
        "limit": 200,
    }
    found = admin.post("/projects/p_1/similar", json=body).json()
    assert not set(ids(found)) & set(body["positive"] + body["negative"])
    without = admin.post("/projects/p_1/similar", json=body | {"negative": []}).json()
    assert set(ids(found)) < set(ids(without))
    assert classes_of(indexed, without, engine).count("cat") > 5 * classes_of(indexed, found, engine).count(
        "cat"
    )


def test_by_state(admin: TestClient, indexed: ScoredProject, engine: sa.Engine) -> None:
    example, *others = of_class(indexed, "owl", 4)
    with write_session(engine) as session:
        for item in session.scalars(sa.select(Item).where(Item.project_id == 1)):
            if public_id("i", item.id) in others:
                factories.make_label(session, item=item, class_name="owl")
    at = f"/projects/p_1/items/{example}/similar"
    assert set(ids(admin.get(at, params={"state": "done"}).json())) == set(others)
    assert not set(ids(admin.get(at, params={"state": "available"}).json())) & set(others)


def test_more_is_looked_at_where_filters_leave_little(
    admin: TestClient, indexed: ScoredProject, engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    (example,) = of_class(indexed, "owl", 1)
    at = f"/projects/p_1/items/{example}/similar"
    farthest = ids(admin.get(at, params={"limit": 200}).json())[-1]
    with write_session(engine) as session:
        for item in session.scalars(sa.select(Item).where(Item.project_id == 1)):
            if public_id("i", item.id) == farthest:
                item.state = "broken"
    monkeypatch.setattr(similar, "_LOOKED_AT", 2)
    assert ids(admin.get(at, params={"state": "broken", "limit": 1}).json()) == [farthest]
    monkeypatch.setattr(similar, "_LOOKED_AT_MOST", 10)
    assert ids(admin.get(at, params={"state": "broken", "limit": 1}).json()) == []


def test_one_call_queues_the_answer(admin: TestClient, indexed: ScoredProject, engine: sa.Engine) -> None:
    examples = of_class(indexed, "owl", 2)
    with write_session(engine) as session:
        first = session.scalars(sa.select(Item).where(Item.id == int(indexed.pool[0]))).one()
        factories.make_label(session, item=first, class_name="owl")
    body = {"positive": examples, "count": 3, "annotator": "ann"}
    nearest = admin.post(
        "/projects/p_1/similar", json={"positive": examples, "state": "available", "limit": 6}
    ).json()
    at = "/projects/p_1/similar/queue"
    assert admin.post(at, json=body).json() == {"added": 3, "reopened": 0}
    assert admin.post(at, json=body).json() == {"added": 3, "reopened": 0}
    queued = admin.get("/projects/p_1/queue", params={"annotator": "ann"}).json()["items"]
    assert [each["item"] for each in queued] == ids(nearest)
    batch = admin.post("/projects/p_1/next-batch", json={"annotator": "ann", "size": 3}).json()
    assert [item["id"] for item in batch["items"]] == ids(nearest)[:3]
    assert admin.post(at, json=body | {"count": 200}).json()["added"] == len(indexed.pool) - 2 - 6 - (
        public_id("i", indexed.pool[0]) not in examples
    )


def test_only_admins_queue(caller: Callers, indexed: ScoredProject) -> None:
    body = {"positive": of_class(indexed, "owl", 1)}
    assert caller("reader").post("/projects/p_1/similar", json=body).status_code == 200
    assert caller("reader").post("/projects/p_1/similar/queue", json=body).status_code == 403
    assert caller("annotator").post("/projects/p_1/similar", json=body).status_code == 403


def test_what_cannot_be_compared(
    admin: TestClient, scored: ScoredProject, engine: sa.Engine, artifacts: Artifacts, settings: Settings
) -> None:
    one, two = of_class(scored, "owl", 2)
    at = "/projects/p_1/similar"

    def refused(url: str = at, **body: Any) -> tuple[int, str, str]:
        answer = admin.post(url, json=body)
        problem = answer.json()
        return answer.status_code, problem["code"], (problem.get("errors") or [{"field": ""}])[0]["field"]

    assert refused(positive=[one]) == (409, "similarity_index_missing", "")
    with write_session(engine) as session:
        pipeline.queue_index_items(session, session.get_one(Project, scored.id))
    running.run(running.claim(engine, settings, artifacts, kind="index_items"))
    assert refused(positive=[one, "i_zzz"]) == (422, "unknown_item", "positive[1]")
    assert refused(positive=[one], negative=["nothing"]) == (422, "unknown_item", "negative[0]")
    assert refused(positive=[one], negative=[two, one]) == (422, "invalid", "negative")
    assert refused(positive=[]) == (422, "malformed", "positive")
    assert refused(positive=[one] * 51) == (422, "malformed", "positive")
    assert refused(f"{at}/queue", positive=[one], count=201) == (422, "malformed", "count")
    assert admin.get("/projects/p_1/items/i_zzz/similar").status_code == 404
    with write_session(engine) as session:
        late = factories.make_item(session, project=session.get_one(Project, 1))
        name = public_id("i", late.id)
    got = admin.get(f"/projects/p_1/items/{name}/similar")
    assert (got.status_code, got.json()["code"]) == (409, "item_not_scored")
    assert name in got.json()["detail"]
    created(admin, name="another", classes=CLASSES)
    with write_session(engine) as session:
        other = factories.make_item(session, project=session.get_one(Project, 2))
        name = public_id("i", other.id)
    assert refused(positive=[name]) == (422, "unknown_item", "positive[0]")
    got = admin.get(f"/projects/p_2/items/{name}/similar")
    assert (got.status_code, got.json()["code"]) == (409, "no_score_run")


def test_the_labeled_neighbours_of_an_item_that_is_held(
    admin: TestClient, caller: Callers, indexed: ScoredProject, engine: sa.Engine
) -> None:
    with write_session(engine) as session:
        project = session.get_one(Project, indexed.id)
        for number in indexed.pool[:30]:
            item = session.get_one(Item, number)
            item.state, item.class_name = "done", indexed.true_class(number)
        batch = factories.make_batch(session, project=project, annotator="ann")
        held = [session.get_one(Item, number) for number in indexed.pool[30:32]]
        factories.make_reservation(session, batch=batch, item=held[0], annotator="ann", arm="selected")
        factories.make_reservation(session, batch=batch, item=held[1], annotator="ann", arm="control")
        at = f"/batches/{public_id('b', batch.id)}/items"
        selected, control = (public_id("i", item.id) for item in held)
    own = caller("annotator", annotator="ann", project=project)
    answer = own.get(f"{at}/{selected}/neighbours")
    assert answer.status_code == 200, answer.text
    found = answer.json()["items"]
    assert len(found) == 3
    assert {item["id"] for item in found} <= {public_id("i", number) for number in indexed.pool[:30]}
    assert all(item["class"] == indexed.true_class(row_number("i", item["id"])) for item in found)
    assert found[0]["similarity"] >= found[2]["similarity"]
    refused = own.get(f"{at}/{control}/neighbours")
    assert (refused.status_code, refused.json()["code"]) == (409, "no_hints")
    assert own.get(f"{at}/{public_id('i', indexed.pool[0])}/neighbours").status_code == 404
    other = caller("annotator", annotator="bob", project=project)
    assert other.get(f"{at}/{selected}/neighbours").status_code == 403

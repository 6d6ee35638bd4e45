"""Queues, gold items, withdrawals, pausing and copying through HTTP; the rules are tested in tests/service."""

from typing import Any

import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient

from service.store.session import write_session
from service.store.tables import Item, Job, Project
from tests import factories
from tests.api.conftest import Callers, created
from tests.api.test_labeling import fill, labels_for

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


def ask(client: TestClient, annotator: str = "ann", size: int = 10, **more: Any) -> dict[str, Any]:
    answer = client.post("/next-batch", json={"annotator": annotator, "size": size, **more})
    assert answer.status_code == 200, answer.text
    batch: dict[str, Any] = answer.json()
    return batch


def test_a_queue_is_filled_served_and_emptied(admin: TestClient, engine: sa.Engine) -> None:
    created(admin)
    fill(engine, 4)
    at = "/projects/p_1/queue"
    assert admin.post(at, json={"items": ["i_3"], "annotator": "ann"}).json() == {"added": 1, "reopened": 0}
    admin.post(at, json={"items": ["i_4", "i_2"]})
    assert [queued["item"] for queued in admin.get(at).json()["items"]] == ["i_3", "i_4", "i_2"]
    assert [queued["key"] for queued in admin.get(at, params={"annotator": "ann"}).json()["items"]] == ["002"]
    first = admin.get(at, params={"limit": 1}).json()
    rest = admin.get(at, params={"cursor": first["next_cursor"]}).json()
    assert [queued["item"] for queued in rest["items"]] == ["i_4", "i_2"]
    batch = ask(admin, "ann", 3)
    assert [item["id"] for item in batch["items"]] == ["i_3", "i_4", "i_2"]
    assert {(item["arm"], item["why"]["strategy"]) for item in batch["items"]} == {("queued", "queue")}
    assert admin.delete(at).json() == {"changed": 2}
    wrong = admin.post(at, json={"items": ["i_1", "i_99"]})
    assert (wrong.status_code, wrong.json()["errors"][0]["field"]) == (422, "items[1]")


def test_annotators_cannot_tell_gold_items(admin: TestClient, engine: sa.Engine) -> None:
    created(admin, gold_fraction=0.5)
    fill(engine, 8)
    marked = [{"item": f"i_{number}", "class": "coat"} for number in (1, 2)]
    assert admin.post("/projects/p_1/gold", json={"items": marked}).json() == {"changed": 2}
    batch = ask(admin, size=4)
    assert {"i_1", "i_2"} <= {item["id"] for item in batch["items"]}
    assert {item["arm"] for item in batch["items"]} == {"control"}
    assert admin.post("/labels", json=labels_for(batch, "shirt")).json()["labels_used"] == 2
    found = admin.get("/projects/p_1/items", params={"gold": True}).json()["items"]
    assert [(item["id"], item["class"], item["gold"]) for item in found] == [
        ("i_1", "coat", True),
        ("i_2", "coat", True),
    ]
    assert admin.post("/projects/p_1/gold/unmark", json={"items": ["i_1"]}).json() == {"changed": 1}
    assert admin.get("/projects/p_1/items/i_1").json()["class"] == "shirt"


def test_items_are_withdrawn_and_restored(admin: TestClient, engine: sa.Engine) -> None:
    created(admin)
    fill(engine, 2)
    at = "/projects/p_1/items"
    assert admin.post(f"{at}/withdraw", json={"items": ["i_1", "i_2"]}).json() == {"changed": 2}
    assert ask(admin)["reason"] == "pool_exhausted"
    assert len(admin.get(at, params={"state": "withdrawn"}).json()["items"]) == 2
    assert admin.get("/projects/p_1/metrics").json()["items"] == {"available": 0, "done": 0, "withdrawn": 2}
    assert admin.post(f"{at}/restore", json={"items": ["i_1"]}).json() == {"changed": 1}
    assert len(ask(admin)["items"]) == 1


def test_limits_of_an_annotator(admin: TestClient, engine: sa.Engine) -> None:
    created(admin, max_labels_per_annotator=3, max_held_per_annotator=2, reservation_ttl_s=100)
    fill(engine, 8)
    batch = ask(admin)
    assert len(batch["items"]) == 2
    held = admin.post("/next-batch", json={"annotator": "ann", "new": True})
    assert held.json()["reason"] == "annotator_limit"
    assert 1 <= int(held.headers["Retry-After"]) <= 101
    admin.post("/labels", json=labels_for(batch))
    last = ask(admin)
    assert len(last["items"]) == 1
    admin.post("/labels", json=labels_for(last))
    spent = admin.post("/next-batch", json={"annotator": "ann"})
    assert spent.json()["reason"] == "annotator_limit"
    assert "Retry-After" not in spent.headers
    assert len(ask(admin, "bob")["items"]) == 2


def test_a_paused_project_serves_nothing_and_takes_labels(admin: TestClient, engine: sa.Engine) -> None:
    created(admin)
    fill(engine, 3)
    batch = ask(admin, size=2)
    assert admin.patch("/projects/p_1", json={"state": "paused"}).json()["state"] == "paused"
    assert ask(admin) == {"batch": None, "expires_at": None, "items": [], "reason": "project_paused"}
    assert admin.post("/labels", json=labels_for(batch)).json()["accepted"] == 2
    admin.patch("/projects/p_1", json={"state": "active"})
    assert len(ask(admin)["items"]) == 1


def test_an_archived_project_changes_no_more(admin: TestClient, engine: sa.Engine) -> None:
    created(admin)
    fill(engine, 3)
    batch = ask(admin, size=2)
    with write_session(engine) as session:
        factories.make_job(session, project_id=1, kind="rank")
    admin.patch("/projects/p_1", json={"state": "archived"})
    assert admin.get("/jobs/j_1").json()["state"] == "cancelled"
    assert admin.get("/projects").json()["items"] == []
    assert [found["id"] for found in admin.get("/projects?state=archived").json()["items"]] == ["p_1"]
    assert (
        admin.post("/projects/p_1/next-batch", json={"annotator": "ann"}).json()["reason"]
        == "project_archived"
    )
    for path, body in (
        ("labels", labels_for(batch)),
        ("pretrain", {}),
        ("queue", {"items": ["i_1"]}),
        ("items/withdraw", {"items": ["i_1"]}),
        ("items", {"items": []}),
        ("sources", {"uri": "/nowhere"}),
    ):
        refused = admin.post(f"/projects/p_1/{path}", json=body)
        assert (refused.status_code, refused.json()["code"]) == (409, "project_archived"), path
    assert admin.get("/projects/p_1/labels").status_code == 200
    admin.patch("/projects/p_1", json={"state": "active"})
    assert admin.post("/labels", json=labels_for(batch)).json()["results"][0]["outcome"] == "late"


def test_a_lent_pretext_model_keeps_its_project(admin: TestClient, engine: sa.Engine) -> None:
    created(admin)
    created(admin, name="borrower", pretext_from="p_1")
    with write_session(engine) as session:
        lender, borrower = session.get_one(Project, 1), session.get_one(Project, 2)
        model = factories.make_pretext_model(session, project=lender)
        factories.make_score_run(session, project=borrower, pretext_model=model)
        factories.make_score_run(session, project=lender, pretext_model=model)
    refused = admin.delete("/projects/p_1")
    assert (refused.status_code, refused.json()["code"]) == (409, "pretext_in_use")
    assert "'borrower'" in refused.json()["detail"]
    assert admin.delete("/projects/p_2").status_code == 204
    assert admin.delete("/projects/p_1").status_code == 204
    with write_session(engine) as session:
        jobs = list(session.scalars(sa.select(Job).order_by(Job.id)))
    assert [job.payload["folders"] for job in jobs] == [
        ["heads/2", "own-predictions/2", "scores/1", "inline/2", "uploads/2"],
        ["heads/1", "own-predictions/1", "pretext/1", "scores/2", "inline/1", "uploads/1"],
    ]
    assert all(job.project_id is None for job in jobs)


def test_only_admins_do_that(admin: TestClient, engine: sa.Engine, caller: Callers) -> None:
    created(admin)
    fill(engine, 1)
    annotator = caller("annotator")
    for path, body in (
        ("queue", {"items": ["i_1"]}),
        ("gold", {"items": [{"item": "i_1", "class": "coat"}]}),
        ("items/withdraw", {"items": ["i_1"]}),
        ("copy", {"name": "x"}),
    ):
        assert annotator.post(f"/projects/p_1/{path}", json=body).status_code == 403, path


def test_what_waits_in_the_ranking_is_listed_by_rank_and_by_sureness(
    admin: TestClient, engine: sa.Engine
) -> None:
    created(admin)
    fill(engine, 6)
    with write_session(engine) as session:
        project = session.get_one(Project, 1)
        score_run = factories.make_score_run(session, project=project)
        ranking = factories.make_ranking(session, project=project, score_run=score_run, items=[])
        for rank, (item, name, probability) in enumerate(
            [(4, "coat", 0.9), (2, "shirt", 0.5), (5, "coat", 0.7), (1, None, None)], start=1
        ):
            factories.make_ranked_item(
                session,
                ranking=ranking,
                item=session.get_one(Item, item),
                rank=rank,
                predicted_class=name,
                predicted_probability=probability,
            )
        project.score_run_id, project.ranking_id = score_run.id, ranking.id
        session.get_one(Item, 5).state = "withdrawn"
    at = "/projects/p_1/items"

    def listed(**params: Any) -> list[str]:
        answer = admin.get(at, params=params)
        assert answer.status_code == 200, answer.text
        return [item["id"] for item in answer.json()["items"]]

    assert listed(sort="rank") == ["i_4", "i_2", "i_1"]
    assert listed(sort="predicted_probability") == ["i_2", "i_4"]
    assert listed(predicted_class="coat") == ["i_4"]
    first = admin.get(at, params={"sort": "rank", "limit": 1}).json()
    assert (first["items"][0]["rank"], first["items"][0]["predicted_class"]) == (1, "coat")
    assert listed(sort="rank", cursor=first["next_cursor"]) == ["i_2", "i_1"]
    least = admin.get(at, params={"sort": "predicted_probability", "limit": 1}).json()
    assert listed(sort="predicted_probability", cursor=least["next_cursor"]) == ["i_4"]
    assert admin.get(at, params={"cursor": first["next_cursor"]}).status_code == 422


def test_what_annotators_disagree_on_is_listed(admin: TestClient, engine: sa.Engine) -> None:
    created(admin)
    fill(engine, 4)
    said = {1: ("coat", "shirt"), 2: ("coat", "coat"), 3: ("coat",)}
    with write_session(engine) as session:
        for number, classes in said.items():
            for annotator, name in zip(("ann", "bob"), classes, strict=False):
                factories.make_label(
                    session, item=session.get_one(Item, number), annotator=annotator, class_name=name
                )
        # A class that was changed since is no disagreement.
        factories.make_label(
            session, item=session.get_one(Item, 3), annotator="bob", class_name="shirt", current=False
        )
    found = admin.get("/projects/p_1/items", params={"disagreed": True}).json()["items"]
    assert [item["id"] for item in found] == ["i_1"]
    assert len(admin.get("/projects/p_1/items", params={"disagreed": False}).json()["items"]) == 3


def test_grids_through_http(admin: TestClient, engine: sa.Engine) -> None:
    created(admin)
    fill(engine, 3)
    asked = {"annotator": "ann", "size": 3}
    wrong = admin.post("/next-batch", json=asked | {"predicted_class": "coat"})
    assert (wrong.status_code, wrong.json()["errors"][0]["field"]) == (422, "predicted_class")
    assert ask(admin, grid=True)["reason"] == "none_predicted"
    assert len(ask(admin, size=3)["items"]) == 3

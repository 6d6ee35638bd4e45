from typing import Any

import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient

from service.store.session import write_session
from service.store.tables import Item, Project
from tests import factories
from tests.api.conftest import created


def test_a_project_has_documented_defaults(admin: TestClient) -> None:
    project = created(admin, strategy="margin", budget=500)
    assert project["id"] == "p_1"
    assert project["strategy"] == {"name": "margin", "params": {}}
    assert (project["budget"], project["round_size"], project["overlap"]) == (500, 50, 1)
    assert admin.get("/projects/p_1").json() == project
    assert admin.get("/projects").json()["items"] == [project]


def test_names_are_unique(admin: TestClient) -> None:
    created(admin, name="shirts 👕")
    answer = admin.post("/projects", json={"name": " shirts 👕 ", "classes": ["a", "b"]})
    assert (answer.status_code, answer.json()["code"]) == (409, "name_taken")
    other = created(admin, name="other")
    assert admin.patch(f"/projects/{other['id']}", json={"name": "shirts 👕"}).status_code == 409


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"classes": ["a", "b"]}, "name"),
        ({"name": "", "classes": ["a", "b"]}, "name"),
        ({"name": "x" * 201, "classes": ["a", "b"]}, "name"),
        ({"name": "x", "classes": ["a"]}, "classes"),
        ({"name": "x", "classes": []}, "classes"),
        ({"name": "x", "classes": ["a", "a"]}, "classes"),
        ({"name": "x", "classes": ["a", " "]}, "classes[1]"),
        ({"name": "x", "classes": ["a", "b"], "round_sice": 5}, "round_sice"),
        ({"name": "x", "classes": ["a", "b"], "round_size": 0}, "round_size"),
        ({"name": "x", "classes": ["a", "b"], "control_fraction": 1.5}, "control_fraction"),
        ({"name": "x", "classes": ["a", "b"], "strategy": {"nam": "margin"}}, "strategy.name"),
        ({"name": "x", "classes": ["a", "b"], "strategy": 5}, "strategy"),
    ],
)
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_wrong_field_is_named(admin: TestClient, body: dict[str, Any], field: str) -> None:
    answer = admin.post("/projects", json=body)
    assert answer.status_code == 422
    problem = answer.json()
    assert problem["code"] == "malformed"
    assert field in [each["field"] for each in problem["errors"]]


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_plug_ins_are_checked_once_a_worker_announced_some(admin: TestClient, engine: sa.Engine) -> None:
    created(admin, strategy="anything")
    schema = {
        "type": "object",
        "properties": {
            "k": {"type": "integer", "minimum": 1},
            "power": {"anyOf": [{"type": "number", "exclusiveMinimum": 0}, {"type": "null"}]},
            "kernel": {"type": "string", "enum": ["rbf", "cosine"]},
            "class": {"anyOf": [{"type": "string"}, {"type": "null"}], "x-class": True},
        },
    }
    with write_session(engine) as session:
        factories.make_catalogue_entry(session, name="margin", parameters=schema)
    assert [entry["name"] for entry in admin.get("/catalogue").json()["items"]] == ["margin"]

    def code(strategy: Any) -> tuple[int, str]:
        answer = admin.patch("/projects/p_1", json={"strategy": strategy})
        return answer.status_code, answer.json().get("detail", "")

    assert code({"name": "margin", "params": {"k": 3, "power": None, "kernel": "rbf"}})[0] == 200
    assert code({"name": "margin", "params": {"class": "coat"}})[0] == 200
    assert code({"name": "margin", "params": {"class": None}})[0] == 200
    for strategy, words in [
        ("entropie", "Known are: margin"),
        ({"name": "margin", "params": {"q": 3}}, "strategy.params.q"),
        ({"name": "margin", "params": {"k": 0}}, "at least 1"),
        ({"name": "margin", "params": {"k": "3"}}, "of type integer"),
        ({"name": "margin", "params": {"k": True}}, "of type integer"),
        ({"name": "margin", "params": {"power": 0}}, "greater than 0"),
        ({"name": "margin", "params": {"kernel": "linear"}}, "'rbf', 'cosine'"),
        ({"name": "margin", "params": {"class": "cot"}}, "no class 'cot'. Its classes are: coat, shirt"),
    ]:
        status, detail = code(strategy)
        assert status == 422, strategy
        assert words in detail


def test_a_change_needs_what_was_read(admin: TestClient) -> None:
    created(admin)
    etag = admin.get("/projects/p_1").headers["ETag"]
    assert admin.get("/projects/p_1", headers={"If-None-Match": etag}).status_code == 304
    changed = admin.patch("/projects/p_1", json={"budget": 7}, headers={"If-Match": etag})
    assert (changed.status_code, changed.json()["budget"], changed.json()["round_size"]) == (200, 7, 50)
    stale = admin.patch("/projects/p_1", json={"budget": 8}, headers={"If-Match": etag})
    assert (stale.status_code, stale.json()["code"]) == (412, "project_changed")
    fresh = admin.get("/projects/p_1", headers={"If-None-Match": etag})
    assert (fresh.status_code, fresh.headers["ETag"]) == (200, changed.headers["ETag"])
    assert admin.patch("/projects/p_1", json={"budget": None}).json()["budget"] is None


@pytest.mark.parametrize("change", [{"strategy": "random"}, {"collapse_duplicates": False}])
def test_another_strategy_makes_another_ranking(
    admin: TestClient, engine: sa.Engine, change: dict[str, Any]
) -> None:
    created(admin)
    admin.patch("/projects/p_1", json={"strategy": "margin"})
    assert admin.get("/jobs").json()["items"] == []  # nothing is scored yet
    with write_session(engine) as session:
        project = session.get_one(Project, 1)
        project.score_run_id = factories.make_score_run(session, project=project).id
    admin.patch("/projects/p_1", json={"name": "coats", "reservation_ttl_s": 60})
    assert admin.get("/jobs").json()["items"] == []
    admin.patch("/projects/p_1", json=change)
    assert [job["kind"] for job in admin.get("/jobs").json()["items"]] == ["rank"]
    admin.patch("/projects/p_1", json={"control_fraction": 0.2})
    assert [job["kind"] for job in admin.get("/jobs").json()["items"]] == ["rank"]


def test_classes_with_labels_stay(admin: TestClient, engine: sa.Engine) -> None:
    created(admin, classes=["coat", "shirt", "shoe"])
    with write_session(engine) as session:
        item = factories.make_item(session, project=session.get_one(Project, 1))
        factories.make_label(session, item=item, class_name="coat")
    more = ["coat", "shirt", "bag"]
    assert admin.patch("/projects/p_1", json={"classes": more}).json()["classes"] == more
    refused = admin.patch("/projects/p_1", json={"classes": ["shirt", "bag"]})
    assert (refused.status_code, refused.json()["code"]) == (409, "class_in_use")
    with write_session(engine) as session:
        project = session.get_one(Project, 1)
        factories.make_item(session, project=project, gold=True, state="done", class_name="bag")
    refused = admin.patch("/projects/p_1", json={"classes": ["coat", "shirt"]})
    assert (refused.status_code, refused.json()["code"]) == (409, "class_in_use")


def test_an_undo_right_after_a_round_closed(admin: TestClient, engine: sa.Engine) -> None:
    created(admin, round_size=1)
    with write_session(engine) as session:
        factories.make_item(session, project=session.get_one(Project, 1))
    label = {"item": "i_1", "class": "shirt", "annotator": "ann"}
    for one in (label, label | {"class": None}):
        admin.post("/projects/p_1/labels", json={"labels": [one]}).raise_for_status()
    found = admin.get("/projects/p_1/metrics").json()
    assert (found["labels_used"], found["round"], found["round_labels"]) == (0, 2, 0)


def test_what_queued_jobs_wait_for(admin: TestClient, engine: sa.Engine) -> None:
    created(admin)
    with write_session(engine) as session:
        job = {"project_id": 1, "kind": "train_head", "needs": ("kind:train_head", "head:foo")}
        for _ in range(2):
            factories.make_job(session, **job)
        factories.make_worker(session, has=["kind:train_head"])
    sentence = "a worker that has head:foo; the only live worker does not."
    found = admin.get("/projects/p_1/metrics").json()
    assert found["waiting"] == [{"kind": "train_head", "waits_for": sentence}]
    assert [job["waits_for"] for job in found["jobs"]] == [sentence] * 2
    assert [job["waits_for"] for job in admin.get("/jobs").json()["items"]] == [sentence] * 2
    assert admin.get("/jobs/j_1").json()["waits_for"] == sentence
    with write_session(engine) as session:
        factories.make_worker(session, has=["head:foo", "kind:train_head"])
    assert admin.get("/jobs/j_1").json()["waits_for"] is None
    assert admin.get("/projects/p_1/metrics").json()["waiting"] == []


def test_deleting_takes_all_along(admin: TestClient, engine: sa.Engine) -> None:
    created(admin)
    with write_session(engine) as session:
        project = session.get_one(Project, 1)
        factories.make_label(session, item=factories.make_item(session, project=project))
        score_run = factories.make_score_run(session, project=project)
        project.head_id = factories.make_head(session, project=project, score_run=score_run).id
        factories.make_job(session, project_id=1)
    assert admin.delete("/projects/p_1").status_code == 204
    assert admin.get("/projects/p_1").status_code == 404
    with write_session(engine) as session:
        assert session.scalars(sa.select(Item)).all() == []


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_lists_come_in_pages(admin: TestClient) -> None:
    made = [created(admin, name=f"project {number}")["id"] for number in range(5)]
    seen: list[str] = []
    cursor = ""
    while True:
        page = admin.get(f"/projects?limit=2{cursor}").json()
        seen += [project["id"] for project in page["items"]]
        if page["next_cursor"] is None:
            break
        cursor = f"&cursor={page['next_cursor']}"
    assert seen == made


def test_pretraining_needs_a_pool(admin: TestClient, engine: sa.Engine) -> None:
    created(admin)
    assert admin.post("/projects/p_1/pretrain").json()["code"] == "empty_pool"
    with write_session(engine) as session:
        factories.make_item(session, project=session.get_one(Project, 1))
    answer = admin.post("/projects/p_1/pretrain", json={})
    job = answer.json()
    assert (answer.status_code, job["kind"], job["state"]) == (202, "train_pretext", "queued")
    assert admin.get(answer.headers["Location"]).json() == job


def test_pretext_from_scores_with_the_other_project_s_model(admin: TestClient, engine: sa.Engine) -> None:
    created(admin)
    created(admin, name="second", pretext_from="p_1")
    assert (
        admin.post("/projects", json={"name": "x", "classes": ["a", "b"], "pretext_from": "p_9"}).status_code
        == 404
    )
    with write_session(engine) as session:
        factories.make_item(session, project=session.get_one(Project, 2))
    assert admin.post("/projects/p_2/pretrain").json()["code"] == "no_pretext_model"
    with write_session(engine) as session:
        first = session.get_one(Project, 1)
        factories.make_pretext_model(session, project=first, version=1)
        factories.make_pretext_model(session, project=first, version=2)
        factories.make_pretext_model(session, project=first, version=3, state="training")
    job = admin.post("/projects/p_2/pretrain").json()
    assert job["kind"] == "score_pool"
    with write_session(engine) as session:
        payload = session.scalar(sa.text("SELECT payload FROM jobs"))
    assert "2" in str(payload)


def test_retraining_needs_scores_and_labels(admin: TestClient, engine: sa.Engine) -> None:
    created(admin)
    assert admin.post("/projects/p_1/retrain").json()["code"] == "no_score_run"
    with write_session(engine) as session:
        project = session.get_one(Project, 1)
        project.score_run_id = factories.make_score_run(session, project=project).id
        factories.make_item(session, project=project)
    assert admin.post("/projects/p_1/retrain").json()["code"] == "no_labels"
    admin.post("/labels", json={"labels": [{"item": "i_1", "class": "coat", "annotator": "ann"}]})
    assert admin.post("/projects/p_1/retrain").json()["kind"] == "train_head"

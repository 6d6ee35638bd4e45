"""Who may do what."""

import re
from typing import Any

import pytest
import sqlalchemy as sa
from fastapi import FastAPI
from fastapi.testclient import TestClient

from service.store.session import write_session
from service.store.tables import Project
from tests import factories
from tests.api.conftest import Callers, created

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)

OPEN = {"/healthz", "/readyz", "/openapi.json", "/docs", "/"}
SIGN_IN = ("POST", "/session")  # takes a key as its body, see test_sign_in.py


def routes(app: FastAPI) -> list[tuple[str, str]]:
    return [(method.upper(), path) for path, methods in app.openapi()["paths"].items() for method in methods]


def test_nothing_is_open_but_health_and_pages(app: FastAPI, anyone: TestClient) -> None:
    for method, path in routes(app):
        if (method, path) == SIGN_IN:
            continue
        answer = anyone.request(method, re.sub(r"\{.*?\}", "x", path))
        if path in OPEN:
            assert answer.status_code in (200, 503), path
        else:
            assert (answer.status_code, answer.json()["code"]) == (401, "key_missing"), path
            assert answer.headers["WWW-Authenticate"] == "Bearer"
    for path in OPEN:
        assert anyone.get(path).status_code in (200, 503), path


def test_a_reader_only_reads(app: FastAPI, caller: Callers) -> None:
    reader = caller("reader")
    for method, path in routes(app):
        answer = reader.request(method, re.sub(r"\{.*?\}", "1", path), json={})
        if path == "/session":
            assert answer.status_code in (200, 204, 422), method  # they may sign in and out
        elif path.endswith(("/similar", "/map")):
            assert answer.status_code not in (401, 403), (
                method
            )  # a question that needs a body, or a computation
        elif method != "GET" or path.startswith(("/keys", "/batches")) or "/webhooks" in path:
            assert (answer.status_code, answer.json()["code"]) == (403, "role_refused"), (method, path)
        else:
            assert answer.status_code not in (401, 403), path


def test_an_annotator_only_labels(app: FastAPI, caller: Callers) -> None:
    annotator = caller("annotator")
    allowed = {
        ("POST", "/next-batch"),
        ("POST", "/projects/{project_id}/next-batch"),
        ("POST", "/labels"),
        ("POST", "/projects/{project_id}/labels"),
        ("POST", "/projects/{project_id}/labels/import"),
        ("POST", "/batches/{batch_id}/renew"),
        ("GET", "/batches/{batch_id}/items/{item_id}/neighbours"),
        ("DELETE", "/batches/{batch_id}"),
        ("GET", "/projects"),
        ("GET", "/projects/{project_id}"),
        ("GET", "/projects/{project_id}/items/{item_id}/image"),
        ("GET", "/catalogue"),
        ("GET", "/projects/{project_id}/items/{item_id}/content"),
        ("GET", "/healthz"),
        ("GET", "/readyz"),
        SIGN_IN,
        ("GET", "/session"),
        ("DELETE", "/session"),
    }
    for method, path in routes(app):
        answer = annotator.request(method, re.sub(r"\{.*?\}", "1", path), json={})
        assert (answer.status_code == 403) == ((method, path) not in allowed), (method, path)


@pytest.mark.parametrize(
    "header", ["Bearer nonsense", "Bearer ", "Basic YTpi", "Bearer " + "x" * 5000, "nonsense"]
)
def test_other_keys_are_refused(anyone: TestClient, header: str) -> None:
    answer = anyone.get("/projects", headers={"Authorization": header})
    assert answer.status_code == 401
    assert answer.headers["Content-Type"] == "application/problem+json"


def test_a_key_is_shown_once_listed_and_revoked_at_once(admin: TestClient, caller: Callers) -> None:
    project = created(admin)
    answer = admin.post("/keys", json={"name": "tool", "role": "reader", "project": project["id"]})
    made = answer.json()
    assert (answer.status_code, answer.headers["Cache-Control"]) == (201, "no-store")
    client = caller.with_key(made["key"])
    assert client.get(f"/projects/{project['id']}").status_code == 200
    listed = {key["id"]: key for key in admin.get("/keys").json()["items"]}
    assert "key" not in listed[made["id"]]
    assert listed[made["id"]]["project"] == project["id"]
    assert listed[made["id"]]["last_used_at"] is not None
    assert admin.delete(f"/keys/{made['id']}").json()["revoked_at"] is not None
    assert client.get(f"/projects/{project['id']}").json()["code"] == "key_refused"


def test_a_key_of_a_project_sees_no_other(admin: TestClient, caller: Callers, engine: sa.Engine) -> None:
    mine, other = created(admin), created(admin, name="other")
    with write_session(engine) as session:
        project = session.get_one(Project, 1)
        foreign = session.get_one(Project, 2)
        theirs = factories.make_item(session, project=foreign)
        job = factories.make_job(session, project_id=foreign.id)
        batch = factories.make_batch(session, project=foreign)
        job_id, item_id, batch_id = job.id, theirs.id, batch.id
    bound = caller("admin", project)
    assert [each["id"] for each in bound.get("/projects").json()["items"]] == [mine["id"]]
    for method, path, body in [
        ("GET", f"/projects/{other['id']}", None),
        ("PATCH", f"/projects/{other['id']}", {"budget": 1}),
        ("DELETE", f"/projects/{other['id']}", None),
        ("GET", f"/projects/{other['id']}/items/i_{item_id}/image", None),
        ("GET", f"/projects/{mine['id']}/items/i_{item_id}", None),
        ("POST", f"/projects/{other['id']}/next-batch", {"annotator": "ann"}),
        ("GET", f"/jobs/j_{job_id}", None),
        ("DELETE", f"/jobs/j_{job_id}", None),
        ("DELETE", f"/batches/b_{batch_id}", None),
        ("POST", "/keys", {"name": "k", "role": "admin", "project": other["id"]}),
    ]:
        answer = bound.request(method, path, json=body)
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found"), (method, path)
    assert bound.get("/jobs").json()["items"] == []
    assert bound.post("/projects", json={"name": "x", "classes": ["a", "b"]}).status_code == 403
    assert bound.post("/keys", json={"name": "k", "role": "admin"}).json()["code"] == "bound_to_project"
    assert bound.post("/next-batch", json={"annotator": "ann"}).json()["reason"] == "pool_exhausted"
    assert admin.post("/next-batch", json={"annotator": "ann"}).json()["code"] == "which_project"


def test_without_a_project_the_short_addresses_say_how_to_make_one(admin: TestClient) -> None:
    for path, body in [
        ("/next-batch", {"annotator": "ann"}),
        ("/labels", {"labels": [{"item": "i_1", "class": "a"}]}),
    ]:
        answer = admin.post(path, json=body)
        assert (answer.status_code, answer.json()["code"]) == (404, "no_project")
        assert "POST /projects" in answer.json()["detail"]


def test_a_key_of_an_archived_project_is_told_so(
    admin: TestClient, caller: Callers, engine: sa.Engine
) -> None:
    with write_session(engine) as session:
        project = factories.make_project(session, state="archived")
    bound = caller("annotator", project, annotator="ann")
    answer = bound.post("/next-batch", json={})
    assert (answer.status_code, answer.json()["reason"]) == (200, "project_archived")
    label = {"item": "i_1", "class": "coat"}
    assert bound.post("/labels", json={"labels": [label]}).json()["code"] == "project_archived"
    assert admin.post("/next-batch", json={"annotator": "ann"}).json()["code"] == "no_project"


def test_a_key_of_an_annotator_acts_for_no_other(
    admin: TestClient, caller: Callers, engine: sa.Engine
) -> None:
    project = created(admin)
    with write_session(engine) as session:
        factories.make_item(session, project=session.get_one(Project, 1))
    ann, bob = caller("annotator", annotator="ann"), caller("annotator", annotator="bob")
    batch: dict[str, Any] = ann.post("/next-batch", json={}).json()
    assert len(batch["items"]) == 1
    label = {"item": batch["items"][0]["id"], "class": "coat"}
    for answer in (
        ann.post("/next-batch", json={"annotator": "bob"}),
        ann.post("/labels", json={"labels": [label, label | {"annotator": "bob"}]}),
        bob.post(f"/batches/{batch['batch']}/renew"),
        bob.delete(f"/batches/{batch['batch']}"),
    ):
        assert (answer.status_code, answer.json()["code"]) == (403, "bound_to_annotator")
    assert ann.post(f"/batches/{batch['batch']}/renew").status_code == 200
    assert ann.post("/labels", json={"labels": [label]}).json()["accepted"] == 1
    assert admin.post(f"/projects/{project['id']}/next-batch", json={}).json()["code"] == "annotator_missing"


def test_image_links_work_without_a_key_and_only_as_signed(
    admin: TestClient, anyone: TestClient, engine: sa.Engine
) -> None:
    created(admin)
    with write_session(engine) as session:
        project = session.get_one(Project, 1)
        factories.make_item(session, project=project)
        factories.make_item(session, project=project)
    first, second = admin.get("/projects/p_1/items").json()["items"]
    assert (
        anyone.get(first["image_url"]).json()["code"] == "no_preview"
    )  # the file is gone, the link was good
    path, query = first["image_url"].split("?")
    later = re.sub(r"expires=(\d+)", lambda found: f"expires={int(found[1]) + 1}", query)
    past = re.sub(r"expires=\d+", "expires=1", query)
    other = second["image_url"].split("?")[0]
    for forged in (
        f"{other}?{query}",
        f"{path}?{later}",
        f"{path}?{past}",
        f"{path}?{query}x",
        f"{path}?expires=1",
    ):
        assert anyone.get(forged).status_code in (401, 403), forged
    assert anyone.get(f"{path}?{query}é").json()["code"] == "link_refused"


def test_a_key_is_noted_once_by_however_many_see_that_it_is_due(
    admin: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many writes as requests would fill the thread pool, and the request that has SQLite's lock needs a thread."""
    notes = []
    monkeypatch.setattr("service.access.keys.note_use", lambda _, key_id, now: notes.append(key_id))
    for _ in range(3):
        assert admin.get("/projects").status_code == 200  # never noted: due each time
    assert len(notes) == 1


def test_who_has_no_key_never_holds_the_database(anyone: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def held(*_: Any) -> None:
        raise AssertionError

    monkeypatch.setattr("service.http.dependencies.write_session", held)
    assert anyone.post("/next-batch", json={"annotator": "ann"}).status_code == 401

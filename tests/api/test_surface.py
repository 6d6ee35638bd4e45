"""What every route has in common: description, ETags, health, log."""

import re
from typing import Any

import pytest
import sqlalchemy as sa
from fastapi import FastAPI
from fastapi.testclient import TestClient
from structlog.testing import capture_logs

from service.api import exports
from service.main import create_app
from service.pool import counts
from service.settings import Settings
from service.store.session import write_session
from service.store.tables import OwnPredictions, Project
from tests import factories
from tests.api.conftest import created

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


def operations(app: FastAPI) -> list[tuple[str, str, dict[str, Any]]]:
    return [
        (method, path, operation)
        for path, methods in app.openapi()["paths"].items()
        for method, operation in methods.items()
    ]


def test_every_route_is_described_with_an_example(app: FastAPI) -> None:
    schemas = app.openapi()["components"]["schemas"]

    def has_example(content: dict[str, Any]) -> bool:
        for body in content.values():
            name = body.get("schema", {}).get("$ref", "").rpartition("/")[2]
            schema = schemas.get(name, {})
            items = (
                schema.get("properties", {})
                .get("items", {})
                .get("items", {})
                .get("$ref", "")
                .rpartition("/")[2]
            )
            if "example" in body or "example" in schema or "example" in schemas.get(items, {}):
                return True
        return not content or any(
            kind
            in (
                "image/*",
                "*/*",
                "text/plain",
                "application/zip",
                "application/octet-stream",
                "application/vnd.shortlist.map",
                "application/vnd.apache.parquet",
            )
            for kind in content
        )

    for method, path, operation in operations(app):
        where = f"{method} {path}"
        assert len(operation.get("description", "")) > 15, where
        good = next(answer for status, answer in operation["responses"].items() if status.startswith("2"))
        assert has_example(good.get("content", {})), where
        if method == "post" and "requestBody" in operation and "train" not in path:
            assert has_example(operation["requestBody"]["content"]), where


def test_every_polled_get_answers_304(admin: TestClient, app: FastAPI, engine: sa.Engine) -> None:
    created(admin)
    with write_session(engine) as session:
        project = session.get_one(Project, 1)
        factories.make_item(session, project=project)
        factories.make_job(session, project_id=1)
        factories.make_delivery(
            session, webhook=factories.make_webhook(session, project=project), next_at=9e9
        )
        factories.make_tool_connection(session, project=project, next_at=9e9)
        session.add(OwnPredictions(project_id=1, artifact="own-predictions/1/none.npz", classes=[], items=0))
        score_run = factories.make_score_run(session, project=project)
        project.score_run_id = score_run.id
    ids = {"project_id": "p_1", "item_id": "i_1", "job_id": "j_1", "number": "1", "webhook_id": "w_1"}
    for method, path, _ in operations(app):
        if (
            method != "get"
            or path in ("/healthz", "/readyz", "/metrics", "/session")
            or path.endswith(
                (
                    "/image",
                    "/content",
                    "/labels",
                    "/backbone",
                    "/events",
                    "/similar",
                    "/neighbours",
                    "/map",
                    "/map/items",
                    "/answers",
                )
            )
        ):
            continue
        url = re.sub(r"\{(\w+)\}", lambda found: ids[found[1]], path)
        first = admin.get(url)
        assert first.status_code == 200, url
        again = admin.get(url, headers={"If-None-Match": f'"other", W/{first.headers["ETag"]}'})
        assert (again.status_code, again.content) == (304, b""), url
        assert again.headers["ETag"] == first.headers["ETag"]
        assert admin.get(url, headers={"If-None-Match": '"other"'}).status_code == 200


def test_an_etag_changes_with_what_it_stands_for(admin: TestClient, engine: sa.Engine) -> None:
    created(admin)
    before = admin.get("/projects/p_1/metrics").headers["ETag"]
    with write_session(engine) as session:
        factories.make_item(session, project=session.get_one(Project, 1))
    assert admin.get("/projects/p_1/metrics", headers={"If-None-Match": before}).status_code == 200


def test_ready_means_database_migration_and_worker(anyone: TestClient, engine: sa.Engine) -> None:
    assert anyone.get("/healthz").json() == {"status": "ok"}
    without = anyone.get("/readyz")
    assert (without.status_code, without.json()["code"]) == (503, "not_ready")
    assert "worker" in without.json()["detail"]
    with write_session(engine) as session:
        factories.make_worker(session)
    assert anyone.get("/readyz").json() == {"status": "ready", "workers": 1}
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    ahead = anyone.get("/readyz")
    assert ahead.status_code == 503
    assert "Update the program" in ahead.json()["detail"]
    with engine.begin() as connection:
        connection.execute(sa.text("DELETE FROM alembic_version"))
    behind = anyone.get("/readyz")
    assert behind.status_code == 503
    assert "shortlist migrate" in behind.json()["detail"]


def test_not_ready_without_a_database(settings: Settings) -> None:
    nowhere = settings.model_copy(update={"database_url": f"sqlite:///{settings.data_dir}"})
    settings.data_dir.mkdir()
    with TestClient(create_app(nowhere)) as client:
        answer = client.get("/readyz")
        assert answer.status_code == 503
        assert "database" in answer.json()["detail"]
        assert client.get("/healthz").status_code == 200


def test_figures_for_prometheus(admin: TestClient, engine: sa.Engine) -> None:
    created(admin)
    with write_session(engine) as session:
        factories.make_job(session, project_id=1)
    text = admin.get("/metrics").text
    assert 'shortlist_jobs{kind="rank",state="queued"} 1.0' in text
    assert 'shortlist_projects{state="active"} 1.0' in text
    assert 'shortlist_requests_total{method="POST",route="/projects",status="201"} 1.0' in text


def test_the_log_has_neither_keys_nor_signatures(admin: TestClient, engine: sa.Engine) -> None:
    created(admin)
    with write_session(engine) as session:
        factories.make_item(session, project=session.get_one(Project, 1))
    url = admin.get("/projects/p_1/items").json()["items"][0]["image_url"]
    with capture_logs() as lines:
        admin.get(url)
        made = admin.post("/keys", json={"name": "tool", "role": "reader"}).json()
    assert [(line["method"], line["status"]) for line in lines] == [("GET", 404), ("POST", 201)]
    for secret in (url.partition("signature=")[2], made["key"], admin.headers["Authorization"].split()[1]):
        assert secret not in str(lines)


def test_jobs_are_listed_filtered_and_cancelled(admin: TestClient, engine: sa.Engine) -> None:
    created(admin)
    with write_session(engine) as session:
        factories.make_job(session, project_id=1, kind="rank")
        factories.make_job(session, project_id=1, kind="train_head", state="failed", error="Too few labels.")
        factories.make_job(
            session,
            project_id=None,
            kind="rank",
            state="running",
            progress=0.5,
            started_at=1.0,
            lease_until=9e9,
        )
    assert [job["id"] for job in admin.get("/jobs").json()["items"]] == ["j_3", "j_2", "j_1"]
    assert [job["id"] for job in admin.get("/jobs?project=p_1&kind=rank").json()["items"]] == ["j_1"]
    assert [job["error"] for job in admin.get("/jobs?state=failed").json()["items"]] == ["Too few labels."]
    assert admin.get("/jobs/j_3").json()["eta_s"] > 0
    assert admin.delete("/jobs/j_1").json()["state"] == "cancelled"
    running = admin.delete("/jobs/j_3").json()
    assert (running["state"], running["cancel_requested"]) == ("running", True)
    ended = admin.delete("/jobs/j_2")
    assert (ended.status_code, ended.json()["code"]) == (409, "job_ended")


def test_unknown_query_parameters_are_refused(admin: TestClient) -> None:
    created(admin)
    wrong = admin.get("/projects/p_1/items", params={"split": "pool", "stat": "done"})
    assert (wrong.status_code, wrong.json()["code"]) == (422, "unknown_query_parameter")
    assert wrong.json()["errors"][0]["field"] == "stat"
    assert "It takes: state, split, class" in wrong.json()["detail"]
    none = admin.post("/projects/p_1/next-batch", params={"size": 3}, json={"annotator": "ann"})
    assert "It takes none." in none.json()["detail"]
    assert admin.get("/healthz", params={"x": 1}).status_code == 422
    assert admin.get("/", params={"from": "a bookmark"}).status_code == 200


def test_every_route_takes_what_its_description_names(app: FastAPI, admin: TestClient) -> None:
    for method, path, operation in operations(app):
        names = [one["name"] for one in operation.get("parameters", ()) if one["in"] == "query"]
        takes = f"It takes: {', '.join(names)}." if names else "It takes none."
        answer = admin.request(method, re.sub(r"\{\w+\}", "x", path), params={"no_such": 1})
        assert answer.json()["code"] == "unknown_query_parameter", (method, path)
        assert takes in answer.json()["detail"], (method, path)


def test_no_request_waits_for_the_description(app: FastAPI, admin: TestClient) -> None:
    assert admin.get("/projects", params={"limit": 2}).status_code == 200
    assert app.openapi_schema is None


def test_head_is_get_without_the_body(admin: TestClient, anyone: TestClient) -> None:
    created(admin)
    for path in ("/projects/p_1", "/projects/p_1/metrics", "/projects/p_1/labels", "/healthz", "/"):
        got, head = admin.get(path), admin.head(path)
        assert (head.status_code, head.content) == (200, b""), path
        assert head.headers.get("etag") == got.headers.get("etag")
        assert head.headers.get("content-length") == got.headers.get("content-length")
    assert admin.head("/projects/p_9").status_code == 404
    assert anyone.head("/projects/p_1").status_code == 401


def test_head_of_an_export_reads_no_rows(
    admin: TestClient, engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    created(admin)
    with write_session(engine) as session:
        item = factories.make_item(session, project=session.get_one(Project, 1))
        factories.make_label(session, item=item)
    assert admin.get("/projects/p_1/labels").text.count("\n") == 1

    def read(*_: object) -> None:
        raise AssertionError("the export was begun")

    monkeypatch.setattr(exports, "pages", lambda *_: iter(read, None))
    head = admin.head("/projects/p_1/labels", headers={"Accept": "text/csv"})
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-type"].startswith("text/csv")
    assert "labels-p_1.csv" in head.headers["content-disposition"]


def test_jobs_of_an_unknown_project(admin: TestClient) -> None:
    assert admin.get("/jobs", params={"project": "p_1"}).status_code == 404
    created(admin)
    assert admin.get("/jobs", params={"project": "p_1"}).json()["items"] == []


def test_counts_follow_what_is_added(
    admin: TestClient, engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    created(admin)

    def counted() -> tuple[int, int]:
        metrics = admin.get("/projects/p_1/metrics").json()
        return metrics["items"]["available"], metrics["test_items"]

    def add(**values: Any) -> None:
        with write_session(engine) as session:
            factories.make_item(session, project=session.get_one(Project, 1), **values)

    assert counted() == (0, 0)
    add(id=5)
    add(id=6, split="test", class_name="coat")
    assert counted() == (1, 1)
    add(id=7)
    add(id=8, state="quarantined")
    add(id=9, split="test", class_name="coat", state="withdrawn")
    assert counted() == (2, 1)
    add(id=3)  # by a transaction that was open longer: found when all are counted anew
    assert counted() == (2, 1)
    monkeypatch.setattr(counts, "_ANEW_S", 0.0)
    assert counted() == (3, 1)

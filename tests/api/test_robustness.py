"""Whatever is sent: an answer that says what is wrong, never a 500."""

import itertools
import json
import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy.orm import Session

from service.errors import ShortlistError
from service.pool import items
from service.settings import Settings
from service.store.session import write_session
from service.store.tables import Project
from tests import factories
from tests.api.conftest import created

NASTY_VALUES: list[Any] = [
    None,
    True,
    0,
    -1,
    2**63,
    10**30,
    1.5,
    float("nan"),
    float("inf"),
    "",
    " ",
    "\0",
    "a\0b",
    "\ud800",
    "👕" * 500,
    "x" * 100_000,
    [],
    [[]],
    {},
    {"a": {"b": "\0"}},
    "'; DROP TABLE items; --",
    "../../etc/passwd",
]
NASTY_IDS = [
    "x",
    "i_",
    "i_zzzzzzzzzzzz",
    "i_zzzzzzzzzzzzz",
    "p_2",
    "%00",
    "i_%00",
    "..%2f..",
    "%F0%9F%91%95",
    "-1",
    "1e9",
]

BODIES: dict[str, dict[str, Any]] = {
    "/projects": {
        "name": "x",
        "classes": ["a", "b"],
        "strategy": {"name": "margin", "params": {}},
        "backbone": "small",
        "seed": 1,
        "budget": 1,
        "pretext_from": "p_1",
        "control_fraction": 0.1,
    },
    "/projects/p_1/sources": {"uri": "/x", "split": "pool", "label_column": "class"},
    "/projects/p_1/items": {
        "items": [{"key": "a", "uri": "/x", "split": "pool", "class": "a", "meta": {"a": 1}}]
    },
    "/projects/p_1/next-batch": {"annotator": "ann", "size": 1, "new": False},
    "/projects/p_1/labels": {
        "labels": [
            {
                "item": "i_1",
                "class": "coat",
                "skip": "unsure",
                "annotator": "ann",
                "batch": "b_1",
                "duration_ms": 1,
                "revision": 1,
            }
        ]
    },
    "/projects/p_1/queue": {"items": ["i_1"], "annotator": "ann"},
    "/projects/p_1/gold": {"items": [{"item": "i_1", "class": "coat"}]},
    "/projects/p_1/items/withdraw": {"items": ["i_1"]},
    "/projects/p_1/pretrain": {"a": 1},
    "/projects/p_1/webhooks": {"url": "http://127.0.0.1:9/", "events": ["job.failed"]},
    "/keys": {"name": "k", "role": "reader", "project": "p_1", "annotator": "ann"},
}


@pytest.fixture
def project(admin: TestClient, engine: sa.Engine) -> None:
    created(admin)
    with write_session(engine) as session:
        factories.make_item(session, project=session.get_one(Project, 1))


def with_each_value_spoiled(body: Any, value: Any) -> Iterator[Any]:
    """The body again and again, each time with one of its values, at any depth, replaced."""
    if isinstance(body, dict):
        for name in body:
            yield body | {name: value}
            for inner in with_each_value_spoiled(body[name], value):
                yield body | {name: inner}
    elif isinstance(body, list):
        for index in range(len(body)):
            for inner in with_each_value_spoiled(body[index], value):
                yield [*body[:index], inner, *body[index + 1 :]]


def assert_explained(answer: Any, what: Any) -> None:
    assert answer.status_code < 500, what
    if answer.status_code >= 400:
        assert answer.headers["Content-Type"] == "application/problem+json", what
        problem = answer.json()
        assert problem["status"] == answer.status_code
        assert problem["code"] != "internal"
        assert len(problem["detail"]) > 10


@pytest.mark.usefixtures("project")
def test_spoiled_bodies_are_explained(admin: TestClient) -> None:
    for path, value in itertools.product(BODIES, NASTY_VALUES):
        for body in with_each_value_spoiled(BODIES[path], value):
            content = json.dumps(body).encode()
            answer = admin.post(path, content=content, headers={"Content-Type": "application/json"})
            assert_explained(answer, (path, body))


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    "content",
    [b"", b"null", b"[]", b"{", b"\xff\xfe", b"[" * 100_000, b'{"size": ' + b"9" * 10_000 + b"}", b"\0"],
)
def test_what_is_no_json_is_explained(admin: TestClient, content: bytes) -> None:
    for path in BODIES:
        for kind in ("application/json", "text/plain", "application/x-www-form-urlencoded", ""):
            answer = admin.post(path, content=content, headers={"Content-Type": kind} if kind else {})
            assert_explained(answer, (path, kind))
            if path not in ("/projects/p_1/pretrain", "/projects/p_1/items"):
                assert answer.status_code in (400, 415, 422), (path, kind)


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_sentences_are_for_people(admin: TestClient) -> None:
    json_header = {"Content-Type": "application/json"}
    for path in ("/projects/p_1/next-batch", "/projects/p_1/items"):
        (error,) = admin.post(path, content=b'{"a": ', headers=json_header).json()["errors"]
        assert error["field"] == "body"
        assert error["message"].startswith("this is no JSON: ")
    one_class = admin.post("/projects", json={"name": "x", "classes": ["a"]}).json()
    assert one_class["detail"].startswith("`classes`: one class only leaves nothing to decide")


@pytest.mark.usefixtures("project")
def test_ids_that_are_none_are_not_found(admin: TestClient, app: FastAPI) -> None:
    for path, methods in app.openapi()["paths"].items():
        for name, nasty in itertools.product(re.findall(r"\{\w+\}", path), NASTY_IDS):
            url = re.sub(r"\{\w+\}", "p_1", path.replace(name, nasty))
            for method in methods:
                body = BODIES.get(re.sub(r"\{\w+\}", "p_1", path))
                answer = admin.request(method, url, json=body)
                assert_explained(answer, (method, url))
                assert answer.status_code in (404, 405, 422), (method, url)


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_unknown_routes_and_methods_are_problems_too(admin: TestClient) -> None:
    for method, path, status in (("GET", "/nothing", 404), ("PUT", "/projects/p_1", 405)):
        answer = admin.request(method, path)
        assert answer.status_code == status
        assert_explained(answer, path)


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_curl_without_a_content_type_is_told_what_to_do(admin: TestClient) -> None:
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    answer = admin.post("/projects", content=b'{"name": "x"}', headers=form)
    assert (answer.status_code, answer.json()["code"]) == (415, "not_json")
    assert "Content-Type: application/json" in answer.json()["detail"]


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_bodies_have_a_limit(admin: TestClient, settings: Settings) -> None:
    big = settings.max_body_bytes + 1

    def pieces() -> Iterator[bytes]:
        for _ in range(big // 2**20 + 1):
            yield b" " * 2**20

    json_type = {"Content-Type": "application/json"}
    for content in (b" " * big, pieces()):
        answer = admin.post("/projects", content=content, headers=json_type)
        assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")
        assert_explained(answer, "large")
        assert "SHORTLIST_MAX_BODY_BYTES" in answer.json()["detail"]


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    "error",
    [
        sa.exc.OperationalError("SELECT secret", {}, Exception("database is locked")),
        sa.exc.TimeoutError("QueuePool limit: secret"),  # it hangs, and who waits for a connection gets none
    ],
)
def test_a_database_that_fails_is_said_without_details(
    admin: TestClient, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def locked(*_: Any) -> None:
        raise error

    monkeypatch.setattr("service.projects.projects.find", locked)
    answer = admin.get("/projects/p_1")
    assert (answer.status_code, answer.json()["code"], answer.headers["Retry-After"]) == (
        503,
        "database_busy",
        "1",
    )
    assert "secret" not in answer.text


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_items_for_a_project_that_is_deleted_meanwhile(
    admin: TestClient, engine: sa.Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    created(admin)
    register = items.register

    def after_the_deletion(session: Session, project: Project, good: list[items.NewItem]) -> int:
        with write_session(engine) as other:
            other.delete(other.get_one(Project, project.id))
        return register(session, project, good)

    monkeypatch.setattr(items, "register", after_the_deletion)
    answer = admin.post("/projects/p_1/items", json={"items": [{"key": "a", "uri": str(tmp_path / "a.png")}]})
    assert (answer.status_code, answer.json()["code"]) == (409, "gone_meanwhile")


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_the_unexpected_is_a_500_without_details(
    app: FastAPI, admin: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise RuntimeError("secret")

    monkeypatch.setattr("service.projects.projects.find", broken)
    client = TestClient(app, raise_server_exceptions=False, headers=dict(admin.headers))
    client.portal = admin.portal  # one event loop for both
    answer = client.get("/projects/p_1")
    assert (answer.status_code, answer.json()["code"]) == (500, "internal")
    assert "secret" not in answer.text


def test_more_writers_than_threads_all_get_through(admin: TestClient, engine: sa.Engine) -> None:
    """A request that holds the database and waits for a thread, while others hold the threads and wait for the
    database, would stand still for good: at most `SESSIONS` hold it at a time."""
    created(admin)
    with write_session(engine) as session:
        project = session.get_one(Project, 1)
        for _ in range(64):
            factories.make_item(session, project=project)
    start = threading.Barrier(64)

    def label(number: int) -> int:
        start.wait()
        body = {
            "labels": [
                {
                    "item": f"i_{'0123456789abcdefghjkmnpqrstvwxyz'[number % 32]}",
                    "class": "coat",
                    "annotator": f"{number}",
                }
            ]
        }
        return admin.post("/labels", json=body).status_code

    with ThreadPoolExecutor(64) as pool:
        codes = list(pool.map(label, range(64)))
    assert set(codes) <= {200, 422}  # i_0 does not exist
    assert codes.count(422) == 2


def test_errors_have_stable_and_distinct_codes() -> None:
    classes = ShortlistError.__subclasses__()
    codes = [each.code for each in classes if each.__module__ == "service.errors"]
    assert len(codes) == len(set(codes))
    assert all(re.fullmatch(r"[a-z_]+", code) for code in codes)


@pytest.mark.parametrize("depth", [10, 940, 955, 960, 965, 980, 1_000, 5_000, 100_000])
def test_however_deeply_a_body_is_nested(admin: TestClient, depth: int) -> None:
    created(admin)
    body = '{"labels": ' + "[" * depth + "]" * depth + "}"
    answer = admin.post("/projects/p_1/labels", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code in (400, 422)
    assert answer.json()["code"]

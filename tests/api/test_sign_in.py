"""A browser signs in with a key once; a cookie stands for it."""

from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from fastapi import FastAPI
from fastapi.testclient import TestClient

from service.settings import Settings
from service.store.session import write_session
from service.store.tables import Key, Project, SignIn, utc_now
from tests.api.conftest import Callers, created

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)

PAGE = {"X-Shortlist": "page"}


def key_of(client: TestClient) -> str:
    return client.headers["Authorization"].removeprefix("Bearer ")


@pytest.fixture
def browser(app: FastAPI, anyone: TestClient) -> TestClient:
    """Without a key of its own; it keeps cookies."""
    client = TestClient(app)
    client.portal = anyone.portal
    return client


def sign_in(browser: TestClient, client: TestClient) -> Any:
    return browser.post("/session", json={"key": key_of(client)})


def test_a_key_once_then_a_cookie_that_no_script_reads(browser: TestClient, admin: TestClient) -> None:
    created(admin)
    assert browser.get("/projects").json()["code"] == "key_missing"
    answer = sign_in(browser, admin)
    assert (answer.status_code, answer.headers["Cache-Control"]) == (201, "no-store")
    assert answer.json() == {
        "key": "k_1",
        "name": "admin",
        "role": "admin",
        "project": None,
        "annotator": None,
    }
    cookie = answer.headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert "Secure" not in cookie
    assert key_of(admin) not in cookie
    assert len(browser.get("/projects").json()["items"]) == 1
    assert browser.get("/session").json() == answer.json()


@pytest.mark.parametrize("header", [{}, {"X-Forwarded-Proto": "https"}])
def test_behind_tls_the_cookie_is_secure(app: FastAPI, admin: TestClient, header: dict[str, str]) -> None:
    base = "http://testserver" if header else "https://testserver"
    client = TestClient(app, base_url=base)
    client.portal = admin.portal
    answer = client.post("/session", json={"key": key_of(admin)}, headers=header)
    assert "Secure" in answer.headers["Set-Cookie"]


def test_changes_take_a_header_that_other_sites_cannot_send(browser: TestClient, admin: TestClient) -> None:
    sign_in(browser, admin)
    body = {"name": "shirts", "classes": ["coat", "shirt"]}
    for method, path in (("POST", "/projects"), ("PATCH", "/projects/p_1"), ("DELETE", "/session")):
        refused = browser.request(method, path, json=body)
        assert (refused.status_code, refused.json()["code"]) == (403, "not_from_the_page")
    assert browser.post("/projects", json=body, headers={"Idempotency-Key": "a"}).status_code == 403
    assert browser.get("/projects").json()["items"] == []
    assert browser.post("/projects", json=body, headers=PAGE).status_code == 201


def test_no_other_site_can_sign_a_browser_in(browser: TestClient, admin: TestClient) -> None:
    """A form sends JSON as plain text, without asking us first."""
    body = f'{{"key": "{key_of(admin)}"}}'
    for kind in ("text/plain", "application/x-www-form-urlencoded"):
        answer = browser.post("/session", content=body, headers={"Content-Type": kind})
        assert answer.status_code == 415
        assert "Set-Cookie" not in answer.headers


def test_idempotency_keys_work_by_cookie(browser: TestClient, admin: TestClient) -> None:
    sign_in(browser, admin)
    headers = PAGE | {"Idempotency-Key": "once"}
    body = {"name": "shirts", "classes": ["coat", "shirt"]}
    first, again = (browser.post("/projects", json=body, headers=headers) for _ in range(2))
    assert (first.json()["id"], again.headers["Idempotency-Replayed"]) == (again.json()["id"], "true")
    assert len(browser.get("/projects").json()["items"]) == 1


def test_signing_out_ends_it_also_for_a_copy_of_the_cookie(browser: TestClient, admin: TestClient) -> None:
    sign_in(browser, admin)
    (copy,) = browser.cookies.jar
    out = browser.delete("/session", headers=PAGE)
    assert out.status_code == 204
    assert browser.get("/projects").json()["code"] == "key_missing"
    browser.cookies.set(copy.name, copy.value or "")
    assert browser.get("/projects").json()["code"] == "sign_in_ended"
    assert admin.get("/projects").status_code == 200


def test_a_revoked_key_takes_its_sign_ins_with_it(
    browser: TestClient, caller: Callers, admin: TestClient
) -> None:
    sign_in(browser, caller("reader"))
    (key,) = [each for each in admin.get("/keys").json()["items"] if each["role"] == "reader"]
    assert browser.get("/projects").status_code == 200
    admin.delete(f"/keys/{key['id']}")
    assert browser.get("/projects").json()["code"] == "sign_in_ended"


def test_a_sign_in_runs_out_and_is_removed(
    browser: TestClient, admin: TestClient, engine: sa.Engine, settings: Settings
) -> None:
    sign_in(browser, admin)
    with write_session(engine) as session:
        (found,) = session.scalars(sa.select(SignIn))
        left = found.expires_at - utc_now()
        assert timedelta(seconds=settings.sign_in_ttl_s - 60) < left
        found.expires_at = utc_now() - timedelta(seconds=1)
    assert browser.get("/projects").json()["code"] == "sign_in_ended"
    sign_in(browser, admin)
    with write_session(engine) as session:
        assert session.scalar(sa.select(sa.func.count()).select_from(SignIn)) == 1


def test_only_a_hash_is_stored(browser: TestClient, admin: TestClient, engine: sa.Engine) -> None:
    sign_in(browser, admin)
    (cookie,) = browser.cookies.jar
    with write_session(engine) as session:
        (found,) = session.scalars(sa.select(SignIn))
        assert found.hash != cookie.value
        assert session.get_one(Key, found.key_id).role == "admin"


@pytest.mark.parametrize("key", ["", "nonsense", "ключ", "x" * 501])
def test_wrong_keys_sign_nobody_in(browser: TestClient, key: str) -> None:
    answer = browser.post("/session", json={"key": key})
    assert answer.status_code in (401, 422)
    assert "Set-Cookie" not in answer.headers
    assert key == "" or key not in answer.text


def test_roles_projects_and_annotators_bind_as_with_the_key(
    browser: TestClient, caller: Callers, admin: TestClient, engine: sa.Engine
) -> None:
    created(admin), created(admin, name="other")
    with write_session(engine) as session:
        project = session.get_one(Project, 1)
    answer = sign_in(browser, caller("annotator", project, "ann")).json()
    assert (answer["role"], answer["project"], answer["annotator"]) == ("annotator", "p_1", "ann")
    assert [each["id"] for each in browser.get("/projects").json()["items"]] == ["p_1"]
    assert browser.get("/projects/p_1/metrics").json()["code"] == "role_refused"
    batch = browser.post("/projects/p_1/next-batch", json={}, headers=PAGE)
    assert batch.json()["reason"] == "pool_exhausted"
    other = browser.post("/projects/p_1/next-batch", json={"annotator": "bob"}, headers=PAGE)
    assert other.json()["code"] == "bound_to_annotator"


def test_a_key_in_the_header_comes_first(browser: TestClient, caller: Callers, admin: TestClient) -> None:
    sign_in(browser, admin)
    reader = f"Bearer {key_of(caller('reader'))}"
    assert browser.get("/session", headers={"Authorization": reader}).json()["role"] == "reader"
    # A proxy may ask for a password of its own.
    assert browser.get("/session", headers={"Authorization": "Basic YTpi"}).json()["role"] == "admin"


def test_the_page_loads_nothing_from_elsewhere(anyone: TestClient) -> None:
    for path in ("/", "/docs"):
        answer = anyone.get(path)
        policy = dict(part.split(" ", 1) for part in answer.headers["Content-Security-Policy"].split("; "))
        assert policy["default-src"] == "'none'"
        assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
        assert "://" not in answer.text
        for link in answer.text.split('"'):
            if link.startswith("/static/"):
                found = anyone.get(link)
                assert (found.status_code, found.headers["X-Content-Type-Options"]) == (200, "nosniff"), link

"""A running service in the test's process, and callers of each role."""

from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from fastapi import FastAPI
from fastapi.testclient import TestClient

from service.access import keys
from service.access.keys import Role
from service.settings import Settings
from service.store.session import write_session
from service.store.tables import Project
from tests.applications import make_app


@pytest.fixture
def app(settings: Settings) -> FastAPI:
    return make_app(settings)


@pytest.fixture
def anyone(app: FastAPI) -> Iterator[TestClient]:
    """A client without a key."""
    with TestClient(app) as client:
        yield client


class Callers:
    """Clients that send a key."""

    def __init__(self, anyone: TestClient, engine: sa.Engine, secret: bytes) -> None:
        self._anyone, self._engine, self._secret = anyone, engine, secret

    def __call__(
        self, role: Role, project: Project | None = None, annotator: str | None = None
    ) -> TestClient:
        with write_session(self._engine) as session:
            _, token = keys.create(
                session,
                self._secret,
                name=role,
                role=role,
                project_id=project.id if project else None,
                annotator=annotator,
            )
        return self.with_key(token)

    def with_key(self, token: str) -> TestClient:
        client = TestClient(self._anyone.app, headers={"Authorization": f"Bearer {token}"})
        client.portal = self._anyone.portal  # one event loop for all
        return client


@pytest.fixture
def caller(anyone: TestClient, engine: sa.Engine, settings: Settings) -> Callers:
    return Callers(anyone, engine, keys.server_secret(settings))


@pytest.fixture
def admin(caller: Callers) -> TestClient:
    return caller("admin")


def created(client: TestClient, **body: Any) -> dict[str, Any]:
    """A project made through the API."""
    answer = client.post("/projects", json={"name": "shirts", "classes": ["coat", "shirt"]} | body)
    assert answer.status_code == 201, answer.text
    project: dict[str, Any] = answer.json()
    return project

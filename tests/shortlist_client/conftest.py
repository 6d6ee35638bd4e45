"""A service, and clients of it."""

from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from service.access import keys
from service.settings import Settings
from service.store.session import write_session
from shortlist_client import Project, Shortlist
from tests.served import Served


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    """What the client does is the same on every database."""
    return sqlite_url


@pytest.fixture
def served(settings: Settings) -> Iterator[Served]:
    served = Served(settings)
    served.start()
    yield served
    served.stop()


@pytest.fixture
def key(engine: sa.Engine, settings: Settings) -> str:
    with write_session(engine) as session:
        _, token = keys.create(session, keys.server_secret(settings), name="admin", role="admin")
    return token


@pytest.fixture
def client(served: Served, key: str) -> Iterator[Shortlist]:
    with Shortlist(served.url, key, give_up_after_s=20) as client:
        yield client


@pytest.fixture
def project(client: Shortlist) -> Project:
    """With 30 texts: `000`, `001`, … ."""
    project = client.create_project("texts", ["good", "bad"], modality="text")
    added = project.add_items({"key": f"{number:03}", "text": f"text {number}"} for number in range(30))
    assert added.added == 30
    return project

"""A service on a port of its own, in a thread of the test, and clients of it."""

import socket
import threading
import time
from collections.abc import Iterator

import pytest
import sqlalchemy as sa
import uvicorn

from service.access import keys
from service.main import create_app
from service.settings import Settings
from service.store.session import write_session
from shortlist_client import Project, Shortlist


class Served:
    """It keeps its port when it is started again."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        config = uvicorn.Config(
            create_app(self._settings), port=self.port, log_level="error", timeout_graceful_shutdown=1
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run)
        self._thread.start()
        while not self._server.started:
            assert self._thread.is_alive()
            time.sleep(0.01)

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join()


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

"""Fixtures every test may use. `engine` runs a test once on SQLite and once on PostgreSQL."""

import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import sqlalchemy as sa

from service.settings import Settings
from service.store.artifacts import Artifacts
from service.store.session import make_engine
from tests.databases import PostgresDatabases, postgres_server, sqlite_template


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """SHORTLIST_… variables of whoever runs the tests must not change them, nor the weights that are installed."""
    for name in Settings.model_fields:
        monkeypatch.delenv(f"SHORTLIST_{name.upper()}", raising=False)
    monkeypatch.setenv("SHORTLIST_PRETRAINED", "off")


@pytest.fixture(scope="session")
def sqlite_file() -> Iterator[Path]:
    with sqlite_template() as path:
        yield path


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresDatabases]:
    with postgres_server(durable=False) as url:
        databases = PostgresDatabases(url)
        yield databases
        databases.close()


@pytest.fixture
def sqlite_url(tmp_path: Path, sqlite_file: Path) -> str:
    """A fresh migrated SQLite database."""
    path = tmp_path / "shortlist.db"
    shutil.copy(sqlite_file, path)
    return f"sqlite:///{path}"


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """A fresh migrated database; the test runs once on each kind."""
    with ExitStack() as stack:
        if request.param == "sqlite":
            yield request.getfixturevalue("sqlite_url")
        else:
            databases: PostgresDatabases = request.getfixturevalue("postgres")
            yield stack.enter_context(databases.fresh())


@pytest.fixture
def engine(database_url: str) -> Iterator[sa.Engine]:
    engine = make_engine(database_url)
    yield engine
    engine.dispose()


@pytest.fixture
def settings(tmp_path: Path, database_url: str) -> Settings:
    """Settings on `engine`'s database; everything else below the test's own folder."""
    return Settings(
        data_dir=tmp_path / "data",
        database_url=database_url,
        source_roots=(str(tmp_path),),
        device="cpu",
        threads=1,
        poll_s=0.02,
        lease_s=5.0,
    )


@pytest.fixture
def artifacts(settings: Settings) -> Artifacts:
    return Artifacts(settings.artifacts, settings.data_dir / "cache")


@pytest.fixture
def anyio_backend() -> str:
    """What uvicorn runs on; trio may be installed beside, as the browser's driver needs it."""
    return "asyncio"

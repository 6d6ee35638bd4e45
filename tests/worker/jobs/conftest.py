"""Fixtures for tests of jobs."""

import shutil
from types import SimpleNamespace

import pytest
import sqlalchemy as sa

from service.settings import Settings
from service.store.artifacts import Artifacts
from tests.worker.jobs.scored_projects import Bench


@pytest.fixture
def bench(engine: sa.Engine, settings: Settings, artifacts: Artifacts) -> Bench:
    return Bench(engine, settings, artifacts)


@pytest.fixture(autouse=True)
def roomy_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether decoded pixels go to the disk is not left to what else lies on this machine's."""
    usage = SimpleNamespace(total=10**12, free=10**11 // 2)  # a large disk, nearly full, has room enough
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)

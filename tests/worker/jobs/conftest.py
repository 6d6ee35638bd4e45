"""Fixtures for tests of jobs."""

import pytest
import sqlalchemy as sa

from service.settings import Settings
from service.store.artifacts import Artifacts
from tests.worker.jobs.scored_projects import Bench


@pytest.fixture
def bench(engine: sa.Engine, settings: Settings, artifacts: Artifacts) -> Bench:
    return Bench(engine, settings, artifacts)

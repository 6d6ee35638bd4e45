"""A session on each database, and a clock that tests turn."""

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from service.store.session import write_session

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


@pytest.fixture
def session(engine: sa.Engine) -> Iterator[Session]:
    with write_session(engine) as session:
        yield session

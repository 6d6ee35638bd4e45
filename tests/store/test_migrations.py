from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from service.errors import DatabaseNewer, NotMigrated
from service.store import migrate
from service.store.session import make_engine, write_session
from service.store.tables import Table
from tests import factories
from tests.databases import PostgresDatabases


@pytest.fixture(params=["sqlite", "postgresql"])
def empty(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[sa.Engine]:
    """An engine on a database without any table."""
    if request.param == "sqlite":
        engine = make_engine(f"sqlite:///{tmp_path / 'empty.db'}")
        yield engine
        engine.dispose()
        return
    databases: PostgresDatabases = request.getfixturevalue("postgres")
    with databases.fresh(migrated=False) as url:
        engine = make_engine(url)
        yield engine
        engine.dispose()


def tables(engine: sa.Engine) -> set[str]:
    with engine.connect() as connection:
        return set(sa.inspect(connection).get_table_names()) - {"alembic_version"}


def test_up_down_up(empty: sa.Engine) -> None:
    migrate.upgrade(empty)
    assert tables(empty) == set(Table.metadata.tables)
    migrate.downgrade(empty)
    assert tables(empty) == set()
    migrate.upgrade(empty)
    assert tables(empty) == set(Table.metadata.tables)
    with write_session(empty) as session:
        factories.make_item(session, project=factories.make_project(session))


def test_no_drift(empty: sa.Engine) -> None:
    migrate.upgrade(empty)
    migrate.drift(empty)


def test_check_wants_the_newest_revision(empty: sa.Engine) -> None:
    with pytest.raises(NotMigrated, match="shortlist migrate"):
        migrate.check(empty)
    migrate.upgrade(empty)
    migrate.check(empty)
    assert migrate.current(empty) == migrate.newest()


def test_a_database_of_a_newer_program_wants_that_program(engine: sa.Engine) -> None:
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    for asked in (migrate.check, migrate.upgrade):
        with pytest.raises(DatabaseNewer, match=r"9999.*Update"):
            asked(engine)


def test_upgrading_twice_changes_nothing(engine: sa.Engine) -> None:
    with write_session(engine) as session:
        factories.make_project(session, name="kept")
    migrate.upgrade(engine)
    with engine.connect() as connection:
        assert connection.scalar(sa.text("SELECT name FROM projects")) == "kept"


def test_foreign_keys_hold_after_a_migration(engine: sa.Engine) -> None:
    migrate.upgrade(engine)
    with pytest.raises(sa.exc.IntegrityError), write_session(engine) as session:
        session.execute(sa.text("INSERT INTO score_shards VALUES (99, 1, 2, 'a', 1)"))

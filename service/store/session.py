"""Engines and sessions. One request, or one job step, is one transaction.

SQLite: WAL, and ``BEGIN IMMEDIATE`` for everything that may write. With deferred transactions another writer
gets in between SELECT and UPDATE, or the upgrade of the lock fails with "database is locked". Readers say so
(`read_session`) and get a plain BEGIN, which never waits for a writer.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.orm import Session
from sqlalchemy.pool import ConnectionPoolEntry

from service.errors import DatabaseUnreachable

_REST_S = 5.0
# FULL: with WAL and NORMAL, the default of many, a power cut takes back what was committed and answered.
_PRAGMAS = ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=30000", "foreign_keys=ON")


def make_engine(url: str, **options: Any) -> sa.Engine:
    """An engine for SQLite or PostgreSQL; the folder of a SQLite file is made when missing."""
    parsed = sa.make_url(url)
    if parsed.drivername == "postgres" or parsed.drivername == "postgresql":
        parsed = parsed.set(drivername="postgresql+psycopg")
    is_uri = "uri" in parsed.query  # made by `Settings.database`, whose folder is there
    if parsed.get_backend_name() == "sqlite" and not is_uri and parsed.database not in (None, "", ":memory:"):
        Path(str(parsed.database)).parent.mkdir(parents=True, exist_ok=True)
    # As many connections as the service has threads: fewer makes the wait unfair.
    engine = sa.create_engine(
        parsed, **{"pool_size": 16, "max_overflow": 24, "pool_use_lifo": True} | options
    )
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _on_sqlite_connect)
        event.listen(engine, "begin", _on_sqlite_begin)
    else:
        _ping_what_rested(engine)
    return engine


def _ping_what_rested(engine: sa.Engine) -> None:
    """A connection that was not used for a while may be dead. The pool's own `pool_pre_ping` asks each time, which
    costs a busy service a round trip a transaction."""

    @event.listens_for(engine, "checkin")
    def note(_: Any, record: ConnectionPoolEntry) -> None:
        record.info["rests_since"] = time.monotonic()

    @event.listens_for(engine, "checkout")
    def ping(connection: DBAPIConnection, record: ConnectionPoolEntry, _: Any) -> None:
        rests_since = record.info.get("rests_since")
        if rests_since is None or time.monotonic() - rests_since < _REST_S:
            return
        try:
            engine.dialect.do_ping(connection)
        except engine.dialect.loaded_dbapi.Error as error:
            raise sa.exc.DisconnectionError from error  # the pool throws it away and makes a new one


def open_database(url: str) -> sa.Engine:
    """An engine that was tried. Raises `DatabaseUnreachable` with the reason."""
    try:
        engine = make_engine(url)
        with engine.execution_options(read_only=True).connect() as connection:
            connection.execute(sa.text("SELECT 1"))
    except sa.exc.DBAPIError as error:
        raise DatabaseUnreachable(reason=str(error.orig).strip()) from None
    except (sa.exc.ArgumentError, OSError, ModuleNotFoundError, ValueError) as error:
        raise DatabaseUnreachable(reason=error) from None
    return engine


def _on_sqlite_connect(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # we say BEGIN ourselves
    for pragma in _PRAGMAS:
        connection.execute(f"PRAGMA {pragma}")


def _on_sqlite_begin(connection: sa.Connection) -> None:
    read_only = connection.get_execution_options().get("read_only", False)
    connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")


@contextmanager
def write_session(engine: sa.Engine) -> Iterator[Session]:
    """One transaction: committed at the end, rolled back on any exception."""
    with Session(engine, expire_on_commit=False) as session, session.begin():
        yield session


@contextmanager
def single_read(engine: sa.Engine) -> Iterator[sa.Connection]:
    """For one SELECT. On PostgreSQL without BEGIN and ROLLBACK, which would be two more round trips."""
    on_postgresql = engine.dialect.name == "postgresql"
    with engine.connect() as connection:
        yield connection.execution_options(
            **({"isolation_level": "AUTOCOMMIT"} if on_postgresql else {"read_only": True})
        )


@contextmanager
def read_session(engine: sa.Engine) -> Iterator[Session]:
    """One read-only transaction."""
    with Session(engine.execution_options(read_only=True), expire_on_commit=False) as session:
        yield session

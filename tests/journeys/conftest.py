"""`site`: one running site for all journeys that do not stop, kill or configure it."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.journeys.site import Site


@pytest.fixture(scope="package")
def site(tmp_path_factory: pytest.TempPathFactory, sqlite_file: Path) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    database = shutil.copy(sqlite_file, folder / "shortlist.db")
    with Site(folder, f"sqlite:///{database}") as running:
        running.start_service()
        running.start_workers()
        yield running

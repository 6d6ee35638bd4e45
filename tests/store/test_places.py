"""Folders are called what they are called: nothing in a name means anything but itself."""

import os
import shutil
import sqlite3
from pathlib import Path

import pytest
import sqlalchemy as sa

from service.content.reader import ItemBytes, place_as_text
from service.content.sources import list_source
from service.errors import SourceNotAllowed, SourceUnreadable
from service.settings import Settings, read_settings
from service.store import migrate
from service.store.artifacts import Artifacts
from service.store.session import make_engine, read_session, write_session
from service.store.tables import Project
from tests.factories import make_project
from tests.pictures import encoded, picture, write_parquet, write_pictures

NAMES = [
    b"run?1",
    b"a#b",
    b"100%",
    b"50%41",
    b"two  words ",
    b"~",
    b"a::b",
    b"s3:",
    b"a&b=c;d",
    b"[x]*",
    b"x.csv#row=1",
    "ü".encode(),
    b"latin-\xfc\xff",
    b"a,b",
    b"quo\"te's",
    b"back\\slash",
]


@pytest.fixture(params=NAMES, ids=repr)
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / os.fsdecode(request.param)
    path.mkdir()
    return path


def test_everything_of_an_installation_lies_in_its_folder(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHORTLIST_DATA_DIR", str(folder / "data"))
    settings = read_settings()
    settings.data_dir.mkdir()
    engine = make_engine(settings.database)
    migrate.upgrade(engine)
    with write_session(engine) as session:
        make_project(session, name="kept")
    engine.dispose()
    with Artifacts(settings.artifacts, settings.data_dir / "cache").writing("a/b.npz") as file:
        file.write(b"kept")
    assert os.listdir(os.fsencode(tmp_path)) == [os.fsencode(folder.name)]
    assert sorted(os.listdir(folder / "data")) == ["artifacts", "shortlist.db"]
    with sqlite3.connect(os.fsencode(folder / "data" / "shortlist.db")) as connection:
        assert connection.execute("SELECT name FROM projects").fetchall() == [("kept",)]

    shutil.copytree(folder, tmp_path / "backup")  # so a copy of it is a backup
    shutil.rmtree(folder)
    copy = Settings(data_dir=tmp_path / "backup" / "data")
    engine = make_engine(copy.database)
    with read_session(engine) as session:
        assert session.scalars(sa.select(Project.name)).all() == ["kept"]
    engine.dispose()
    with Artifacts(copy.artifacts, copy.data_dir / "cache").open("a/b.npz") as file:
        assert file.read() == b"kept"


def test_sources_and_items_may_be_called_anything(folder: Path, tmp_path: Path) -> None:
    write_pictures(folder / "sub", 2)
    table = folder / "rows.parquet"  # Arrow itself writes to no name that is not Unicode
    write_parquet(tmp_path / "rows", {"image": [encoded(picture(5)), encoded(picture(6))]}).rename(table)
    item_bytes = ItemBytes(Settings(data_dir=tmp_path / "data", source_roots=(place_as_text(str(folder)),)))
    for place, count in ((folder, 2), (table, 2)):
        listing = list_source(place_as_text(str(place)), item_bytes, None, None)
        assert listing.tell() is not None
        found = list(listing)
        assert len(found) == count
        for candidate in found:
            uri = place_as_text(candidate.uri)
            uri.encode()  # as the database stores it
            assert item_bytes.read(uri)[:4] == b"\x89PNG"
            assert candidate.data is not None or item_bytes.stamp(uri) is not None


def test_the_home_folder_and_relative_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for given in ("~/data", "data"):
        settings = read_settings(data_dir=given)
        settings.data_dir.mkdir(exist_ok=True)
        engine = make_engine(settings.database)
        migrate.upgrade(engine)
        engine.dispose()
        with Artifacts(settings.artifacts, settings.data_dir / "cache").writing("x") as file:
            file.write(b"x")
        assert sorted(path.name for path in tmp_path.iterdir()) == ["data"]
        shutil.rmtree(tmp_path / "data")


def test_file_urls_are_decoded_and_paths_are_not(tmp_path: Path) -> None:
    """As `manifests/percent.jsonl` of the issue."""
    (tmp_path / "0.png").write_bytes(b"zero")
    (tmp_path / "%30.png").write_bytes(b"percent")
    item_bytes = ItemBytes(Settings(data_dir=tmp_path / "data", source_roots=(f"file://{tmp_path}",)))
    assert item_bytes.read(f"file://{tmp_path}/%30.png") == b"zero"
    assert item_bytes.read(f"FILE://localhost{tmp_path}/0.png") == b"zero"
    assert item_bytes.read(f"file://{tmp_path}/%2530.png") == b"percent"
    assert item_bytes.read(f"{tmp_path}/%30.png") == b"percent"
    for outside in (f"file://{tmp_path}/%2e%2e/x", f"file://elsewhere{tmp_path}/0.png", "file:///etc/passwd"):
        with pytest.raises(SourceNotAllowed):
            item_bytes.read(outside)
    with pytest.raises(SourceUnreadable):
        item_bytes.read(f"file://{tmp_path}/gone%20file.png")

"""A source becomes items, once; what is bad is quarantined and stops nothing."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import fsspec
import pytest
import sqlalchemy as sa
from fsspec.implementations.memory import MemoryFileSystem
from PIL import Image

from service.content import image
from service.content.image import open_rgb
from service.content.reader import ItemBytes, content_hash_of
from service.errors import ImportIncomplete, ShortlistError, SourceUnreachable
from service.settings import Settings
from service.store.artifacts import Artifacts
from service.store.class_sets import joined
from service.store.jobs import fail
from service.store.pipeline import queue_import
from service.store.session import read_session, write_session
from service.store.tables import Item, Job, Project, Source
from tests.factories import make_item, make_project, make_score_run, make_source
from tests.pictures import encoded, picture, write_parquet, write_pictures
from tests.worker.running import claim, hand_back, run
from worker.errors import JobFailed
from worker.jobs import import_source
from worker.jobs.context import JobContext

COUNTS = ("added", "known", "changed", "moved", "quarantined", "refused", "ignored")  # of each row, one

on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


class Importing:
    def __init__(self, engine: sa.Engine, settings: Settings, artifacts: Artifacts) -> None:
        self.engine, self.settings, self.artifacts = engine, settings, artifacts
        with write_session(engine) as session:
            self.project = make_project(session, classes=["cat", "dog"])

    def claim(
        self, uri: object, split: str = "pool", label_column: str | None = None, accept_missing: bool = False
    ) -> JobContext:
        with write_session(self.engine) as session:
            project = session.get_one(Project, self.project.id)
            source = make_source(
                session, project=project, uri=str(uri), split=split, label_column=label_column
            )
            queue_import(session, source, accept_missing=accept_missing)
        return claim(self.engine, self.settings, self.artifacts, kind="import_source")

    def __call__(
        self, uri: object, split: str = "pool", label_column: str | None = None, accept_missing: bool = False
    ) -> dict[str, Any]:
        run(self.claim(uri, split, label_column, accept_missing))
        with read_session(self.engine) as session:
            job = session.scalars(
                sa.select(Job).order_by(Job.id.desc()).where(Job.kind == "import_source")
            ).first()
            source = session.scalars(sa.select(Source).order_by(Source.id.desc())).first()
            assert job is not None
            assert source is not None
            assert job.result is not None
            for name in (*COUNTS, "missing"):
                assert job.result[name] == getattr(source, name)
            return job.result

    def items(self) -> Sequence[Item]:
        with read_session(self.engine) as session:
            return session.scalars(sa.select(Item).order_by(Item.key)).all()

    def keys(self) -> list[str]:
        return [item.key for item in self.items()]


@pytest.fixture
def importing(engine: sa.Engine, settings: Settings, artifacts: Artifacts) -> Importing:
    return Importing(engine, settings, artifacts)


def counts(result: dict[str, Any]) -> tuple[int, int, int]:
    return result["added"], result["known"], result["quarantined"]


def test_a_folder_with_subfolders(importing: Importing, tmp_path: Path) -> None:
    root = write_pictures(tmp_path / "pool", 2, width=14, height=9)
    write_pictures(root / "b" / "c", 1, first=7)
    (root / "b" / "UPPER.JPG").write_bytes(encoded(picture(9), "JPEG"))
    (root / "notes.txt").write_text("x")
    (root / ".hidden.png").write_bytes(encoded(picture(1)))

    result = importing(root)

    assert counts(result) == (4, 0, 0)
    assert result["ignored"] == 2
    assert importing.keys() == ["00000.png", "00001.png", "b/UPPER.JPG", "b/c/00007.png"]
    first = importing.items()[0]
    assert (first.state, first.split, first.width, first.height) == ("available", "pool", 14, 9)
    assert first.uri == str(root / "00000.png")
    assert first.content_hash is not None
    assert len(first.content_hash) == 32
    assert {item.class_name for item in importing.items()} == {None}


def test_bad_files_are_quarantined_with_the_reason(importing: Importing, tmp_path: Path) -> None:
    root = write_pictures(tmp_path / "pool", 2)
    (root / "cut.png").write_bytes(encoded(picture(1, 50, 50))[:200])
    (root / "empty.jpg").touch()
    (root / "huge.png").write_bytes(encoded(picture(2, 80, 80)))
    (root / "out.png").symlink_to(Path(__file__))
    importing.settings = importing.settings.model_copy(update={"max_image_pixels": 5_000})

    assert counts(importing(root)) == (2, 0, 4)

    reasons = {item.key: item.quarantine_reason for item in importing.items() if item.state == "quarantined"}
    assert set(reasons) == {"cut.png", "empty.jpg", "huge.png", "out.png"}
    assert "truncated" in str(reasons["cut.png"])
    assert "empty" in str(reasons["empty.jpg"])
    assert "80 x 80" in str(reasons["huge.png"])
    assert "SHORTLIST_SOURCE_ROOTS" in str(reasons["out.png"])


@on_sqlite
def test_reasons_that_differ_by_a_name_are_one(
    importing: Importing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images: list[Any] = [{"bytes": None, "path": f"{number}.png"} for number in range(7)]
    images += [{"bytes": b"<html>", "path": "page.png"}, {"bytes": b"<html> ", "path": "page-2.png"}]
    place = write_parquet(tmp_path / "pool.parquet", {"image": images})
    only_path, page = importing(place)["quarantine_reasons"]
    assert only_path["items"] == 7
    assert only_path["reason"].startswith("the row has no bytes, only the path '0.png'")
    assert page == {"reason": page["reason"], "items": 2}
    monkeypatch.setattr(import_source, "_KINDS_OF_REASONS", 1)
    assert importing(place)["quarantine_reasons"][1] == {"reason": import_source._OTHER_REASONS, "items": 2}


def test_again_adds_what_is_new_and_decodes_nothing_else(
    importing: Importing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_pictures(tmp_path / "pool", 3)
    assert counts(importing(root)) == (3, 0, 0)
    write_pictures(root, 1, first=50)
    decoded = []

    def counting(data: bytes, max_pixels: int) -> Image.Image:
        decoded.append(data)
        return open_rgb(data, max_pixels)

    monkeypatch.setattr(image, "open_rgb", counting)

    assert counts(importing(root)) == (1, 3, 0)
    assert counts(importing(root)) == (0, 4, 0)
    assert len(decoded) == 1
    assert len(importing.items()) == 4


def test_a_repaired_file_comes_out_of_quarantine(importing: Importing, tmp_path: Path) -> None:
    root = write_pictures(tmp_path / "pool", 1)
    (root / "bad.png").write_bytes(b"x")
    assert counts(importing(root)) == (1, 0, 1)
    assert counts(importing(root)) == (0, 2, 0)
    (root / "bad.png").write_bytes(encoded(picture(1)))

    assert counts(importing(root)) == (1, 1, 0)

    assert {(item.state, item.quarantine_reason) for item in importing.items()} == {("available", None)}


def test_an_interrupted_import_counts_as_if_it_never_was(importing: Importing, tmp_path: Path) -> None:
    root = write_pictures(tmp_path / "pool", 5)
    (root / "bad.png").write_bytes(b"x")
    context = importing.claim(root)
    import_source.run(context)  # all is stored, and the transaction that ends the job was the last
    with write_session(importing.engine) as session:
        session.execute(sa.update(Job).values(state="running", lease_until=1e12))
    hand_back(context)

    run(claim(importing.engine, importing.settings, importing.artifacts, kind="import_source"))

    with read_session(importing.engine) as session:
        source = session.scalars(sa.select(Source)).one()
    assert (source.added, source.known, source.quarantined) == (5, 0, 1)


@on_sqlite
def test_equal_names_in_another_folder_are_refused_not_mixed_up(importing: Importing, tmp_path: Path) -> None:
    importing(write_pictures(tmp_path / "one", 2))
    two = write_pictures(tmp_path / "two", 2)
    (two / "00000.png").write_bytes(encoded(picture(77)))

    result = importing(two)

    assert counts(result) == (0, 1, 0)  # 00001.png is the same file, moved
    assert result["refused"] == 1
    assert "key of another item" in result["refusals"][0]
    assert {item.uri for item in importing.items()} == {
        str(tmp_path / "one/00000.png"),
        str(two / "00001.png"),
    }


@on_sqlite
def test_the_random_order_is_reproducible(importing: Importing, tmp_path: Path) -> None:
    root = write_pictures(tmp_path / "pool", 8)
    importing(root)
    with write_session(importing.engine) as session:
        importing.project = make_project(session)
    importing(root)

    places = [item.shuffle for item in importing.items()]
    assert places[::2] == places[1::2]
    assert len(set(places)) == 8
    assert all(0 <= place < 2**31 for place in places)


@on_sqlite
@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl"])
def test_a_manifest(ending: str, importing: Importing, tmp_path: Path) -> None:
    write_pictures(tmp_path / "images", 3)
    rows = [
        {"path": "images/00000.png", "key": "zero", "kind": "cat"},
        {"path": str(tmp_path / "images/00001.png"), "key": "", "kind": "dog"},
        {"path": "images/gone.png", "key": "gone", "kind": "dog"},
        {"path": "", "key": "nowhere", "kind": "dog"},
    ]
    manifest = tmp_path / f"manifest.{ending}"
    if ending == "jsonl":
        manifest.write_text("\n".join([*map(json.dumps, rows), "", "not json", "[1]"]))
    else:
        mark = "," if ending == "csv" else "\t"
        lines = [mark.join(rows[0]), *(mark.join(row.values()) for row in rows)]
        manifest.write_text("\ufeff" + "\r\n".join(lines))

    result = importing(manifest, label_column="kind")

    assert counts(result) == (2, 0, 1)
    assert importing.keys() == ["gone", "images/00001.png", "zero"]
    assert result["refused"] == (3 if ending == "jsonl" else 1)
    assert {item.class_name for item in importing.items()} == {None}


@on_sqlite
def test_parquet(importing: Importing, tmp_path: Path) -> None:
    data = [encoded(picture(number)) for number in range(4)]
    keyed = write_parquet(
        tmp_path / "keyed.parquet", {"key": ["a", "b", None, "d"], "image": [*data[:3], b"x"]}
    )
    structs = write_parquet(
        tmp_path / "plain.parquet", {"image": [{"bytes": one, "path": ""} for one in data]}
    )

    assert counts(importing(keyed)) == (3, 0, 1)
    assert counts(importing(structs)) == (3, 1, 0)  # the one without a key is the same there
    assert counts(importing(structs)) == (0, 4, 0)

    hashes = [content_hash_of(one) for one in data]
    assert importing.keys() == sorted(["a", "b", "d", *hashes])
    assert {item.key: item.uri for item in importing.items()}["a"] == f"{keyed}#row=0"


@on_sqlite
def test_a_row_that_is_too_large_is_quarantined(importing: Importing, tmp_path: Path) -> None:
    importing.settings = importing.settings.model_copy(update={"max_item_bytes": 1_000})
    images = [encoded(picture(1)), encoded(picture(2, 50, 50))]
    result = importing(write_parquet(tmp_path / "pool.parquet", {"image": images}))
    assert counts(result) == (1, 0, 1)
    assert "SHORTLIST_MAX_ITEM_BYTES" in result["quarantine_reasons"][0]["reason"]


@on_sqlite
def test_a_bucket(importing: Importing, tmp_path: Path) -> None:
    with fsspec.open("memory://import-bucket/a/0.png", "wb") as file:
        file.write(encoded(picture(0)))
    with fsspec.open("memory://import-bucket/notes.txt", "wb") as file:
        file.write(b"x")
    importing.settings = importing.settings.model_copy(update={"source_roots": ("memory://import-bucket",)})

    assert counts(importing("memory://import-bucket")) == (1, 0, 0)
    assert importing.keys() == ["a/0.png"]
    assert importing.items()[0].uri == "memory://import-bucket/a/0.png"


@on_sqlite
def test_a_test_split_by_subfolder(importing: Importing, tmp_path: Path) -> None:
    write_pictures(tmp_path / "test/cat", 2)
    write_pictures(tmp_path / "test/dog", 1)
    write_pictures(tmp_path / "test/cow", 1)

    result = importing(tmp_path / "test", split="test")

    assert counts(result) == (3, 0, 0)
    assert result["refused"] == 1
    assert "'cow' is none of the project's (cat, dog)" in result["refusals"][0]
    assert [item.class_name for item in importing.items()] == ["cat", "cat", "dog"]
    assert {item.split for item in importing.items()} == {"test"}


@on_sqlite
def test_a_test_split_by_column(importing: Importing, tmp_path: Path) -> None:
    data = [encoded(picture(number)) for number in range(2)]
    path = write_parquet(tmp_path / "test.parquet", {"image": data, "kind": ["cat", "dog"]})

    assert counts(importing(path, "test", "kind")) == (2, 0, 0)
    assert {item.key: item.class_name for item in importing.items()} == {
        f"test/{content_hash_of(data[0])}": "cat",
        f"test/{content_hash_of(data[1])}": "dog",
    }


@on_sqlite
@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_a_test_split_of_several_classes_by_column(importing: Importing, tmp_path: Path, kind: str) -> None:
    with write_session(importing.engine) as session:
        session.get_one(Project, importing.project.id).label_kind = "multi"
    told: list[list[str] | None] = [["dog", "cat"], [], ["cat"], ["cow"], None]
    if kind == "parquet":
        data = [encoded(picture(number)) for number in range(5)]
        path = write_parquet(tmp_path / "test.parquet", {"image": data, "key": list("abcde"), "kinds": told})
    else:
        write_pictures(tmp_path, 5)
        path = tmp_path / "test.csv"
        cells = ["dog; cat", "[]", "cat", "cat|cow", ""]
        rows = [
            f"{key},{number:05}.png,{cell}"
            for number, (key, cell) in enumerate(zip("abcde", cells, strict=True))
        ]
        path.write_text("\n".join(["key,path,kinds", *rows]))

    result = importing(path, "test", "kinds")

    assert {item.key: item.class_name for item in importing.items()} == {
        "a": joined(["cat", "dog"]),
        "b": joined([]),
        "c": joined(["cat"]),
    }
    assert result["refused"] == 2
    assert "needs its classes, by `label_column`" in result["refusals"][0]
    assert "cow' is not of the project's (cat, dog)" in result["refusals"][0]


@on_sqlite
def test_folders_say_nothing_of_several_classes(importing: Importing, tmp_path: Path) -> None:
    with write_session(importing.engine) as session:
        session.get_one(Project, importing.project.id).label_kind = "multi"

    with pytest.raises(JobFailed, match="a test item needs its classes, by `label_column`"):
        importing(write_pictures(tmp_path / "test/cat", 2).parent, "test", "kind")


@on_sqlite
def test_pool_and_test_folders_may_use_the_same_names(importing: Importing, tmp_path: Path) -> None:
    importing(write_pictures(tmp_path / "pool/cat", 2).parent)

    assert counts(importing(write_pictures(tmp_path / "test/cat", 2, first=0).parent, "test")) == (2, 0, 0)


@on_sqlite
@pytest.mark.parametrize(
    ("uri", "split", "sentence"),
    [
        ("{root}/gone", "pool", "no such file or folder"),
        ("/etc", "pool", "SHORTLIST_SOURCE_ROOTS"),
        ("{root}/empty", "pool", "There are no images"),
        ("{root}/tables", "pool", "by their own path"),
        ("{root}/one.png", "pool", "a source is a folder"),
        ("{root}/no.parquet", "pool", "cannot be read"),
        ("{root}/text.parquet", "pool", "no column of images"),
        ("{root}/latin.csv", "pool", "cannot be read"),
        ("{root}/images", "test", "needs its class"),
    ],
)
def test_what_cannot_be_imported_says_so(
    uri: str, split: str, sentence: str, importing: Importing, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    write_pictures(tmp_path / "images", 2)
    (tmp_path / "tables").mkdir()
    (tmp_path / "one.png").write_bytes(encoded(picture(0)))
    (tmp_path / "no.parquet").write_bytes(b"x")
    write_parquet(tmp_path / "text.parquet", {"key": ["a"]})
    write_parquet(tmp_path / "tables/text.parquet", {"key": ["a"]})
    (tmp_path / "latin.csv").write_bytes("path\nä.png".encode("latin-1"))

    with pytest.raises((JobFailed, ShortlistError), match=sentence) as caught:
        run(importing.claim(uri.format(root=tmp_path), split))
    assert not isinstance(caught.value, ShortlistError) or caught.value.status < 500  # not tried again


@on_sqlite
def test_names_of_another_encoding_are_items(importing: Importing, tmp_path: Path) -> None:
    root = write_pictures(tmp_path / "pool", 1)
    os.mkdir(os.fsencode(root) + b"/caf\xe9")
    with open(os.fsencode(root) + b"/caf\xe9/\xff.png", "wb") as file:
        file.write(encoded(picture(1)))

    assert counts(importing(root)) == (2, 0, 0)
    with read_session(importing.engine) as session:
        item = session.scalars(sa.select(Item).order_by(Item.key.desc())).first()
    assert item is not None
    assert item.key == r"caf\xe9/\xff.png"
    assert ItemBytes(Settings(source_roots=(str(root),))).read(item.uri) == encoded(picture(1))
    assert counts(importing(root)) == (0, 2, 0)


def test_what_is_added_to_a_served_pool_is_scored(importing: Importing, tmp_path: Path) -> None:
    with write_session(importing.engine) as session:
        project = session.get_one(Project, importing.project.id)
        project.score_run_id = make_score_run(session, project=project).id
        make_item(session, project=project, key="00000.png", uri=str(tmp_path / "pool/00000.png"))
    root = write_pictures(tmp_path / "pool", 1)

    importing(root)
    assert jobs_of(importing, "score_pool") == 0
    importing(write_pictures(root, 2))
    assert jobs_of(importing, "score_pool") == 1


@pytest.fixture
def out_of_reach(monkeypatch: pytest.MonkeyPatch) -> tuple[set[str], list[str]]:
    """Names of files that cannot be fetched, and those that were asked for."""
    names: set[str] = set()
    asked: list[str] = []
    read_bytes = Path.read_bytes

    def read(path: Path) -> bytes:
        asked.append(path.name)
        if path.name in names:
            raise TimeoutError(110, "Connection timed out")
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", read)
    return names, asked


def test_what_is_out_of_reach_is_left_out_and_fails_the_import(
    importing: Importing, tmp_path: Path, out_of_reach: tuple[set[str], list[str]]
) -> None:
    with write_session(importing.engine) as session:
        project = session.get_one(Project, importing.project.id)
        project.score_run_id = make_score_run(session, project=project).id
    root = write_pictures(tmp_path / "pool", 4)
    (root / "bad.png").write_bytes(b"x")
    names, _ = out_of_reach
    names |= {"00001.png", "00003.png"}
    context = importing.claim(root)

    with pytest.raises(ImportIncomplete, match=r"0000[13]\.png.*timed out.*import it again") as raised:
        run(context)

    assert raised.value.status >= 500  # so that the job is tried again
    states = {item.key: item.state for item in importing.items()}
    assert states == {"00000.png": "available", "00002.png": "available", "bad.png": "quarantined"}
    assert jobs_of(importing, "score_pool") == 1  # what was added waits for nothing

    names.clear()
    hand_back(context)
    with write_session(importing.engine) as session:
        session.execute(sa.delete(Job).where(Job.kind == "score_pool"))
    run(claim(importing.engine, importing.settings, importing.artifacts, kind="import_source"))
    with read_session(importing.engine) as session:
        source = session.scalars(sa.select(Source)).one()
    assert (source.added, source.known, source.quarantined) == (4, 0, 1)


@on_sqlite
def test_an_import_stops_once_its_source_is_away_and_goes_on_when_it_is_back(
    importing: Importing,
    tmp_path: Path,
    out_of_reach: tuple[set[str], list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(import_source, "_CHUNK", 4)
    monkeypatch.setattr(import_source, "_AWAY", 6)
    root = write_pictures(tmp_path / "pool", 30)
    names, asked = out_of_reach
    names |= {f"{number:05}.png" for number in range(5, 30)}

    with pytest.raises(ImportIncomplete):
        importing(root)
    assert len(importing.items()) == 5
    assert len(asked) == 5 + 6
    with read_session(importing.engine) as session:
        assert session.scalars(sa.select(Source)).one().added == 5

    names.clear()
    with write_session(importing.engine) as session:
        session.execute(sa.delete(Job))
    assert counts(importing(root)) == (25, 5, 0)
    assert {item.state for item in importing.items()} == {"available"}


@on_sqlite
def test_an_import_that_gets_on_is_not_given_up(
    importing: Importing, tmp_path: Path, out_of_reach: tuple[set[str], list[str]]
) -> None:
    root = write_pictures(tmp_path / "pool", 5)
    names, _ = out_of_reach
    names |= {f"{number:05}.png" for number in range(5)}
    context = importing.claim(root)
    for number in range(5):
        with pytest.raises(ImportIncomplete):
            run(context)
        fail(importing.engine, context.job, "out of reach")
        with write_session(importing.engine) as session:
            session.execute(sa.update(Job).values(run_at=0.0))
        names.remove(f"{number:05}.png")
        context = claim(importing.engine, importing.settings, importing.artifacts, kind="import_source")
    run(context)
    assert len(importing.items()) == 5


@on_sqlite
def test_quarantined_items_and_moved_ones_stay_as_they_are_while_they_are_out_of_reach(
    importing: Importing, tmp_path: Path, out_of_reach: tuple[set[str], list[str]]
) -> None:
    root = write_pictures(tmp_path / "one", 1)
    (root / "bad.png").write_bytes(b"x")
    importing(root)
    before = [(item.key, item.state, item.uri) for item in importing.items()]
    elsewhere = root.rename(tmp_path / "two")
    names, _ = out_of_reach
    names |= {"00000.png", "bad.png"}

    with pytest.raises(ImportIncomplete):
        importing(elsewhere)

    assert [(item.key, item.state, item.uri) for item in importing.items()] == before


@on_sqlite
def test_a_bucket_that_goes_away_while_it_is_listed(
    importing: Importing, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(2):
        with fsspec.open(f"memory://import-lost/{number}/0.png", "wb") as file:
            file.write(encoded(picture(number)))
    importing.settings = importing.settings.model_copy(update={"source_roots": ("memory://import-lost",)})
    monkeypatch.setattr(import_source, "_CHUNK", 1)
    ls = MemoryFileSystem.ls

    def ls_and_go(self: MemoryFileSystem, path: str, detail: bool = True, **options: Any) -> Any:
        if path.endswith("/1"):
            raise LookupError("Could not connect to the endpoint URL")  # no OSError, as botocore's
        return ls(self, path, detail, **options)

    monkeypatch.setattr(MemoryFileSystem, "ls", ls_and_go)
    with pytest.raises(SourceUnreachable, match=r"import-lost.*[Cc]ould not connect.*mount, network"):
        importing("memory://import-lost")
    assert importing.keys() == ["0/0.png"]


@on_sqlite
@pytest.mark.parametrize("name", ["", "/pool.parquet"])
def test_a_bucket_that_is_away_is_not_said_to_be_empty(
    name: str, importing: Importing, monkeypatch: pytest.MonkeyPatch
) -> None:
    def info(*_: Any, **__: Any) -> Any:
        raise TimeoutError(110, "Connection timed out")

    monkeypatch.setattr(MemoryFileSystem, "info", info)
    importing.settings = importing.settings.model_copy(update={"source_roots": ("memory://import-away",)})
    with pytest.raises(SourceUnreachable, match="timed out"):
        importing(f"memory://import-away{name}")


def jobs_of(importing: Importing, kind: str) -> int:
    with read_session(importing.engine) as session:
        return session.scalar(sa.select(sa.func.count()).where(Job.kind == kind)) or 0

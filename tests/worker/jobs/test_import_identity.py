"""Importing again, after what happens to files and tables: an item is its bytes, and every row is counted once."""

import os
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from fsspec.implementations.memory import MemoryFileSystem

from service.content.reader import ItemBytes, content_hash_of
from service.errors import ImportIncomplete, SourceUnreadable
from service.settings import Settings
from service.store.artifacts import Artifacts
from service.store.session import read_session, write_session
from service.store.tables import Item, Job, Label, Project, Source
from tests.factories import make_batch, make_label, make_queued_item, make_reservation, make_score_run
from tests.pictures import encoded, picture, write_parquet, write_pictures
from tests.worker.jobs.test_import_source import COUNTS, Importing, jobs_of, on_sqlite
from tests.worker.running import claim, hand_back, run
from worker.errors import JobFailed
from worker.jobs import import_source
from worker.jobs.import_source import looks


@pytest.fixture
def importing(engine: sa.Engine, settings: Settings, artifacts: Artifacts) -> Importing:
    return Importing(engine, settings, artifacts)


def bytes_of(number: int) -> bytes:
    return encoded(picture(number))


def told(result: dict[str, Any]) -> dict[str, int]:
    """The counts that are not 0."""
    return {name: result[name] for name in (*COUNTS, "missing") if result[name]}


def label_all(importing: Importing) -> dict[str, str]:
    """Each item gets a class that is made of its bytes; answers it by content hash."""
    given = {}
    with write_session(importing.engine) as session:
        mine = sa.select(Item).where(Item.project_id == importing.project.id, Item.state == "available")
        for item in session.scalars(mine):
            given[str(item.content_hash)] = ("cat", "dog")[int(str(item.content_hash), 16) % 2]
            label = make_label(session, item=item, class_name=given[str(item.content_hash)])
            session.get_one(Project, item.project_id).labels_used += 1
            assert label.current
    return given


def by_key(importing: Importing) -> dict[str, Item]:
    return {item.key: item for item in importing.items()}


def check_labels_are_under_their_bytes(importing: Importing, given: dict[str, str]) -> None:
    """Whatever has a class has the bytes that the class was given for, at the place where it is said to be."""
    item_bytes = ItemBytes(importing.settings)
    with read_session(importing.engine) as session:
        for item, label in session.execute(
            sa.select(Item, Label)
            .join(Label, Label.item_id == Item.id)
            .where(Item.project_id == importing.project.id)
        ):
            assert given[str(item.content_hash)] == label.class_name
            if item.state == "done":
                assert content_hash_of(item_bytes.read(item.uri)) == item.content_hash
            else:
                with pytest.raises(SourceUnreadable):
                    item_bytes.read(item.uri, item.content_hash)


RED = [encoded(picture(0)), *(bytes_of(number) for number in range(1, 5))]
BLUE = [bytes_of(number) for number in range(5, 10)]


def test_rows_that_were_sorted_anew_keep_their_labels(importing: Importing, tmp_path: Path) -> None:
    """As `rows-before.parquet` and `rows-after.parquet` of the issue."""
    table = write_parquet(tmp_path / "rows.parquet", {"image": RED + BLUE})
    assert told(importing(table)) == {"added": 10}
    given = label_all(importing)
    item_bytes = ItemBytes(importing.settings)  # as the service's, which goes on reading the file
    before = {item.id: item_bytes.read(item.uri) for item in importing.items()}

    new = [bytes_of(20), bytes_of(21)]
    write_parquet(table, {"image": [*new, *reversed(RED + BLUE)]})
    assert told(importing(table)) == {"added": 2, "known": 10}

    check_labels_are_under_their_bytes(importing, given)
    for item in importing.items():
        data = item_bytes.read(item.uri, item.content_hash)  # of new items, too: the file is read anew
        assert data == before.get(item.id, data)
        assert item.id in before or data in new


@on_sqlite
def test_a_table_of_before_keys_came_from_content(importing: Importing, tmp_path: Path) -> None:
    """Items of an older version have the row's number in their key: they get the new key, and keep id and labels."""
    table = write_parquet(tmp_path / "rows.parquet", {"image": [*RED, RED[0]]})
    importing(table)
    given = label_all(importing)
    with write_session(importing.engine) as session:
        for item in session.scalars(sa.select(Item)):
            item.key, item.stamp, item.came_by = f"rows.parquet#{item.uri.rpartition('=')[2]}", None, None
    ids = {item.id for item in importing.items()}
    write_parquet(table, {"image": [bytes_of(30), *RED, RED[0]]})

    assert told(importing(table)) == {"added": 1, "moved": 6}
    assert {item.id for item in importing.items()} > ids
    check_labels_are_under_their_bytes(importing, given)
    assert told(importing(table)) == {"known": 7}


@on_sqlite
def test_equal_rows_without_keys_are_items_of_their_own(importing: Importing, tmp_path: Path) -> None:
    table = write_parquet(tmp_path / "rows.parquet", {"image": [RED[0], RED[1], RED[0], RED[0]]})
    assert told(importing(table)) == {"added": 4}
    assert told(importing(table)) == {"known": 4}
    assert {item.key for item in importing.items()} == {
        *(content_hash_of(one) for one in RED[:2]),
        *(f"{content_hash_of(RED[0])}-{n}" for n in (2, 3)),
    }


@on_sqlite
@pytest.mark.parametrize(
    "paths", [["a.png", "b.png", "c.png"], ["x.png", "x.png", "y.png"], ["a", None, "b"]]
)
def test_the_path_of_a_hugging_face_image_is_its_key_where_all_differ(
    paths: list[str | None], importing: Importing, tmp_path: Path
) -> None:
    images = [{"bytes": data, "path": path} for data, path in zip(RED, paths, strict=False)]
    assert told(importing(write_parquet(tmp_path / "a.parquet", {"image": images}))) == {"added": 3}
    by_path = None not in paths and len(set(paths)) == 3
    expected = paths if by_path else [content_hash_of(data) for data in RED[:3]]
    assert set(importing.keys()) == set(expected)


@pytest.mark.parametrize("apart", [1, 300])
def test_every_row_is_counted_however_far_apart_keys_repeat(
    importing: Importing, tmp_path: Path, apart: int
) -> None:
    """As `repeated-keys.parquet` of the issue."""
    keys = [f"patient-{row % apart if apart > 1 else row // 2:03}" for row in range(600)]
    table = write_parquet(
        tmp_path / "a.parquet", {"image": [bytes_of(n) for n in range(600)], "key": keys}, row_group_size=100
    )
    result = importing(table)
    assert told(result) == {"added": 300, "refused": 300}
    assert "appears twice" in result["refusals"][0]
    assert told(importing(table)) == {"known": 300, "refused": 300}


def test_a_changed_file_is_another_item(importing: Importing, tmp_path: Path) -> None:
    root = write_pictures(tmp_path / "pool", 4)
    importing(root)
    given = label_all(importing)
    old = by_key(importing)["00001.png"]
    with write_session(importing.engine) as session:
        make_queued_item(session, item=session.get_one(Item, old.id))
        project = session.get_one(Project, importing.project.id)
        project.score_run_id = make_score_run(session, project=project).id
        project.head_id = 1
    (root / "00001.png").write_bytes(bytes_of(50))

    assert told(importing(root)) == {"known": 3, "changed": 1}

    items = by_key(importing)
    new = items["00001.png"]
    assert (new.state, new.class_name, new.replaces_id) == ("available", None, old.id)
    assert new.content_hash != old.content_hash
    aside = next(item for item in items.values() if item.id == old.id)
    assert (aside.state, aside.class_name, aside.content_hash) == (
        "changed",
        old.class_name,
        old.content_hash,
    )
    check_labels_are_under_their_bytes(importing, given)
    assert (
        jobs_of(importing, "score_pool")
        == jobs_of(importing, "train_head")
        == jobs_of(importing, "rank")
        == 1
    )
    assert told(importing(root)) == {"known": 4}

    (root / "00001.png").write_bytes(bytes_of(1))  # as it was
    assert told(importing(root)) == {"known": 3, "moved": 1}
    back = by_key(importing)["00001.png"]
    assert (back.id, back.state, back.class_name) == (old.id, "done", old.class_name)
    assert {item.state for item in importing.items()} == {"done", "changed"}
    check_labels_are_under_their_bytes(importing, given)


@on_sqlite
def test_a_file_is_read_again_only_when_its_size_or_times_changed(
    importing: Importing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_pictures(tmp_path / "pool", 3)
    importing(root)
    assert {item.stamp for item in importing.items()} == {None}  # too young to be trusted
    monkeypatch.setattr("service.content.reader._RESTED_NS", 0)
    importing(root)
    assert None not in {item.stamp for item in importing.items()}
    asked = []
    read = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: asked.append(path.name) or read(path))  # type: ignore[func-returns-value]

    assert told(importing(root)) == {"known": 3}
    assert asked == []

    path = root / "00002.png"
    times = path.stat()
    other = bytearray(read(path))
    other[-20] ^= 1  # the same size, and times that were set back
    path.write_bytes(bytes(other))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert told(importing(root))["known"] == 2
    assert asked == ["00002.png"]


@on_sqlite
def test_a_clock_that_goes_back(
    importing: Importing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.content.reader._RESTED_NS", 0)
    root = write_pictures(tmp_path / "pool", 2)
    importing(root)
    (root / "00000.png").write_bytes(bytes_of(60))
    os.utime(root / "00000.png", (1, 1))
    os.utime(root / "00001.png", (1, 1))
    assert told(importing(root)) == {"known": 1, "changed": 1}


def test_a_renamed_file_keeps_its_item(importing: Importing, tmp_path: Path) -> None:
    root = write_pictures(tmp_path / "pool", 5)
    importing(root)
    given = label_all(importing)
    before = by_key(importing)
    (root / "00003.png").rename(root / "0-first.png")  # comes before, in the order of names
    (root / "sub").mkdir()
    (root / "00000.png").rename(root / "sub" / "last.png")

    assert told(importing(root)) == {"known": 3, "moved": 2}
    after = by_key(importing)
    assert after["0-first.png"].id == before["00003.png"].id
    assert after["sub/last.png"].id == before["00000.png"].id
    assert len(after) == 5
    assert {item.state for item in after.values()} == {"done"}
    check_labels_are_under_their_bytes(importing, given)


@on_sqlite
def test_files_that_change_places_take_their_labels_along(importing: Importing, tmp_path: Path) -> None:
    root = write_pictures(tmp_path / "pool", 3)
    importing(root)
    given = label_all(importing)
    before = by_key(importing)
    (root / "00000.png").rename(root / "x")
    (root / "00001.png").rename(root / "00000.png")
    (root / "00002.png").rename(root / "00001.png")
    (root / "x").rename(root / "00002.png")

    assert told(importing(root)) == {"moved": 3}
    after = by_key(importing)
    assert [after[f"0000{n}.png"].id for n in range(3)] == [before[f"0000{n}.png"].id for n in (1, 2, 0)]
    check_labels_are_under_their_bytes(importing, given)


@on_sqlite
def test_a_copy_is_not_taken_for_a_move(importing: Importing, tmp_path: Path) -> None:
    root = write_pictures(tmp_path / "pool", 2)
    importing(root)
    given = label_all(importing)
    shutil.copy(root / "00001.png", root / "0-copy.png")
    assert told(importing(root)) == {"added": 1, "known": 2}
    assert by_key(importing)["0-copy.png"].state == "available"
    check_labels_are_under_their_bytes(importing, given)


def test_what_is_gone_is_missing_until_it_is_found_again(importing: Importing, tmp_path: Path) -> None:
    root = write_pictures(tmp_path / "pool", 5)
    importing(root)
    given = label_all(importing)
    (root / "00004.png").rename(tmp_path / "kept")
    with write_session(importing.engine) as session:
        items = {item.key: item for item in session.scalars(sa.select(Item))}
        items["00004.png"].gold = True

    assert told(importing(root)) == {"known": 4, "missing": 1}
    assert told(importing(root)) == {"known": 4, "missing": 1}
    assert by_key(importing)["00004.png"].state == "missing"
    check_labels_are_under_their_bytes(importing, given)

    (tmp_path / "kept").rename(root / "00004.png")
    assert told(importing(root)) == {"known": 5}
    assert (by_key(importing)["00004.png"].state, by_key(importing)["00004.png"].gold) == ("done", True)


@on_sqlite
def test_labels_that_came_while_an_item_was_aside_count_when_it_is_back(
    importing: Importing, tmp_path: Path
) -> None:
    root = write_pictures(tmp_path / "pool", 4)
    importing(root)
    (root / "00000.png").rename(tmp_path / "kept")
    importing(root)
    with write_session(importing.engine) as session:
        item = session.scalars(sa.select(Item).where(Item.state == "missing")).one()
        make_label(session, item=item, used=False)
        item.state, item.class_name, item.decided_by = "missing", None, None
    (tmp_path / "kept").rename(root / "00000.png")
    importing(root)
    item = by_key(importing)["00000.png"]
    assert (item.state, item.class_name) == ("done", "cat")
    with read_session(importing.engine) as session:
        assert session.get_one(Project, importing.project.id).labels_used == 1


@on_sqlite
def test_where_most_of_a_source_is_gone_nothing_is_put_aside(importing: Importing, tmp_path: Path) -> None:
    root = write_pictures(tmp_path / "pool", 5)
    importing(root)
    for number in range(3):
        (root / f"0000{number}.png").unlink()
    write_pictures(root, 1, first=70)

    with pytest.raises(JobFailed, match=r"3 of the 5 items.*nothing was put aside.*accept_missing"):
        run(importing.claim(root))
    assert {item.state for item in importing.items()} == {"available"}
    assert jobs_of(importing, "score_raw") == 1
    with write_session(importing.engine) as session:
        newest = session.scalars(sa.select(Source).order_by(Source.id.desc())).first()
        assert newest is not None
        assert (newest.added, newest.known, newest.missing) == (1, 2, 0)
        session.execute(sa.delete(Job))

    assert told(importing(root, accept_missing=True)) == {"known": 3, "missing": 3}


@on_sqlite
def test_a_subfolder_that_cannot_be_listed_is_not_missing(
    importing: Importing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_pictures(tmp_path / "pool", 4)
    write_pictures(root / "sub", 1, first=80)
    importing(root)
    scandir = os.scandir

    def refusing(path: Any) -> Any:
        if str(path).endswith("sub"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    result = importing(root)
    assert told(result) == {"known": 4, "refused": 1}
    assert {item.state for item in importing.items()} == {"available"}


@on_sqlite
def test_a_folder_that_was_renamed_is_the_same_place(importing: Importing, tmp_path: Path) -> None:
    root = write_pictures(tmp_path / "pool", 7)
    importing(root)
    given = label_all(importing)
    before = by_key(importing)
    root = root.rename(tmp_path / "renamed")
    (root / "00000.png").write_bytes(bytes_of(50))
    (root / "00001.png").rename(root / "moved.png")
    (root / "00002.png").unlink()

    expected = {"known": 4, "changed": 1, "moved": 1, "missing": 1}
    assert told(importing(root)) == expected
    after = by_key(importing)
    assert after["moved.png"].id == before["00001.png"].id
    assert after["00000.png"].replaces_id == before["00000.png"].id
    assert after["00002.png"].state == "missing"
    check_labels_are_under_their_bytes(importing, given)
    assert told(importing(root)) == {"known": 6, "missing": 1}

    shutil.rmtree(root)
    other = write_pictures(
        tmp_path / "other", 7, first=70
    )  # another folder, though its files are called the same
    for number in range(7):
        (other / f"{70 + number:05}.png").rename(other / f"{number:05}.png")
    assert told(importing(other)) == {"added": 1, "refused": 6}
    assert by_key(importing)["00004.png"].state == "done"


@on_sqlite
def test_a_table_that_was_renamed_is_the_same_place(importing: Importing, tmp_path: Path) -> None:
    keys = list("abcde")
    table = write_parquet(tmp_path / "old.parquet", {"key": keys, "image": RED})
    importing(table)
    given = label_all(importing)
    table.unlink()
    changed: dict[str, list[Any]] = {"key": keys[:4], "image": [RED[0], bytes_of(50), *RED[2:4]]}
    assert told(importing(write_parquet(tmp_path / "new.parquet", changed))) == {
        "known": 3,
        "changed": 1,
        "missing": 1,
    }
    check_labels_are_under_their_bytes(importing, given)


@on_sqlite
def test_another_place_is_left_alone(importing: Importing, tmp_path: Path) -> None:
    importing(write_pictures(tmp_path / "one", 3))
    two = write_pictures(tmp_path / "two", 3, first=3)
    importing(two)
    (two / "00003.png").unlink()
    shutil.rmtree(tmp_path / "one")
    assert told(importing(two)) == {"known": 2, "missing": 1}
    assert by_key(importing)["00000.png"].state == "available"


@on_sqlite
def test_a_second_class_for_a_test_item_is_refused_and_named(importing: Importing, tmp_path: Path) -> None:
    columns: dict[str, list[Any]] = {
        "image": [*RED[:3], RED[0]],
        "key": ["a", "b", "c", "a"],
        "kind": ["cat", "dog", "cat", "dog"],
    }
    result = importing(write_parquet(tmp_path / "test.parquet", columns), "test", "kind")
    assert told(result) == {"added": 3, "refused": 1}
    assert "'a': this key appears twice, as 'cat' and as 'dog'" in result["refusals"][0]

    columns = {"image": RED[:3], "key": ["a", "b", "c"], "kind": ["dog", "dog", "cow"]}
    result = importing(write_parquet(tmp_path / "test.parquet", columns), "test", "kind")
    assert told(result) == {"known": 1, "refused": 2}
    assert any(
        "'a' is a test item of class 'cat' already; 'dog' would be a second one" in sentence
        for sentence in result["refusals"]
    )
    assert {item.key: (item.state, item.class_name) for item in importing.items()} == {
        "a": ("available", "cat"),
        "b": ("available", "dog"),
        "c": ("available", "cat"),
    }


@on_sqlite
def test_a_test_item_that_moves_to_another_class_is_of_that(importing: Importing, tmp_path: Path) -> None:
    root = tmp_path / "test"
    write_pictures(root / "cat", 3)
    write_pictures(root / "dog", 1, first=9)
    importing(root, "test")
    (root / "cat" / "00000.png").rename(root / "dog" / "00000.png")
    assert told(importing(root, "test")) == {"known": 3, "moved": 1}
    assert by_key(importing)["test/dog/00000.png"].class_name == "dog"


@on_sqlite
def test_a_file_that_changes_while_it_is_read_is_not_taken(
    importing: Importing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_pictures(tmp_path / "pool", 2)
    read = Path.read_bytes
    reads = []

    def growing(path: Path) -> bytes:
        data = read(path)
        if path.name == "00001.png":
            reads.append(path)
            with path.open("ab") as file:
                file.write(b"more")
        return data

    monkeypatch.setattr(Path, "read_bytes", growing)
    with pytest.raises(ImportIncomplete, match=r"00001.png.*changes while it is read"):
        run(importing.claim(root))
    assert importing.keys() == ["00000.png"]
    assert len(reads) == looks._READS


@on_sqlite
def test_a_broken_file_that_annotators_hold_is_not_repaired_under_them(
    importing: Importing, tmp_path: Path
) -> None:
    root = write_pictures(tmp_path / "pool", 2)
    importing(root)
    with write_session(importing.engine) as session:
        for item in session.scalars(sa.select(Item)):  # as scoring found it
            item.state, item.quarantine_reason, item.facts = "quarantined", "cut", None
        project = session.get_one(Project, importing.project.id)
        held = session.scalars(sa.select(Item).where(Item.key == "00000.png")).one()
        make_reservation(session, batch=make_batch(session, project=project), item=held)
    for number in range(2):
        (root / f"0000{number}.png").write_bytes(bytes_of(90 + number))
    assert told(importing(root)) == {"added": 1, "changed": 1}
    assert by_key(importing)["00000.png"].replaces_id == held.id


def test_an_import_that_is_run_again_counts_the_same(
    importing: Importing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(import_source, "_CHUNK", 2)
    root = write_pictures(tmp_path / "pool", 9)
    importing(root)
    label_all(importing)
    (root / "00000.png").write_bytes(bytes_of(100))
    (root / "00001.png").write_bytes(b"no picture")
    (root / "00002.png").rename(root / "z.png")
    (root / "00003.png").unlink()
    (root / "new.png").write_bytes(bytes_of(101))
    (root / "bad.png").write_bytes(b"bad")
    expected = {"added": 1, "known": 5, "changed": 2, "moved": 1, "quarantined": 1, "missing": 1}
    context = importing.claim(root)
    import_source.run(context)
    with write_session(importing.engine) as session:
        session.execute(
            sa.update(Job).where(Job.id == context.job.id).values(state="running", lease_until=1e12)
        )
    hand_back(context)
    run(claim(importing.engine, importing.settings, importing.artifacts, kind="import_source"))
    with read_session(importing.engine) as session:
        newest = session.scalars(sa.select(Source).order_by(Source.id.desc())).first()
    assert {name: count for name in (*COUNTS, "missing") if (count := getattr(newest, name))} == expected


@on_sqlite
def test_objects_in_a_bucket(importing: Importing, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket = MemoryFileSystem()
    names = [f"/identity/{number}.png" for number in range(3)]
    for number, name in enumerate(names):
        bucket.pipe_file(name, bytes_of(number))
    importing.settings = importing.settings.model_copy(update={"source_roots": ("memory://identity",)})
    importing("memory://identity")
    bucket.pipe_file(names[0], bytes_of(9))
    bucket.mv(names[1], "/identity/moved.png")
    assert told(importing("memory://identity")) == {"known": 1, "changed": 1, "moved": 1}
    bucket.rm("/identity", recursive=True)


@on_sqlite
def test_a_project_whose_items_were_registered_by_their_place(importing: Importing, tmp_path: Path) -> None:
    """Nobody had read them: the import learns what they are, and takes them for its own."""
    root = write_pictures(tmp_path / "pool", 2)
    with write_session(importing.engine) as session:
        session.add(
            Item(project_id=importing.project.id, key="00000.png", uri=str(root / "00000.png"), shuffle=1)
        )
    assert told(importing(root)) == {"added": 1, "known": 1}
    item = by_key(importing)["00000.png"]
    assert item.content_hash == content_hash_of(bytes_of(0))
    (root / "00000.png").write_bytes(bytes_of(7))
    assert told(importing(root)) == {"known": 1, "changed": 1}


def test_withdrawn_items_stay_withdrawn(importing: Importing, tmp_path: Path) -> None:
    root = write_pictures(tmp_path / "pool", 4)
    importing(root)
    with write_session(importing.engine) as session:
        for item in session.scalars(sa.select(Item).where(Item.key.in_(("00000.png", "00001.png")))):
            item.state = "withdrawn"
    (root / "00000.png").rename(root / "x.png")
    (root / "00001.png").unlink()
    assert told(importing(root)) == {"known": 2, "moved": 1}
    assert {item.key: item.state for item in importing.items()} == {
        "00001.png": "withdrawn",
        "00002.png": "available",
        "00003.png": "available",
        "x.png": "withdrawn",
    }


@on_sqlite
def test_what_scoring_found_changed_is_good_again_under_its_bytes(
    importing: Importing, tmp_path: Path
) -> None:
    root = write_pictures(tmp_path / "pool", 4)
    importing(root)
    reason = "its bytes are not those that were imported"
    with write_session(importing.engine) as session:
        for item in session.scalars(sa.select(Item).where(Item.key < "00002")):
            item.state, item.quarantine_reason = "quarantined", reason
    before = by_key(importing)
    (root / "00001.png").rename(root / "moved.png")
    (root / "00000.png").rename(tmp_path / "kept")
    (root / "00000.png").write_bytes(bytes_of(50))
    assert told(importing(root)) == {"known": 2, "changed": 1, "moved": 1}
    after = by_key(importing)
    assert (after["moved.png"].id, after["moved.png"].state) == (before["00001.png"].id, "available")
    (tmp_path / "kept").rename(root / "00000.png")
    assert told(importing(root)) == {"known": 3, "moved": 1}
    back = by_key(importing)["00000.png"]
    assert (back.id, back.state, back.quarantine_reason) == (before["00000.png"].id, "available", None)


@on_sqlite
def test_a_file_that_a_manifest_names_and_that_is_gone_is_missing(
    importing: Importing, tmp_path: Path
) -> None:
    root = write_pictures(tmp_path / "pool", 3)
    manifest = tmp_path / "pool.csv"
    manifest.write_text("path\n" + "".join(f"pool/0000{number}.png\n" for number in range(3)))
    importing(manifest)
    given = label_all(importing)
    (root / "00001.png").rename(tmp_path / "kept")
    result = importing(manifest)
    assert told(result) == {"known": 2, "refused": 1, "missing": 1}
    assert "cannot be read any more: there is no such file" in result["refusals"][0]
    (tmp_path / "kept").rename(root / "00001.png")
    assert told(importing(manifest)) == {"known": 3}
    assert {item.state for item in importing.items()} == {"done"}
    check_labels_are_under_their_bytes(importing, given)


def test_an_archive_and_the_folder_that_it_was_made_of_are_known_again(
    importing: Importing, tmp_path: Path
) -> None:
    root = write_pictures(tmp_path / "pool", 3)
    place = tmp_path / "pool.zip"

    def pack() -> None:
        with zipfile.ZipFile(place, "w") as file:
            for path in sorted(root.iterdir()):
                file.write(path, path.name)

    pack()
    assert told(importing(place)) == {"added": 3}
    given = label_all(importing)
    assert told(importing(place)) == {"known": 3}
    (root / "00000.png").write_bytes(bytes_of(9))
    (root / "00001.png").rename(root / "renamed.png")
    (root / "00002.png").unlink()
    pack()
    assert told(importing(place)) == {"changed": 1, "moved": 1, "missing": 1}
    check_labels_are_under_their_bytes(importing, given)


@on_sqlite
def test_slices_of_a_volume_are_items_by_their_own_bytes(importing: Importing, tmp_path: Path) -> None:
    nibabel = pytest.importorskip("nibabel", reason="the extra `medical` is not installed")
    values = np.random.default_rng(0).integers(0, 256, (8, 8, 5), dtype=np.uint8)
    root = write_pictures(tmp_path / "pool", 1)

    def save(name: str) -> None:
        image = nibabel.Nifti1Image(values, np.eye(4))
        image.header["cal_max"] = 255
        nibabel.save(image, root / name)

    save("scan.nii.gz")
    assert told(importing(root)) == {"added": 6}
    given = label_all(importing)
    assert told(importing(root)) == {"known": 6}
    values[0, 0, 2] += 1
    save("scan.nii.gz")
    assert told(importing(root)) == {"known": 5, "changed": 1}
    (root / "scan.nii.gz").rename(root / "renamed.nii.gz")
    assert told(importing(root)) == {"known": 1, "moved": 5}
    check_labels_are_under_their_bytes(importing, given)

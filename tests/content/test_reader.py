"""Items are read below the allowed roots, and nowhere else."""

import errno
import json
import random
import tempfile
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from service.content import rows
from service.content.reader import ItemBytes, content_hash_of
from service.errors import NoItemColumn, SourceNotAllowed, SourceUnreachable, SourceUnreadable
from service.settings import Settings
from tests.pictures import write_parquet


def reader(*roots: object) -> ItemBytes:
    return ItemBytes(Settings(source_roots=tuple(str(root) for root in roots)))


def test_reads_a_file_below_a_root(tmp_path: Path) -> None:
    (tmp_path / "ä b.png").write_bytes(b"x")

    assert reader(tmp_path).read(str(tmp_path / "ä b.png")) == b"x"
    assert (
        reader(tmp_path).read((tmp_path / "ä b.png").as_uri().replace("%20", " ").replace("%C3%A4", "ä"))
        == b"x"
    )


@pytest.mark.parametrize(
    "uri",
    [
        "{other}/secret",
        "{root}/../other/secret",
        "{root}/link/secret",
        "{root}/file",
        "{root}2/secret",
        "file://{other}/secret",
        "relative/secret",
        "",
        "\0",
        "{root}/\0",
        "/" + "x" * 5000,
        "zip://a::file://{other}/secret",
        "memory://secret",
        "s3://bucket/secret",
        "https://example.org/x",
        "{other}/a.parquet#row=0",
        "simplecache::file://{root}/secret",
    ],
)
def test_refuses_what_lies_elsewhere(uri: str, tmp_path: Path) -> None:
    root, other = tmp_path / "root", tmp_path / "other"
    for folder in (root, other, tmp_path / "root2"):
        folder.mkdir()
        (folder / "secret").write_bytes(b"secret")
    (root / "link").symlink_to(other)
    (root / "file").symlink_to(other / "secret")

    with pytest.raises(SourceNotAllowed, match="SHORTLIST_SOURCE_ROOTS"):
        reader(root).read(uri.format(root=root, other=other))


def test_without_roots_nothing_is_read(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x")

    with pytest.raises(SourceNotAllowed, match="none are set"):
        reader().read(str(tmp_path / "a"))


def test_a_root_that_is_a_link_allows_where_it_leads(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a").write_bytes(b"x")
    (tmp_path / "link").symlink_to(tmp_path / "real")

    assert reader(tmp_path / "link").read(str(tmp_path / "link" / "a")) == b"x"


def test_reads_urls_below_a_root() -> None:
    with fsspec.open("memory://item-bytes/a.png", "wb") as file:
        file.write(b"x")
    allowed = reader("memory://item-bytes")

    assert allowed.read("memory://item-bytes/a.png") == b"x"
    for uri in ("memory://item-bytes2/a.png", "memory://item-bytes/../a", "memory://item-bytes/%2e%2e/a"):
        with pytest.raises(SourceNotAllowed):
            allowed.read(uri)


@pytest.mark.parametrize("name", ["gone.png", ".", "gone.parquet#row=1", "no.parquet#row=0"])
def test_what_cannot_be_read_says_so(name: str, tmp_path: Path) -> None:
    (tmp_path / "no.parquet").write_bytes(b"this is not Parquet")

    with pytest.raises(SourceUnreadable, match=r"cannot be read: .+"):
        reader(tmp_path).read(f"{tmp_path}/{name}")


@pytest.mark.parametrize("name", ["gone.png", "gone.parquet#row=1"])
def test_a_missing_file_among_others_is_not_out_of_reach(name: str, tmp_path: Path) -> None:
    pool = tmp_path / "pool"
    folder = pool / "shirts"
    allowed, uri = reader(pool), f"{folder}/{name}"
    for missing in (None, pool, folder):
        if missing:
            missing.mkdir()
        with pytest.raises(SourceUnreachable):
            allowed.read(uri)

    (folder / "there.png").write_bytes(b"x")
    with pytest.raises(SourceUnreadable) as raised:
        allowed.read(uri)
    assert type(raised.value) is SourceUnreadable


@pytest.mark.parametrize("column", ["image", "img", "picture"])
def test_reads_rows_of_parquet_files(column: str, tmp_path: Path) -> None:
    columns: dict[str, list[Any]] = {
        column: [b"%d" % row for row in range(10)],
        "key": [str(row) for row in range(10)],
    }
    path = write_parquet(tmp_path / "a.parquet", columns)
    allowed = reader(tmp_path)

    assert [allowed.read(f"{path}#row={row}") for row in (9, 0, 3, 2, 9)] == [b"9", b"0", b"3", b"2", b"9"]
    with pytest.raises(SourceUnreadable, match="no row 10"):
        allowed.read(f"{path}#row=10")


def test_reads_structs_with_bytes_and_nulls(tmp_path: Path) -> None:
    rows = [{"bytes": b"x", "path": "x.png"}, {"bytes": None, "path": "y.png"}, None]
    path = write_parquet(tmp_path / "a.parquet", {"image": rows})
    allowed = reader(tmp_path)

    assert [allowed.read(f"{path}#row={row}") for row in (0, 2)] == [b"x", b""]
    with pytest.raises(SourceUnreadable, match=r"the row has no bytes, only the path 'y\.png'"):
        allowed.read(f"{path}#row=1")


@pytest.mark.parametrize("columns", [{"key": ["a"]}, {"one": [b"x"], "two": [b"y"]}])
def test_parquet_without_a_clear_image_column(columns: dict[str, list[object]], tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", columns)

    there = ", ".join(f"'{name}' \\(.*\\)" for name in columns)
    with pytest.raises(NoItemColumn, match=f"Its columns are {there};"):
        reader(tmp_path).read(f"{path}#row=0")


def test_many_threads_read_one_parquet_file(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", {"image": [b"%d" % row for row in range(200)]})
    allowed = reader(tmp_path)

    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda row: allowed.read(f"{path}#row={row}"), range(200)))

    assert found == [b"%d" % row for row in range(200)]


@pytest.mark.parametrize(
    ("room", "groups_read"),
    [(10_000, [0, 1, 2]), (2_500, [0, 1, 2, 1]), (10, [0, 1, 0, 2, 1])],
    ids=["for all", "for two", "for none"],
)
def test_the_row_groups_that_are_kept_have_a_limit_in_bytes(
    room: int, groups_read: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    read_row_group = pq.ParquetFile.read_row_group

    def noted(file: pq.ParquetFile, group: int, **options: Any) -> Any:
        read.append(group)
        return read_row_group(file, group, **options)

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", noted)
    monkeypatch.setattr(rows, "_ROW_GROUP_BYTES", room)
    images = [bytes([row]) * 500 for row in range(6)]
    path = write_parquet(tmp_path / "a.parquet", {"image": images}, row_group_size=2)
    allowed = reader(tmp_path)

    for row in (0, 1, 2, 3, 0, 4, 5, 2):
        assert allowed.read(f"{path}#row={row}") == images[row]
    assert read == groups_read


@pytest.fixture
def slices(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Row groups from 1 kB on are large, and read in slices of half as much; how many rows each slice had."""
    monkeypatch.setattr(rows, "_LARGE_BYTES", 1_000)
    monkeypatch.setattr(rows, "_SLICE_BYTES", 500)
    read: list[int] = []
    iter_batches = pq.ParquetFile.iter_batches

    def noted(*given: Any) -> Any:
        for batch in iter_batches(*given):
            read.append(batch.num_rows)
            yield batch

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", noted)
    return read


def large_parquet(tmp_path: Path, rows: int = 60) -> tuple[ItemBytes, str, list[bytes]]:
    """Two large row groups, and one that is not."""
    images = [np.random.default_rng(row).bytes(100) for row in range(rows)]
    path = write_parquet(tmp_path / "a.parquet", {"image": images}, row_group_size=28)
    allowed = ItemBytes(Settings(source_roots=(str(tmp_path),), data_dir=tmp_path / "data"))
    return allowed, f"{path}#row=", images


@pytest.mark.parametrize("order", ["sequential", "backwards", "random"])
def test_a_large_row_group_is_read_once_in_slices(order: str, tmp_path: Path, slices: list[int]) -> None:
    allowed, place, images = large_parquet(tmp_path)
    rows = list(range(60))
    if order == "backwards":
        rows.reverse()
    elif order == "random":
        random.Random(0).shuffle(rows)

    assert [allowed.read(f"{place}{row}") for row in rows] == [images[row] for row in rows]
    assert [allowed.read(f"{place}{row}") for row in rows] == [images[row] for row in rows]
    assert sum(slices) == 2 * 28
    assert max(slices) <= 5


def test_of_a_large_row_group_no_more_is_read_than_was_asked_for(tmp_path: Path, slices: list[int]) -> None:
    allowed, place, images = large_parquet(tmp_path)
    assert allowed.read(f"{place}7") == images[7]
    assert 8 <= sum(slices) < 15


@pytest.mark.usefixtures("slices")
def test_many_threads_read_a_large_row_group(tmp_path: Path) -> None:
    allowed, place, images = large_parquet(tmp_path)
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(lambda row: allowed.read(f"{place}{row}"), range(60))) == images


@pytest.mark.usefixtures("slices")
def test_structs_and_nulls_in_a_large_row_group(tmp_path: Path) -> None:
    rows = [{"bytes": b"x" * 400, "path": "x.png"}, {"bytes": None, "path": "y.png"}, None] * 3
    path = write_parquet(tmp_path / "a.parquet", {"image": rows, "key": ["k" * 900] * 9}, row_group_size=9)
    allowed = ItemBytes(Settings(source_roots=(str(tmp_path),), data_dir=tmp_path / "data"))

    assert [allowed.read(f"{path}#row={row}") for row in (0, 2, 3, 5, 6, 8)] == [b"x" * 400, b""] * 3
    for row in (4, 1, 7):
        with pytest.raises(SourceUnreadable, match=r"no bytes, only the path 'y\.png'"):
            allowed.read(f"{path}#row={row}")


def test_a_large_row_group_that_could_not_be_read_on_is_read_anew(
    tmp_path: Path, slices: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    allowed, place, images = large_parquet(tmp_path)
    assert allowed.read(f"{place}0") == images[0]
    as_bytes = rows.cell_bytes

    def cut(_: Any) -> Any:
        raise TimeoutError(errno.ETIMEDOUT, "Connection timed out")

    monkeypatch.setattr(rows, "cell_bytes", cut)
    with pytest.raises(SourceUnreachable, match="timed out"):
        allowed.read(f"{place}20")
    monkeypatch.setattr(rows, "cell_bytes", as_bytes)
    assert [allowed.read(f"{place}{row}") for row in range(28)] == images[:28]


@pytest.mark.usefixtures("slices")
def test_no_room_for_a_large_row_group_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        def write(self, _: bytes) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

        def close(self) -> None: ...

    allowed, place, _ = large_parquet(tmp_path)
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda dir, buffering: Full())
    with pytest.raises(SourceUnreachable, match=r"unpacked in .*cache.*No space left"):
        allowed.read(f"{place}3")


def test_a_row_group_is_not_in_memory_as_it_is_stored(tmp_path: Path) -> None:
    """8 MB of it, of which a listing takes 256 rows, 1 MB, at a time."""
    images = [np.random.default_rng(row).bytes(4_000) for row in range(2_000)]
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"image": images}), path, use_dictionary=False, write_batch_size=64)
    tracemalloc.start()
    try:
        batches = rows.open_parquet(str(path)).iter_batches(256, columns=["image"])
        assert sum(batch.num_rows for batch in batches) == 2_000
        assert tracemalloc.get_traced_memory()[1] < 4_000_000
    finally:
        tracemalloc.stop()


def test_what_is_too_large_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 101)
    write_parquet(tmp_path / "a.parquet", {"image": [b"x" * 101]})
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": "x" * 101}))
    folder = f"memory://large-{tmp_path.name}"
    with fsspec.open(f"{folder}/a", "wb") as file:
        file.write(b"x" * 101)
    settings = Settings(source_roots=(str(tmp_path), folder), max_item_bytes=100)
    for place in (tmp_path / "a", f"{tmp_path}/a.parquet#row=0", f"{tmp_path}/a.jsonl#row=0", f"{folder}/a"):
        for known in (None, content_hash_of(b"x" * 101)):
            with pytest.raises(SourceUnreadable, match=r"101 bytes are more.*100.*MAX_ITEM_BYTES") as raised:
                ItemBytes(settings).read(str(place), known)
            assert not isinstance(raised.value, SourceUnreachable)  # it will not pass


def test_of_a_large_object_nothing_is_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = f"memory://unread-{tmp_path.name}"
    with fsspec.open(f"{folder}/a", "wb") as file:
        file.write(b"x" * 101)
    monkeypatch.setattr(MemoryFileSystem, "cat_file", lambda *_: pytest.fail("it was fetched"))
    with pytest.raises(SourceUnreadable, match="101 bytes"):
        ItemBytes(Settings(source_roots=(folder,), max_item_bytes=100)).read(f"{folder}/a")

"""A listing shows what its source holds now; folders are taken as they are."""

import os
import socket
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from service.content.image import CONTENT as IMAGES
from service.content.listing import Listing
from service.content.reader import ItemBytes
from service.content.sources import list_source
from service.errors import SourceUnreadable
from service.settings import Settings

BUCKET = "memory://listing-bucket"


def put(name: str) -> None:
    with fsspec.open(f"{BUCKET}/{name}", "wb") as file:
        file.write(b"x")


@pytest.fixture
def listings_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """As s3fs does: for as long as the process lives; a path takes no folder below it along."""
    kept: dict[str, Any] = {}
    ls = MemoryFileSystem.ls

    def ls_once(self: MemoryFileSystem, path: str, detail: bool = True, **options: Any) -> Any:
        if path not in kept:
            kept[path] = ls(self, path, detail=True, **options)
        return kept[path] if detail else [entry["name"] for entry in kept[path]]

    def forget(self: MemoryFileSystem, path: str | None = None) -> None:
        if path is None:
            kept.clear()
        else:
            kept.pop(path, None)

    monkeypatch.setattr(MemoryFileSystem, "ls", ls_once)
    monkeypatch.setattr(MemoryFileSystem, "invalidate_cache", forget)


@pytest.mark.usefixtures("listings_are_kept")
def test_a_second_listing_of_a_bucket_sees_what_came_meanwhile() -> None:
    def keys() -> list[str]:
        item_bytes = ItemBytes(Settings(source_roots=(BUCKET,)))
        return [candidate.key for candidate in list_source(BUCKET, item_bytes, None, IMAGES)]

    put("a/0.png")
    assert keys() == ["a/0.png"]

    put("a/1.png")
    put("b/2.png")
    assert keys() == ["a/0.png", "a/1.png", "b/2.png"]


def folder_of(path: Path, *roots: Path) -> Listing:
    item_bytes = ItemBytes(Settings(source_roots=tuple(map(str, roots or (path,)))))
    return list_source(str(path), item_bytes, None, IMAGES)


def keys_of(path: Path, *roots: Path) -> list[str]:
    return [found.key for found in folder_of(path, *roots)]


def put_file(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")
    return path


def test_a_link_to_a_folder_below_a_root_is_followed(tmp_path: Path) -> None:
    pool = put_file(tmp_path / "pool/0.png").parent
    put_file(tmp_path / "shared/cats/1.png")
    (pool / "more").symlink_to(tmp_path / "shared")
    (pool / "again").symlink_to(tmp_path / "shared/cats")  # the first by name has it
    (pool / "later").symlink_to(tmp_path / "shared/cats")

    listing = folder_of(pool, tmp_path)
    found = [(one.key, one.class_name) for one in listing]

    assert found == [("0.png", None), ("again/1.png", "again")]
    assert (listing.total(), listing.refused, listing.ignored) == (2, 0, 0)
    read = ItemBytes(Settings(source_roots=(str(tmp_path),))).read
    assert [read(one.uri) for one in listing] == [b"x", b"x"]


def test_a_link_that_leads_outside_the_roots_is_refused(tmp_path: Path) -> None:
    pool = put_file(tmp_path / "pool/0.png").parent
    put_file(tmp_path / "secret/1.png")
    (pool / "out").symlink_to(tmp_path / "secret")
    listing = folder_of(pool)

    assert [one.key for one in listing] == ["0.png"]
    assert listing.refused == 1
    assert "out' is a link." in listing.refusals[0]
    assert "SHORTLIST_SOURCE_ROOTS" in listing.refusals[0]


def test_circles_of_links_end(tmp_path: Path) -> None:
    pool = put_file(tmp_path / "pool/a/0.png").parent.parent
    put_file(tmp_path / "other/1.png")
    (pool / "self").symlink_to(pool)
    (pool / "a/up").symlink_to(pool)
    (pool / "z").symlink_to(tmp_path)  # all of this lies below it
    (tmp_path / "other/back").symlink_to(tmp_path)
    (tmp_path / "other/round").symlink_to(tmp_path / "other")
    (pool / "to-itself").symlink_to(pool / "to-itself")

    (pool / "to-itself.png").symlink_to(pool / "to-itself.png")

    assert keys_of(pool, tmp_path) == ["to-itself.png", "a/0.png", "z/other/1.png"]


def test_only_files_are_opened(tmp_path: Path) -> None:
    put_file(tmp_path / "0.png")
    os.mkfifo(tmp_path / "pipe.png")
    os.mkfifo(tmp_path / "pipe.txt")
    os.mkfifo(tmp_path / "pipe.csv")
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere")
    (tmp_path / "link.png").symlink_to(tmp_path / "pipe.png")
    with socket.socket(socket.AF_UNIX) as server:
        os.chdir(tmp_path)  # such an address is at most 107 bytes long
        server.bind("socket.png")
    listing = folder_of(tmp_path)

    assert [one.key for one in listing] == ["0.png", "gone.png"]
    assert (listing.refused, listing.ignored) == (3, 2)
    assert listing.refusals == [
        "'link.png' is a named pipe and no file.",
        "'pipe.png' is a named pipe and no file.",
        "'socket.png' is a socket and no file.",
    ]
    read = ItemBytes(Settings(source_roots=(str(tmp_path),))).read
    for name in ("pipe.png", "link.png", "pipe.csv#row=0", "pipe.parquet#row=0"):
        if name == "pipe.parquet#row=0":
            os.mkfifo(tmp_path / "pipe.parquet")
        with pytest.raises(SourceUnreadable, match="it is a named pipe and no file") as caught:
            read(str(tmp_path / name))
        assert caught.value.status == 422  # nobody tries again
    for name in ("pipe.csv", "pipe.parquet"):
        with pytest.raises(SourceUnreadable, match="it is a named pipe and no file"):
            list(folder_of(tmp_path / name, tmp_path))


@pytest.mark.parametrize("folder", ["@eaDir", ".thumbnails", "__MACOSX", "a/@eaDir/b.jpg"])
def test_thumbnails_of_other_programs_are_left_out(folder: str, tmp_path: Path) -> None:
    put_file(tmp_path / "c.jpg")
    put_file(tmp_path / folder / "SYNOPHOTO_THUMB_M.jpg")
    put_file(tmp_path / "._c.jpg")
    with fsspec.open(f"memory://thumbnails/{folder}/x.jpg", "wb") as file:
        file.write(b"x")
    bucket = list_source(
        "memory://thumbnails", ItemBytes(Settings(source_roots=("memory://thumbnails",))), None, IMAGES
    )

    assert keys_of(tmp_path) == ["c.jpg"]
    assert list(bucket) == []


def test_names_that_are_not_utf8_are_keys_all_the_same(tmp_path: Path) -> None:
    folder = os.fsencode(tmp_path) + b"/caf\xe9 50%"
    os.mkdir(folder)
    with open(folder + b"/\xff.png", "wb") as file:
        file.write(b"x")
    put_file(tmp_path / "café/0.png")

    found = list(folder_of(tmp_path))

    assert [one.key for one in found] == ["café/0.png", r"caf\xe9 50%/\xff.png"]
    assert found[1].uri.startswith("file:///")
    assert all((one.key + one.uri).encode() for one in found)
    read = ItemBytes(Settings(source_roots=(str(tmp_path),))).read
    assert [read(one.uri) for one in found] == [b"x", b"x"]


@pytest.mark.parametrize(
    "name", ["run?1", "a#b", "50%41", "a::b", "a&b=c", "*[x]", "memory:", "~", "back\\slash"]
)
def test_a_folder_of_any_name_is_a_source(name: str, tmp_path: Path) -> None:
    pool = put_file(tmp_path / name / name / "0.png").parent.parent
    (pool / "a.csv").write_text(f"path\n{name}/0.png\n")

    assert keys_of(pool) == [f"{name}/0.png"]
    assert keys_of(pool / "a.csv", tmp_path) == [f"{name}/0.png"]

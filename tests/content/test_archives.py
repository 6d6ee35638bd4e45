"""Archives as sources: members are read where they lie, nothing is unpacked under a name, bombs are bounded."""

import io
import os
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import fsspec
import pytest

from service.content import archives
from service.content.image import CONTENT as IMAGES
from service.content.listing import Candidate, Listing
from service.content.reader import ItemBytes
from service.content.sources import list_source
from service.content.text import CONTENT as TEXTS
from service.errors import SourceNotAllowed, SourceUnreachable, SourceUnreadable
from service.settings import Settings

Files = dict[str, bytes]
FILES = {"cat/1.png": b"one", "cat/2.png": b"two", "dog/ö, 3.png": b"three", "notes.md": b"not an item"}


def write_zip(path: Path, files: Files, compression: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as file:
        file.mkdir("cat")
        for name, data in files.items():
            file.writestr(name, data)
    return path


def write_tar(path: Path, files: Files) -> Path:
    endings = {".tar": "w", ".tgz": "w:gz", ".gz": "w:gz", ".bz2": "w:bz2", ".xz": "w:xz"}
    with tarfile.open(path, endings[path.suffix]) as file:  # type: ignore[call-overload]
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
    return path


Write = Callable[[Path, Files], Path]
KINDS: list[tuple[str, Write]] = [
    ("pool.zip", write_zip),
    ("pool.tar", write_tar),
    ("pool.tar.gz", write_tar),
    ("pool.TGZ", write_tar),
    ("pool.tar.bz2", write_tar),
    ("pool.tar.xz", write_tar),
]


@pytest.fixture
def item_bytes(tmp_path: Path) -> ItemBytes:
    return ItemBytes(Settings(data_dir=tmp_path / "data", source_roots=(str(tmp_path), "memory://archives")))


def listed(
    place: object, item_bytes: ItemBytes, label_column: str | None = None
) -> tuple[list[Candidate], Listing]:
    listing = list_source(str(place), item_bytes, label_column, IMAGES)
    return list(listing), listing


@pytest.mark.parametrize(("name", "write"), KINDS, ids=[name for name, _ in KINDS])
def test_members_are_items(name: str, write: Write, tmp_path: Path, item_bytes: ItemBytes) -> None:
    folder = tmp_path / "odd #folder?%20.zip#member=x"
    folder.mkdir()
    place = folder / name
    if name.endswith("TGZ"):
        write(folder / "pool.tgz", FILES).rename(place)
    else:
        write(place, FILES)
    found, listing = listed(place, item_bytes)
    assert [(one.key, one.class_name) for one in found] == [
        ("cat/1.png", "cat"),
        ("cat/2.png", "cat"),
        ("dog/ö, 3.png", "dog"),
    ]
    assert [item_bytes.read(one.uri) for one in found] == [b"one", b"two", b"three"]
    assert (listing.ignored, listing.refused, listing.total()) == (1, 0, 3)
    assert item_bytes.stamp(found[0].uri) == item_bytes.stamp(str(place))
    untold = list_source(str(place), item_bytes, None, None)
    assert untold.tell() is IMAGES
    with pytest.raises(SourceUnreadable, match="no member"):
        item_bytes.read(found[0].uri.replace("1.png", "9.png"))


def test_a_replaced_archive_is_read_anew(tmp_path: Path, item_bytes: ItemBytes) -> None:
    place = write_zip(tmp_path / "pool.zip", FILES)
    (first, *_), _ = listed(place, item_bytes)
    assert item_bytes.read(first.uri) == b"one"
    write_zip(tmp_path / "new.zip", {"cat/1.png": b"other"}).rename(place)
    assert item_bytes.read(first.uri) == b"other"
    place.unlink()
    with pytest.raises(SourceUnreadable, match="no such file"):
        item_bytes.read(first.uri)


@pytest.mark.parametrize("write", [write_zip, write_tar])
def test_names_that_lead_out_are_refused(write: Write, tmp_path: Path, item_bytes: ItemBytes) -> None:
    files = dict.fromkeys(
        ["../1.png", "/etc/2.png", "a/../../3.png", "C:/4.png", "good/./5.png", "..\\6.png"], b"x"
    )
    place = write(tmp_path / ("pool.zip" if write is write_zip else "pool.tar"), files)
    found, listing = listed(place, item_bytes)
    assert [one.key for one in found] == ["good/5.png"]
    assert listing.refused == 5
    assert "leads out of its archive" in listing.refusals[0]
    assert item_bytes.read(found[0].uri) == b"x"
    assert {path.name for path in tmp_path.iterdir()} == {place.name}


def test_names_that_are_not_utf8_are_keys_as_in_a_folder(tmp_path: Path, item_bytes: ItemBytes) -> None:
    place = write_tar(tmp_path / "pool.tar", {"caf\udce9/1.png": b"x"})
    found, _ = listed(place, item_bytes)
    assert [one.key for one in found] == [r"caf\xe9/1.png"]
    assert item_bytes.read(found[0].uri) == b"x"


def test_an_archive_below_no_root_is_not_read(tmp_path: Path, item_bytes: ItemBytes) -> None:
    with pytest.raises(SourceNotAllowed):
        item_bytes.read("/etc/pool.zip#member=1.png")
    with pytest.raises(SourceNotAllowed):
        item_bytes.read(f"{tmp_path}/../pool.zip#member=1.png")


def test_what_other_programs_keep_is_left_out(tmp_path: Path, item_bytes: ItemBytes) -> None:
    files = dict.fromkeys(
        ["a/1.png", "__MACOSX/a/._1.png", "__MACOSX/a/2.png", ".hidden/3.png", "a/._1.png"], b"x"
    )
    found, listing = listed(write_zip(tmp_path / "pool.zip", files), item_bytes)
    assert [one.key for one in found] == ["a/1.png"]
    assert listing.refused == 0


def test_a_folder_that_was_packed_has_its_classes_below(tmp_path: Path, item_bytes: ItemBytes) -> None:
    files = {f"pets/{name}": data for name, data in FILES.items()}
    found, _ = listed(write_zip(tmp_path / "pool.zip", files), item_bytes)
    assert (found[0].key, found[0].class_name) == ("pets/cat/1.png", "cat")
    one_class, _ = listed(write_zip(tmp_path / "one.zip", {"cat/1.png": b"x"}), item_bytes)
    assert one_class[0].class_name == "cat"


def test_a_bomb_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(data_dir=tmp_path / "data", source_roots=(str(tmp_path),), max_item_bytes=1_000)
    item_bytes = ItemBytes(settings)
    for write, name in ((write_tar, "pool.tar"), (write_tar, "pool.tgz"), (write_zip, "pool.zip")):
        place = write(tmp_path / name, {"1.png": bytes(100_000), "2.png": b"x"})
        assert [one.key for one in listed(place, item_bytes)[0]] == ["1.png", "2.png"]
        with pytest.raises(
            SourceUnreadable, match=r": 100,000 bytes are more.*1,000.*SHORTLIST_MAX_ITEM_BYTES"
        ):
            item_bytes.read(f"{place}#member=1.png")
        assert item_bytes.read(f"{place}#member=2.png") == b"x"
    raw = bytearray(place.read_bytes())  # it lies: the directory says ten bytes
    at = raw.rindex(b"PK\x01\x02", 0, raw.rindex(b"PK\x01\x02"))
    raw[at + 24 : at + 28] = (10).to_bytes(4, "little")
    place.write_bytes(raw)
    with pytest.raises(SourceUnreadable):
        item_bytes.read(f"{place}#member=1.png")
    monkeypatch.setattr(archives, "_LEAST_UNPACKED", 1_000)
    monkeypatch.setattr(archives, "_MOST_TIMES", 5)
    with pytest.raises(SourceUnreadable, match="more than 5 times"):
        listed(write_tar(tmp_path / "pool.tar.gz", {"1.png": bytes(200_000)}), item_bytes)


@pytest.mark.parametrize("name", ["pool.zip", "pool.tar", "pool.tar.gz"])
@pytest.mark.parametrize("damage", ["empty", "text", "cut", "lfs", "page"])
def test_a_broken_archive_is_called_so(name: str, damage: str, tmp_path: Path, item_bytes: ItemBytes) -> None:
    place = tmp_path / name
    (write_zip if name.endswith("zip") else write_tar)(
        place, {"1.png": os.urandom(5_000), "2.png": os.urandom(5_000)}
    )
    place.write_bytes(
        {
            "empty": b"",
            "text": b"this is no archive" * 100,
            "cut": place.read_bytes()[:7_000],
            "lfs": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
            "page": b"<!DOCTYPE html><html>",
        }[damage]
    )
    with pytest.raises(SourceUnreadable) as caught:
        listed(place, item_bytes)
    assert not isinstance(caught.value, SourceUnreachable), caught.value
    assert {"lfs": "Git LFS", "page": "HTML"}.get(damage, "broken or none") in str(caught.value)


def test_links_and_encrypted_members_are_refused(tmp_path: Path, item_bytes: ItemBytes) -> None:
    place = tmp_path / "pool.tar"
    with tarfile.open(place, "w") as file:
        info = tarfile.TarInfo("1.png")
        info.size = 1
        file.addfile(info, io.BytesIO(b"x"))
        for name, kind, to in (
            ("2.png", tarfile.SYMTYPE, "/etc/passwd"),
            ("3.png", tarfile.LNKTYPE, "1.png"),
        ):
            link = tarfile.TarInfo(name)
            link.type, link.linkname = kind, to
            file.addfile(link)
    found, listing = listed(place, item_bytes)
    assert [(one.key, item_bytes.read(one.uri)) for one in found] == [("1.png", b"x"), ("3.png", b"x")]
    assert "is a link and no file" in listing.refusals[0]
    locked = write_zip(tmp_path / "pool.zip", {"1.png": b"x"})
    raw = bytearray(locked.read_bytes())
    raw[raw.rindex(b"PK\x01\x02") + 8] |= 1
    locked.write_bytes(raw)
    _, listing = listed(locked, item_bytes)
    assert "is an encrypted file" in listing.refusals[0]


def test_shards_of_a_webdataset(tmp_path: Path, item_bytes: ItemBytes) -> None:
    folder = tmp_path / "shards"
    folder.mkdir()
    (folder / "dataset.json").write_text("{}")
    for shard in range(3):
        files: Files = {}
        for number in range(2):
            files |= {f"{shard}{number}.png": b"%d%d" % (shard, number), f"{shard}{number}.cls": b"dog\n"}
        write_tar(folder / f"shard-{shard:04}.tar", files)
    found, listing = listed(folder, item_bytes, label_column="cls")
    assert [one.key for one in found][:3] == [
        "shard-0000.tar/00.png",
        "shard-0000.tar/01.png",
        "shard-0001.tar/10.png",
    ]
    assert {one.class_name for one in found} == {"dog"}
    assert [item_bytes.read(one.uri) for one in found][-1] == b"21"
    assert (listing.ignored, listing.total()) == (6, 6)
    (folder / "0.png").write_bytes(b"x")  # a folder of pictures, beside which archives lie
    found, _ = listed(folder, item_bytes)
    assert [one.key for one in found] == ["0.png"]


def test_texts_and_buckets(tmp_path: Path, item_bytes: ItemBytes) -> None:
    place = write_zip(tmp_path / "pool.zip", {"a.txt": b"well done", "b.txt": b"a pity"})
    with fsspec.open("memory://archives/pool.zip", "wb") as file:
        file.write(place.read_bytes())
    for uri in (str(place), "memory://archives/pool.zip"):
        found = list(list_source(uri, item_bytes, None, TEXTS))
        assert [item_bytes.read(one.uri) for one in found] == [b"well done", b"a pity"]


def test_a_hundred_thousand_members(tmp_path: Path, item_bytes: ItemBytes) -> None:
    place = tmp_path / "pool.zip"
    with zipfile.ZipFile(place, "w") as file:
        for number in range(100_000):
            file.writestr(f"{number // 1000}/{number}.png", b"x")
    found, _ = listed(place, item_bytes)
    assert len(found) == 100_000
    assert item_bytes.read(found[-1].uri) == b"x"

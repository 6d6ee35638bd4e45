"""Pairs: rows of tables of which one column is an image, or says where it is, and another a text."""

import json
import struct
import zlib
from base64 import b64encode
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from service.content import limits_of
from service.content.listing import Candidate
from service.content.pair import CONTENT, Kinds, halves, packed, pairs_of
from service.content.reader import ItemBytes
from service.content.sources import list_source
from service.errors import BadItem, SourceNotAllowed, SourceUnreadable
from service.settings import Settings
from tests.journeys.captions import caption, picture, write_pairs
from tests.journeys.films import write_frames
from tests.journeys.sounds import recording

LIMITS = limits_of(Settings())
RED, WORDS = picture("red", 1), caption("red", 1)


def reader(folder: Path) -> ItemBytes:
    return ItemBytes(Settings(source_roots=(str(folder),)))


def candidates(
    table: Path, label_column: str | None = None, kinds: Kinds = ("image", "text")
) -> list[Candidate]:
    return list(list_source(str(table), reader(table.parent), label_column, pairs_of(kinds)))


def write_jsonl(folder: Path, *rows: dict[str, Any]) -> Path:
    table = folder / "pairs.jsonl"
    table.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return table


def reason(data: bytes) -> str:
    with pytest.raises(BadItem) as raised:
        CONTENT.inspect(data, LIMITS)
    return str(raised.value.fields["reason"])


def test_both_halves_are_looked_at_and_shown() -> None:
    data = packed(RED, WORDS.encode())

    assert halves(data) == (RED, WORDS.encode())
    assert CONTENT.inspect(data, LIMITS) == {
        "width": 24,
        "height": 24,
        "characters": len(WORDS),
        "words": 5,
        "encoding": "utf-8",
    }
    assert CONTENT.preview(data, LIMITS, None).data == RED
    assert CONTENT.preview(data, LIMITS, 16).media_type == "image/png"
    assert CONTENT.text(data, LIMITS) == WORDS


def test_the_half_that_is_bad_is_named() -> None:
    assert reason(packed(b"", b"a text")) == "its image is missing"
    assert reason(packed(RED, b" \n")) == "its text is missing"
    assert reason(packed(RED[:60], b"a text")).startswith("its image: broken or truncated")
    assert reason(packed(b"<!doctype html>", b"a text")).startswith("its image: it is a saved web page")
    assert reason(packed(RED, b"%PDF-1.4")) == "its text: it is not text but a document: give its text alone"
    assert reason(RED).startswith("not a pair")
    assert reason(packed(RED, b"x")[:20]).startswith("not a pair")


def test_a_table_of_places_and_texts(tmp_path: Path) -> None:
    table = write_pairs(tmp_path / "a, b @ c", 3)
    found = candidates(table)

    assert [one.key for one in found] == ["red-0", "green-1", "red-2"]
    for number, one in enumerate(found):
        data = reader(tmp_path).read(one.uri)
        colour = ("red", "green")[number % 2]
        assert halves(data) == (picture(colour, number), caption(colour, number).encode())


@pytest.mark.parametrize(
    "names", [("image", "caption"), ("uri", "text"), ("Image, large", "text"), ("file_name", "Title")]
)
def test_columns_by_their_names(names: tuple[str, str], tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(RED)
    table = write_jsonl(tmp_path, {names[0]: "a.png", names[1]: WORDS, "label": "x"})
    if names[0] == "Image, large":
        with pytest.raises(SourceUnreadable, match=r"one of texts.*its columns are 'Image, large', 'text'"):
            candidates(table)
        return
    (found,) = candidates(table, label_column="label")

    assert found.class_name == "x"
    assert halves(reader(tmp_path).read(found.uri)) == (RED, WORDS.encode())


def test_a_parquet_file_of_bytes_and_texts(tmp_path: Path) -> None:
    table = {
        "picture": [RED, RED, None],
        "a, @b text": ["not this one"] * 3,
        "caption": ["one", "two", None],
        "label": ["x", "y", "x"],
    }
    pq.write_table(pa.table(table), tmp_path / "pairs.parquet")
    found = candidates(tmp_path / "pairs.parquet", label_column="label")

    assert [one.class_name for one in found] == ["x", "y", "x"]
    assert len({one.key for one in found}) == 3
    read = [reader(tmp_path).read(one.uri) for one in found]
    assert [halves(data) for data in read[:2]] == [(RED, b"one"), (RED, b"two")]
    assert reason(read[2]) == "its image is missing"


def test_rows_without_a_half_are_told_and_not_left_out(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(RED)
    table = write_jsonl(
        tmp_path,
        {"image": "a.png", "text": WORDS},
        {"image": "a.png"},
        {"text": WORDS},
        {"image": "", "text": "x"},
        {"image": "a.png", "text": None},
        {"image": "gone.png", "text": WORDS},
    )
    found = candidates(table)
    assert len(found) == len({one.key for one in found}) == 6

    assert CONTENT.inspect(reader(tmp_path).read(found[0].uri), LIMITS)
    missing = ("text", "image", "image", "text")
    for one, part in zip(found[1:5], missing, strict=True):
        assert reason(reader(tmp_path).read(one.uri)) == f"its {part} is missing"
    with pytest.raises(SourceUnreadable, match="no such file"):
        reader(tmp_path).read(found[5].uri)


def test_broken_pairs_say_which_half_it_is(tmp_path: Path) -> None:
    """From a table on the disk, as an import reads them."""
    root = tmp_path / "root"
    (root / "folder").mkdir(parents=True)
    huge = RED[:16] + struct.pack(">II", 60_000, 60_000) + RED[24:29]  # the header of a PNG of 3.6 gigapixels
    huge += struct.pack(">I", zlib.crc32(huge[12:29])) + RED[33:]
    files = {
        "empty": b"",
        "half": RED[:60],
        "page": b"<!doctype html>",
        "song": b"RIFF0000WAVEfmt ",
        "huge": huge,
    }
    for name, data in {"good": RED, **files}.items():
        (root / f"{name}.png").write_bytes(data)
    (tmp_path / "secret.png").write_bytes(RED)
    rows: list[tuple[object, object, str]] = [
        (None, "x", "its image is missing"),
        ("good.png", "", "its text is missing"),
        ("empty.png", "x", "its image is missing"),
        ("half.png", "x", "its image: broken or truncated"),
        ("page.png", "x", "its image: it is a saved web page"),
        ("song.png", "x", "its image: "),
        ("huge.png", "x", "its image: 60000 x 60000"),
        ("good.png", "x" * 1_000_001, "its text: .*SHORTLIST_MAX_TEXT_BYTES"),
        ("good.png", "%PDF-1.4", "its text: it is not text"),
        ("gone.png", "x", "no such file"),
        ("../secret.png", "x", "allowed folder"),
        ("folder", "x", "it is a folder"),
        ("data:image/png;base64,%%%", "x", "not Base64"),
    ]
    table = write_jsonl(root, *({"image": image, "text": text} for image, text, _ in rows))
    found = candidates(table)
    assert len(found) == len(rows)
    for one, (_, _, words) in zip(found, rows, strict=True):
        with pytest.raises((BadItem, SourceUnreadable, SourceNotAllowed), match=words):
            CONTENT.inspect(reader(root).read(one.uri), LIMITS)


def test_a_row_names_no_file_outside_the_roots_and_no_row(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (tmp_path / "secret.png").write_bytes(RED)
    itself = f"{root}/pairs.jsonl#row=2&column=@image,text"
    inline = f"inline:1/{'0' * 32}.jsonl#row=0"
    rows = [str(tmp_path / "secret.png"), "../secret.png", itself, inline, "upload:1/secret.png"]
    table = write_jsonl(root, *({"image": place, "text": "x"} for place in rows))

    for one in candidates(table):
        with pytest.raises((SourceNotAllowed, SourceUnreadable)):
            reader(root).read(one.uri)


def test_other_sources_are_no_pairs(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(RED)
    assert candidates(tmp_path) == []
    with pytest.raises(
        SourceUnreadable, match="a table of pairs has a column of images or their places and one of texts"
    ):
        candidates(write_jsonl(tmp_path, {"image": "a.png", "price": 3}))


@pytest.mark.parametrize(
    "names", [("question", "answer"), ("text1", "text2"), ("sentence_A", "sentence_b"), ("first", "second")]
)
def test_two_texts(names: tuple[str, str], tmp_path: Path) -> None:
    table = write_jsonl(
        tmp_path, {names[0]: "Why?", "label": "x", names[1]: "So."}, {names[0]: "Why?"}, {names[1]: "So."}
    )
    found = candidates(table, "label", ("text", "text"))
    read = [reader(tmp_path).read(one.uri) for one in found]

    assert halves(read[0]) == (b"Why?", b"So.")
    assert found[0].class_name == "x"
    assert CONTENT.texts(read[0], LIMITS) == ("Why?", "So.")
    assert CONTENT.text(read[0], LIMITS) == "Why?\n\nSo."
    assert CONTENT.inspect(read[0], LIMITS)["second"]["words"] == 1
    assert [reason(data) for data in read[1:]] == ["its second text is missing", "its first text is missing"]


def test_recordings_and_what_is_said_in_them(tmp_path: Path) -> None:
    """In Parquet as bytes, in a table by their places; bytes go before places."""
    whole = recording("rise", 1)
    (tmp_path / "a.wav").write_bytes(whole)
    kinds: Kinds = ("audio", "text")
    columns = {"audio": [whole, b"", whole[:50]], "path": ["x", "y", "z"], "text": ["la", "la", "la"]}
    pq.write_table(pa.table(columns), tmp_path / "pairs.parquet")
    held = [reader(tmp_path).read(one.uri) for one in candidates(tmp_path / "pairs.parquet", None, kinds)]
    (placed,) = candidates(write_jsonl(tmp_path, {"audio_path": "a.wav", "text": "la"}), None, kinds)

    assert held[0] == reader(tmp_path).read(placed.uri)
    assert set(CONTENT.inspect(held[0], LIMITS)) == {"first", "second"}
    assert CONTENT.preview(held[0], LIMITS, None).media_type == "audio/wav"
    assert CONTENT.part(held[0], 2)[0].name == "text"
    assert reason(held[1]) == "its recording is missing"
    assert reason(held[2]).startswith("its recording: ")


def test_videos_and_folders_of_frames_beside_each_other(tmp_path: Path) -> None:
    write_frames(tmp_path / "a", "left", 1)
    write_frames(tmp_path / "b", "right", 1)
    table = write_jsonl(tmp_path, {"video_1": "a", "video_2": "b"})
    (found,) = candidates(table, None, ("video", "video"))

    assert CONTENT.inspect(reader(tmp_path).read(found.uri), LIMITS)["second"]["frames"] == 24


def test_a_table_that_lacks_a_half_says_which_columns_it_needs(tmp_path: Path) -> None:
    table = write_jsonl(tmp_path, {"question": "Why?"})
    with pytest.raises(SourceUnreadable, match=r"of texts and one of texts, called `first` and `second` or"):
        candidates(table, None, ("text", "text"))


def test_halves_that_came_with_the_call() -> None:
    inline = "data:image/png;base64," + b64encode(RED).decode()
    data = reader(Path("/nowhere")).read_pair("a", ("image", "text"), (inline, WORDS))
    assert halves(data) == (RED, WORDS.encode())
    for bad in ("data:image/png;base64,%%%", f"inline:1/{'0' * 32}.bin", "/etc/hostname", "a.csv#row=1"):
        with pytest.raises((SourceNotAllowed, SourceUnreadable)):
            reader(Path("/nowhere")).read_pair("a", ("image", "text"), (bad, WORDS))

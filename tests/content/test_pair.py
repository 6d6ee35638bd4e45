"""Pairs: rows of tables of which one column is an image, or says where it is, and another a text."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from service.content import limits_of
from service.content.pair import CONTENT, halves, packed
from service.content.reader import ItemBytes
from service.content.sources import Candidate, list_source
from service.errors import BadItem, SourceNotAllowed, SourceUnreadable
from service.settings import Settings
from tests.journeys.captions import caption, picture, write_pairs

LIMITS = limits_of(Settings())
RED, WORDS = picture("red", 1), caption("red", 1)


def reader(folder: Path) -> ItemBytes:
    return ItemBytes(Settings(source_roots=(str(folder),)))


def candidates(table: Path, label_column: str | None = None) -> list[Candidate]:
    return list(list_source(str(table), reader(table.parent), label_column, CONTENT))


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
        with pytest.raises(SourceUnreadable, match=r"one of texts .*its columns are 'Image, large', 'text'"):
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
    with pytest.raises(SourceUnreadable, match="a table of pairs has a column of images"):
        candidates(write_jsonl(tmp_path, {"image": "a.png", "price": 3}))

"""Single rows of CSV and JSONL files are those that reading them from the beginning finds."""

import csv
import json
import random
import tracemalloc
from pathlib import Path

import pytest

from service.content import lines
from service.content.lines import LineRows, Lines
from service.content.reader import ItemBytes
from service.errors import SourceNotAllowed, SourceUnreadable
from service.settings import Settings

ODD = (
    "plain",
    "two\nlines",
    'a "quote"',
    "comma, comma",
    "",
    "cr\rlf\r\nend",
    "日本語 🙂",
    'mid"dle',
    " spaces ",
    "x" * 200_000,
)


def write_csv(path: Path, texts: list[str], ending: str = "\r\n", mark: str = "") -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        file.write(mark)
        writer = csv.writer(file, lineterminator=ending)
        writer.writerows([("key", "text"), *((str(n), text) for n, text in enumerate(texts))])
    return path


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_rows_of_csv_in_any_order(ending: str, mark: str, tmp_path: Path) -> None:
    texts = [f"{number} {ODD[number % len(ODD)]}" for number in range(700)]
    path = str(write_csv(tmp_path / "a.csv", texts, ending, mark))
    order = list(range(700))
    random.Random(0).shuffle(order)
    rows = LineRows()

    assert [rows.read(path, row, ["text"]).decode() for row in order] == [texts[row] for row in order]
    with pytest.raises(SourceUnreadable, match="no row 700"):
        rows.read(path, 700, ["text"])
    assert rows.read(path, 699, ["text"]).decode() == texts[699]


def test_quotes_within_a_cell_do_not_hide_the_end_of_a_row(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('key,text\na,5" disk\nb,"x\ny"\n\nc,z\n')
    rows = LineRows()
    assert [rows.read(str(path), row, ["text"]) for row in (0, 1, 3)] == [b'5" disk', b"x\ny", b"z"]
    with pytest.raises(SourceUnreadable, match="no text in text"):
        rows.read(str(path), 2, ["text"])


def test_rows_of_jsonl(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join([*(json.dumps({"text": text}) for text in ODD), "", "[1]", '{"text": 1}']))
    rows = LineRows()
    assert [rows.read(str(path), row, ["text"]).decode() for row in range(len(ODD))] == list(ODD)
    for row in range(len(ODD), len(ODD) + 3):
        with pytest.raises(SourceUnreadable, match=f"row {row} has no text"):
            rows.read(str(path), row, ["text"])


def test_a_file_is_read_from_its_beginning_only_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(write_csv(tmp_path / "a.csv", [str(number) for number in range(5_000)]))
    parsed = 0
    records = Lines._records

    def counting(file: Lines, offset: int) -> object:
        nonlocal parsed
        for each in records(file, offset):
            parsed += 1
            yield each

    monkeypatch.setattr(Lines, "_records", counting)
    rows = LineRows()
    rows.read(path, 4_999, ["text"])
    assert 5_000 <= parsed <= 5_003
    parsed = 0
    for row in range(0, 5_000, 500):
        rows.read(path, row, ["text"])
    assert parsed <= 10 * lines._BLOCK_ROWS


def test_a_file_that_changes_is_read_anew(tmp_path: Path) -> None:
    rows = LineRows()
    path = write_csv(tmp_path / "a.csv", ["old"])
    assert rows.read(str(path), 0, ["text"]) == b"old"
    write_csv(path, ["newer", "newest"])
    assert [rows.read(str(path), row, ["text"]) for row in (0, 1)] == [b"newer", b"newest"]


def test_what_is_kept_of_a_large_file_is_small(tmp_path: Path) -> None:
    path = str(write_csv(tmp_path / "a.csv", ["x" * 1_000] * 20_000))
    rows = LineRows()
    tracemalloc.start()
    try:
        rows.read(path, 19_999, ["text"])
        assert tracemalloc.get_traced_memory()[1] < 12_000_000  # of 20 MB
    finally:
        tracemalloc.stop()


def test_a_quote_that_is_never_closed_is_no_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.csv"
    path.write_text('text\n"' + "x\n" * 1_000)
    limit = csv.field_size_limit(100)
    try:
        with pytest.raises(SourceUnreadable, match="field larger than field limit"):
            LineRows().read(str(path), 0, ["text"])
    finally:
        csv.field_size_limit(limit)


def test_rows_by_their_place(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    inside, outside = (write_csv(tmp_path / name, ["one", "two"]) for name in ("in/a.csv", "b.csv"))
    allowed = ItemBytes(Settings(source_roots=(str(tmp_path / "in"),), data_dir=tmp_path / "data"))
    assert allowed.read(f"{inside}#row=1&column=text") == allowed.read(f"{inside}#row=1") == b"two"
    assert allowed.read(f"{inside}#row=1&column=key") == b"1"
    assert allowed.check_root(f"{inside}#row=1&column=key") == f"{inside}#row=1&column=key"
    with pytest.raises(SourceNotAllowed):
        allowed.read(f"{outside}#row=1&column=text")
    for uri in (f"{inside}#row=1&column=gone", f"{inside}#row=2", f"{tmp_path}/in/none.csv#row=0"):
        with pytest.raises(SourceUnreadable):
            allowed.read(uri)

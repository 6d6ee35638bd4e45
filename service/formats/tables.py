"""Rows as tables: NDJSON, CSV and Parquet, written while they come and read while they are read."""

import csv
import io
import json
from collections.abc import Generator, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from service.content.lines import Lines, folded
from service.content.rows import open_parquet
from service.formats import NoRow, NumberedRow, Row, unreadable

_NUMBERS = ("revision", "duration_ms")
_JSON = ("annotation", "classes", "said")
_SAYS = {"class", "classes", "skip", "suggested_class", "suggested_classes"}
_PARQUET_ROWS = 5_000


def write_ndjson(schema: pa.Schema, tables: Iterator[list[Row]]) -> Iterator[bytes]:
    for rows in tables:
        lines = (json.dumps(row, default=_text, ensure_ascii=False) for row in rows)
        yield "".join(f"{line}\n" for line in lines).encode()


def write_csv(schema: pa.Schema, tables: Iterator[list[Row]]) -> Iterator[bytes]:
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, schema.names)
    writer.writeheader()
    for rows in tables:
        writer.writerows({name: _cell(value) for name, value in _flat(row, schema).items()} for row in rows)
        yield buffer.getvalue().encode()
        buffer.seek(0)
        buffer.truncate()
    yield buffer.getvalue().encode()


def write_parquet(schema: pa.Schema, tables: Iterator[list[Row]]) -> Iterator[bytes]:
    sink = Sink()
    with pq.ParquetWriter(pa.PythonFile(sink, "w"), schema) as writer:
        for rows in tables:
            writer.write_table(pa.Table.from_pylist([_flat(row, schema) for row in rows], schema))
            yield sink.taken()
    yield sink.taken()


def _flat(row: Row, schema: pa.Schema) -> Row:
    """The row as tables take it: an object or array in a column of strings as JSON."""
    strings = {field.name for field in schema if pa.types.is_string(field.type)}
    return {
        name: json.dumps(value, ensure_ascii=False)
        if isinstance(value, dict | list) and name in strings
        else value
        for name, value in row.items()
    }


def _cell(value: Any) -> Any:
    """A cell of CSV: a list, as of several classes, is JSON."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list) else _text(value)


def _text(value: Any) -> Any:
    return value.isoformat().replace("+00:00", "Z") if hasattr(value, "isoformat") else value


class Sink(io.RawIOBase):
    """A file that is taken away piece by piece while it is written."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._written = 0

    def writable(self) -> bool:
        return True

    def write(self, piece: Any) -> int:
        self._pieces.append(bytes(piece))
        self._written += len(piece)
        return len(piece)

    def tell(self) -> int:
        return self._written

    def taken(self) -> bytes:
        pieces, self._pieces = self._pieces, []
        return b"".join(pieces)


def of_line(number: int, line: bytes) -> NumberedRow:
    """One line of NDJSON."""
    try:
        return of_value(number, json.loads(line))
    except (ValueError, RecursionError) as error:
        return number, NoRow("line", f"this is no JSON: {error}")


def of_value(number: int, value: object) -> NumberedRow:
    if isinstance(value, dict):
        return number, value
    return number, NoRow("line", "this is no JSON object")


def read_lines(path: Path) -> Generator[NumberedRow]:
    """NDJSON, CSV or TSV, by the file's ending. Raises `SourceUnreadable`."""
    try:
        with closing(Lines(str(path.absolute()))) as lines:
            for _, line, row in lines.rows():
                if row and lines.header is not None:
                    yield line + lines.header_lines, _of_cells(row)
                elif row is not None:
                    yield of_value(line, dict(row) or None)
    except (UnicodeDecodeError, csv.Error) as error:
        raise unreadable(path, error) from error


def read_parquet(path: Path) -> Generator[NumberedRow]:
    """Raises `SourceUnreadable`."""
    number = 0
    try:
        for batch in open_parquet(str(path.absolute())).iter_batches(_PARQUET_ROWS):
            for row in batch.to_pylist():
                number += 1
                yield number, _of_cells(row)
    except pa.ArrowException as error:
        raise unreadable(path, error) from error


def _of_cells(row: Any) -> Row:
    """A table has every column in every row: an empty cell is one that is not there. An exported revision without a
    class and without a skip withdraws a label.
    """
    found = {folded(name): cell for name, cell in row.items() if cell not in (None, "") and cell == cell}
    for name in _NUMBERS:
        if name in found:
            found[name] = _whole(found[name])
    for name in _JSON:
        if isinstance(cell := found.get(name), str) and (name == "annotation" or cell.startswith("[")):
            with suppress(ValueError, RecursionError):  # what is no JSON is refused as what it is
                found[name] = json.loads(cell)
    if "revision" in found and not found.keys() & _SAYS:
        found["class"] = None
    return found


def _whole(cell: object) -> object:
    """The cell as a whole number where it is one: pandas writes 1.0 where another row has none."""
    try:
        number = float(cell)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return cell
    return int(number) if number.is_integer() else cell

"""Tables as streams: NDJSON, CSV or Parquet, by `Accept`. One page of rows is in memory at a time."""

import csv
import io
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import sqlalchemy as sa
from fastapi import Request
from fastapi.responses import StreamingResponse
from sqlalchemy.orm import Session

from service.errors import NotAcceptable
from service.store.session import read_session

Row = dict[str, Any]
NDJSON, CSV, PARQUET = "application/x-ndjson", "text/csv", "application/vnd.apache.parquet"
_SUFFIXES = {NDJSON: "ndjson", CSV: "csv", PARQUET: "parquet"}
SYNONYMS = {
    "application/parquet": PARQUET,
    "application/x-parquet": PARQUET,
    "application/jsonl": NDJSON,
    "application/json": NDJSON,
}
PAGE_ROWS = 5000


def accepted_format(request: Request, others: Sequence[str] = ()) -> str:
    """The first format of `Accept` that can be served, by its q values; NDJSON, or the first of `others`, where
    anything will do. Raises `NotAcceptable`."""
    accept = request.headers.get("accept", "*/*")
    known = [*others, *_SUFFIXES]
    wanted: list[tuple[float, str]] = []
    for part in accept.split(","):
        name, *parameters = (piece.strip().lower() for piece in part.split(";"))
        quality = next((each[2:] for each in parameters if each.startswith("q=")), "1")
        wanted.append(
            (-float(quality) if quality.isascii() and quality.replace(".", "", 1).isdigit() else 0.0, name)
        )
    for minus_quality, asked in sorted(wanted, key=lambda each: each[0]):
        name = asked if asked in known else SYNONYMS.get(asked, asked)
        if minus_quality < 0 and name in known:
            return name
        if minus_quality < 0 and name in ("*/*", "application/*"):
            return known[0]
    raise NotAcceptable(accept=accept, known=", ".join(known))


def pages(
    engine: sa.Engine, fetch: Callable[[Session, int, int], Sequence[tuple[int, Row]]]
) -> Iterator[list[Row]]:
    """All rows, a page at a time. Each page has a short transaction of its own, so that a slow reader holds none.

    fetch(session, after, limit) gives (position, row) pairs after position `after`.
    """
    after = 0
    while True:
        with read_session(engine) as session:
            found = fetch(session, after, PAGE_ROWS)
        if found:
            yield [row for _, row in found]
        if len(found) < PAGE_ROWS:
            return
        after = found[-1][0]


def streamed(name: str, media_type: str, schema: pa.Schema, tables: Iterator[list[Row]]) -> StreamingResponse:
    """`schema` names the columns of the rows, and their types where the format has some."""
    headers = {"Content-Disposition": f'attachment; filename="{name}.{_SUFFIXES[media_type]}"'}
    return StreamingResponse(encoded(media_type, schema, tables), media_type=media_type, headers=headers)


def encoded(media_type: str, schema: pa.Schema, tables: Iterator[list[Row]]) -> Iterator[bytes]:
    return {NDJSON: _ndjson, CSV: _csv, PARQUET: _parquet}[media_type](schema, tables)


def _ndjson(schema: pa.Schema, tables: Iterator[list[Row]]) -> Iterator[bytes]:
    for rows in tables:
        lines = (json.dumps(row, default=_text, ensure_ascii=False) for row in rows)
        yield "".join(f"{line}\n" for line in lines).encode()


def _csv(schema: pa.Schema, tables: Iterator[list[Row]]) -> Iterator[bytes]:
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, schema.names)
    writer.writeheader()
    for rows in tables:
        writer.writerows({name: _text(value) for name, value in _flat(row, schema).items()} for row in rows)
        yield buffer.getvalue().encode()
        buffer.seek(0)
        buffer.truncate()
    yield buffer.getvalue().encode()


def _parquet(schema: pa.Schema, tables: Iterator[list[Row]]) -> Iterator[bytes]:
    sink = _Sink()
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


def _text(value: Any) -> Any:
    return value.isoformat().replace("+00:00", "Z") if hasattr(value, "isoformat") else value


class _Sink(io.RawIOBase):
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

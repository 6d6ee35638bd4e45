"""Tables as streams: NDJSON, CSV or Parquet, by `Accept`. One page of rows is in memory at a time."""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pyarrow as pa
import sqlalchemy as sa
from fastapi import Request
from fastapi.responses import StreamingResponse
from sqlalchemy.orm import Session

from service.errors import NotAcceptable
from service.formats import Format, Labels
from service.formats.tables import write_csv, write_ndjson, write_parquet
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
_IN_MEMORY_BYTES = 8 * 2**20
_PIECE_BYTES = 2**18


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


def file_response(name: str, chosen: Format, labels: Labels) -> StreamingResponse:
    """A file in a format. One that is no table is written to the disk first, unless it may be as large as the pool: so
    a header can tell what the format has no place for."""
    headers = {"Content-Disposition": f'attachment; filename="{name}{chosen.endings[0]}"'}
    pieces = chosen.write(labels)
    if not chosen.table and not chosen.streams:
        pieces = _kept(pieces)
        if labels.left_out:
            headers["Shortlist-Left-Out"] = " ".join(labels.notes).encode("ascii", "replace").decode()
    return StreamingResponse(pieces, media_type=chosen.media_type, headers=headers)


def _kept(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """The same pieces, made before the first one is asked for."""
    file = tempfile.SpooledTemporaryFile(_IN_MEMORY_BYTES)  # noqa: SIM115, it is closed once it is sent
    try:
        file.writelines(pieces)
    except BaseException:
        file.close()
        raise
    file.seek(0)

    def again() -> Iterator[bytes]:
        with file:
            while piece := file.read(_PIECE_BYTES):
                yield piece

    return again()


def encoded(media_type: str, schema: pa.Schema, tables: Iterator[list[Row]]) -> Iterator[bytes]:
    return {NDJSON: write_ndjson, CSV: write_csv, PARQUET: write_parquet}[media_type](schema, tables)

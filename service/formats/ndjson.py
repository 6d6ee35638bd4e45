"""NDJSON (JSONL): one object a line."""

from collections.abc import Generator, Iterator
from pathlib import Path

from service.formats import Format, Labels, NumberedRow
from service.formats.tables import read_lines, write_ndjson


class Ndjson(Format):
    """Every label with all its columns, one JSON object a line, of any number."""

    name = "ndjson"
    endings = (".ndjson", ".jsonl")
    media_type = "application/x-ndjson"
    table = True

    def read(self, path: Path) -> Generator[NumberedRow]:
        yield from read_lines(path)

    def write(self, labels: Labels) -> Iterator[bytes]:
        return write_ndjson(labels.schema, labels.pages)


FORMAT = Ndjson()

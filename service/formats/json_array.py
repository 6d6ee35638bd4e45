"""A JSON array of labels."""

from collections.abc import Generator, Iterator
from pathlib import Path

from service.formats import Format, Labels, NumberedRow, unreadable
from service.formats.json_files import load
from service.formats.tables import of_value, write_ndjson


class JsonArray(Format):
    """Every label with all its columns in one array; an object with `labels`, as `POST …/labels` takes it, is read,
    too."""

    name = "json"
    endings = (".json",)
    media_type = "application/json"
    table = True
    generic = True

    def read(self, path: Path) -> Generator[NumberedRow]:
        found = load(path)
        rows = found.get("labels") if isinstance(found, dict) else found
        if not isinstance(rows, list):
            raise unreadable(path, "this is neither an array of labels nor an object with `labels`")
        for number, row in enumerate(rows, 1):
            yield of_value(number, row)

    def write(self, labels: Labels) -> Iterator[bytes]:
        yield b"["
        before = b"\n"
        for page in labels.pages:
            for line in b"".join(write_ndjson(labels.schema, iter([page]))).splitlines():
                yield before + line
                before = b",\n"
        yield b"\n]\n"


FORMAT = JsonArray()

"""CSV, for spreadsheets and scripts."""

from collections.abc import Generator, Iterator
from pathlib import Path

from service.formats import Format, Labels, NumberedRow
from service.formats.tables import read_lines, write_csv


class CsvTable(Format):
    """Every label with all its columns; an annotation is a cell of JSON. Tabs are read, too."""

    name = "csv"
    endings = (".csv", ".tsv")
    media_type = "text/csv"
    table = True

    def read(self, path: Path) -> Generator[NumberedRow]:
        yield from read_lines(path)

    def write(self, labels: Labels) -> Iterator[bytes]:
        return write_csv(labels.schema, labels.pages)


FORMAT = CsvTable()

"""Parquet, for data frames."""

from collections.abc import Generator, Iterator
from pathlib import Path

from service.formats import Format, Labels, NumberedRow
from service.formats.tables import read_parquet, write_parquet


class Parquet(Format):
    """Every label with all its columns and their types; an annotation is JSON in a column of strings."""

    name = "parquet"
    endings = (".parquet", ".pq")
    media_type = "application/vnd.apache.parquet"
    table = True

    def read(self, path: Path) -> Generator[NumberedRow]:
        yield from read_parquet(path)

    def write(self, labels: Labels) -> Iterator[bytes]:
        return write_parquet(labels.schema, labels.pages)


FORMAT = Parquet()

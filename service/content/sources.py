"""A source, one candidate at a time: folder, manifest or Parquet file; local or by fsspec URL."""

import csv
import os
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any

import fsspec.core
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from service.content import contents
from service.content.contract import Content
from service.content.lines import ENDINGS, Lines, Row, text_bytes
from service.content.reader import ItemBytes, filesystem_of, is_url, row_uri
from service.content.row_keys import ContentKeys
from service.content.rows import cell_bytes, item_column, named_column, open_parquet, usable_columns
from service.errors import SourceUnreachable, SourceUnreadable

PARQUET = (".parquet", ".pq")
_PLACES = ("uri", "path")  # columns that say where a file is
_REFUSALS_TOLD = 20
_PARQUET_ROWS = 256  # read at a time, items included
_ROWS_LOOKED_AT = 1_000  # that tell what a manifest names


@dataclass(frozen=True)
class Candidate:
    """A file or row that may become an item. `data` is at hand where the listing had to read it anyway."""

    key: str
    uri: str
    class_name: str | None
    data: bytes | None = None
    has_own_key: bool = False  # the source gave it; else it is made of the path


class Listing(ABC):
    """Iterating streams the candidates in a fixed order; the counts are complete when it has ended. Raises
    `SourceUnreadable`, and `SourceUnreachable`, one of these, for a transient I/O error.

    content: of the items that are listed; None until `tell` was asked for it.
    """

    def __init__(self, uri: str, label_column: str | None, content: Content | None) -> None:
        self.uri = uri
        self.label_column = label_column
        self.content = content
        self.told = False  # by the source itself
        self.complete = True  # False: some folders could not be listed, and nobody knows what is in them
        self.ignored = 0  # files that are no such items
        self.refused = 0  # rows, files and folders that could not be taken …
        self.refusals: list[str] = []  # … and a sentence for the first of them

    def tell(self) -> Content | None:
        """Fix the content by what most of the source is; None where nothing in it is an item of any kind."""
        self.content, self.told = self._told(), True
        return self.content

    def refuse(self, sentence: str) -> None:
        self.refused += 1
        if len(self.refusals) < _REFUSALS_TOLD:
            self.refusals.append(sentence)

    @abstractmethod
    def __iter__(self) -> Iterator[Candidate]: ...

    @abstractmethod
    def _told(self) -> Content | None: ...

    def total(self) -> int | None:
        """The number of candidates, where it is cheap to know."""
        return None

    def _wanted(self) -> Content:
        if self.content is None:
            raise ValueError("nothing says which items are wanted: ask `tell`")
        return self.content


def content_of_most(names: Iterable[str]) -> Content | None:
    """By the endings of files; None where no ending is known."""
    found: Counter[str] = Counter()
    for name in names:
        content = _content_of(name)
        if content is not None:
            found[content.name] += 1
    known = contents()
    return max(
        (known[name] for name in known if name in found), key=lambda one: found[one.name], default=None
    )


def _content_of(name: str) -> Content | None:
    suffix = _suffix(name)
    return next((content for content in contents().values() if suffix in content.suffixes), None)


def _suffix(name: str) -> str:
    return PurePosixPath(name).suffix.lower()


def list_source(
    uri: str, item_bytes: ItemBytes, label_column: str | None, content: Content | None
) -> Listing:
    """content: of the items that are wanted; None where the source is to tell. Raises `SourceNotAllowed`,
    `SourceUnreadable` when there is nothing that can be imported, and `SourceUnreachable`, one of these, when that may
    pass.
    """
    place = item_bytes.check_root(uri)
    try:
        filesystem, path = filesystem_of(place)
        filesystem.invalidate_cache()  # it may have kept its listings since an earlier import in this process
        if filesystem.isdir(path):
            return (RemoteFolder if is_url(place) else LocalFolder)(place, label_column, content)
        if not filesystem.exists(path):
            filesystem.info(path)  # raises what was the matter; `exists` takes it for a no
    except FileNotFoundError as error:
        raise SourceUnreadable(uri=uri, reason="there is no such file or folder") from error
    except (ValueError, ImportError) as error:
        raise SourceUnreadable(uri=uri, reason=str(error)) from error
    except Exception as error:  # each file system has its client's own classes
        raise _unreachable(uri, error) from error
    suffix = _suffix(place)
    if suffix in PARQUET:
        return ParquetFile(place, label_column, content)
    if suffix in ENDINGS:
        return Manifest(place, label_column, content)
    known = ", ".join(ENDINGS + PARQUET)
    raise SourceUnreadable(uri=uri, reason=f"a source is a folder of items, or a file that ends in {known}")


def _unreachable(uri: str, error: Exception) -> SourceUnreachable:
    return SourceUnreachable(uri=uri, reason=(str(error) or type(error).__name__).rstrip("."))


def _class_folder(key: str) -> str | None:
    """The first subfolder: in a `test` split it is the class."""
    return key.split("/", 1)[0] if "/" in key else None


class _Folder(Listing):
    """All files of the content below a folder; the key is the path below it. Names that begin with a dot are left
    out.
    """

    def __iter__(self) -> Iterator[Candidate]:
        self.ignored = self.refused = 0
        self.refusals.clear()
        self.complete = True
        content = self._wanted()
        for key, place in self._files():
            name = PurePosixPath(key).name
            if not name.startswith(".") and _suffix(name) in content.suffixes:
                yield Candidate(key, place, _class_folder(key))
            elif self.told and not name.startswith(".") and (other := _content_of(name)) is not None:
                self.refuse(
                    f"{key!r} is no {content.name} but a file of {' or '.join(other.formats)}, and most files here are "
                    f"{content.name}s, so they are what this project labels. Import {other.name}s into another "
                    f'project; or, before there are items, say "modality": "{other.name}" (PATCH /projects/…).'
                )
            else:
                self.ignored += 1

    def _told(self) -> Content | None:
        names = (PurePosixPath(key).name for key, _ in self._files())
        return content_of_most(name for name in names if not name.startswith("."))

    @abstractmethod
    def _files(self) -> Iterator[tuple[str, str]]:
        """Every file as (path below the folder, place), in a fixed order."""


class LocalFolder(_Folder):
    """On a disk."""

    def _files(self) -> Iterator[tuple[str, str]]:
        for folder, subfolders, names in os.walk(self.uri, onerror=self._note):
            subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
            for name in sorted(names):
                path = Path(folder, name)
                yield path.relative_to(self.uri).as_posix(), str(path)

    def total(self) -> int:
        return sum(1 for _ in self)

    def _note(self, error: OSError) -> None:
        self.complete = False
        self.refuse(f"The folder {error.filename!r} cannot be read: {error.strerror}.")


class RemoteFolder(_Folder):
    """In a bucket."""

    def _files(self) -> Iterator[tuple[str, str]]:
        filesystem, root = fsspec.core.url_to_fs(self.uri)
        for folder, subfolders, names in self._walk(filesystem, root):
            subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
            for name in sorted(names):
                path = f"{folder.rstrip('/')}/{name}"
                key = path.removeprefix(root.rstrip("/")).lstrip("/")
                yield key, f"{self.uri}/{key}"

    def _walk(self, filesystem: Any, root: str) -> Iterator[tuple[str, list[str], list[str]]]:
        try:
            yield from filesystem.walk(root, on_error="raise")
        except Exception as error:  # each file system has its client's own classes
            raise _unreachable(self.uri, error) from error


class Manifest(Listing):
    """JSONL, CSV or TSV, maybe with `key`. A column `uri` or `path` says where the items are (absolute or relative to
    the manifest); for what is no bytes, a column may hold the items themselves.
    """

    def __iter__(self) -> Iterator[Candidate]:
        column = self._item_column()
        self._keys = ContentKeys()
        for number, line, row in self._rows():
            yield from self._place(line, row) if column is None else self._cell(number, line, row, column)

    def names_places(self) -> bool:
        """True if it names the items' places and does not hold the items."""
        return self._names_places(self.content or self._told())

    def _told(self) -> Content | None:
        """By the files that it names; else by its columns."""
        named = content_of_most(
            place for _, _, row in islice(self._rows(), _ROWS_LOOKED_AT) if (place := _place(row))
        )
        if named is not None:
            return named
        columns = self._columns()
        for content in contents().values():
            if not content.binary and not set(content.columns).isdisjoint(columns):
                return content
        return None if set(_PLACES).isdisjoint(columns) else next(iter(contents().values()))

    def _item_column(self) -> str | None:
        """The column with the items themselves; None where one says where they are. Raises `ColumnMissing`."""
        content = self._wanted()
        if content.binary or self._names_places(content):
            return None
        columns = self._columns()
        return named_column(columns, columns, self.uri, content)

    def _names_places(self, content: Content | None) -> bool:
        columns = self._columns()
        if set(_PLACES).isdisjoint(columns):
            return False
        if content is None or content.binary or set(content.columns).isdisjoint(columns):
            return True
        places = (place for _, _, row in islice(self._rows(), _ROWS_LOOKED_AT) if (place := _place(row)))
        return content_of_most(places) is not None

    def _columns(self) -> list[str]:
        """The column names: a CSV file's header, or the keys of the first JSONL objects."""
        with self._open() as (lines, _):
            if lines.header is not None:
                return lines.header
        rows = (row for _, _, row in islice(self._rows(), _ROWS_LOOKED_AT) if row)
        return list(dict.fromkeys(name for row in rows for name in row))

    def _place(self, line: int, row: Row) -> Iterator[Candidate]:
        folder = self.uri.rpartition("/")[0]
        place = _place(row)
        if place is None:
            return self.refuse(f"Line {line}: there is no `uri` or `path`.")
        absolute = is_url(place) or Path(place).is_absolute()
        uri = place if absolute else f"{folder}/{PurePosixPath(place)}"
        yield self._candidate(row, uri.removeprefix(f"{folder}/"), uri)

    def _cell(self, number: int, line: int, row: Row, column: str) -> Iterator[Candidate]:
        data = text_bytes(row.get(column))
        if data is None:
            return self.refuse(f"Line {line}: there is no text in `{column}`.")
        yield self._candidate(row, None, row_uri(self.uri, number, column), data)

    def _candidate(self, row: Row, key: str | None, uri: str, data: bytes | None = None) -> Candidate:
        """Without a key of its own, `key`; where that is None, a key by its content."""
        own_key = row.get("key")
        if own_key in (None, "") and key is None:
            key = self._keys.key(data or b"")
        class_name = row.get(self.label_column) if self.label_column else None
        return Candidate(
            str(own_key) if own_key not in (None, "") else str(key),
            uri,
            str(class_name) if class_name not in (None, "") else None,
            data,
            has_own_key=own_key not in (None, ""),
        )

    def _rows(self) -> Iterator[tuple[int, int, Row]]:
        """(number from 0, number of its last line, row)."""
        self.refused = 0
        self.refusals.clear()
        with self._open() as (lines, offset):
            for number, (_, line, row) in enumerate(lines.rows()):
                if row:
                    yield number, line + offset, row
                elif row is not None and lines.header is None:
                    self.refuse(f"Line {line}: this is not a JSON object, or an empty one.")

    @contextmanager
    def _open(self) -> Iterator[tuple[Lines, int]]:
        """With the number of lines that the header takes."""
        try:
            lines = Lines(self.uri)
            try:
                yield lines, lines.header_lines
            finally:
                lines.close()
        except (UnicodeDecodeError, csv.Error) as error:
            raise SourceUnreadable(uri=self.uri, reason=str(error)) from error
        except OSError as error:
            raise _unreachable(self.uri, error) from error


def _place(row: Row) -> str | None:
    place = row.get("uri") or row.get("path")
    return place if isinstance(place, str) and place else None


class ParquetFile(Listing):
    """A column of items, as bytes or strings, perhaps `key`. Without one the key is the `path` of a struct with bytes
    and path, as Hugging Face writes them, where all are different; else it comes from the content.
    """

    def __iter__(self) -> Iterator[Candidate]:
        file = open_parquet(self.uri)
        names = set(file.schema_arrow.names)
        content = self._wanted()
        column = item_column(file.schema_arrow, self.uri, content)
        in_uri = None if content.binary else column
        if self.label_column and self.label_column not in names:
            raise SourceUnreadable(uri=self.uri, reason=f"it has no column {self.label_column!r}")
        wanted = [name for name in ("key", self.label_column) if name is not None and name in names]
        number, content_keys = 0, ContentKeys()
        by_path = self._names_items(file, column)
        for batch in self._batches(file, [column, *wanted]):
            others = {name: batch.column(name).to_pylist() for name in wanted}
            cells = batch.column(column)
            paths = pc.struct_field(cells, "path").to_pylist() if by_path else None
            for row, cell in enumerate(cell_bytes(cells)):
                data = cell.as_py() or b""
                key = others["key"][row] if "key" in others else None
                own = key not in (None, "")
                if not own:
                    key = paths[row] if paths is not None else content_keys.key(data)
                class_name = others[self.label_column][row] if self.label_column else None
                yield Candidate(
                    str(key),
                    row_uri(self.uri, number, in_uri),
                    str(class_name) if class_name is not None else None,
                    data,
                    has_own_key=own,
                )
                number += 1

    def _told(self) -> Content | None:
        """By the names of its columns; a column of bytes under another name is one of images."""
        schema = open_parquet(self.uri).schema_arrow
        kinds = list(contents().values())
        for content in kinds:
            if not set(content.columns).isdisjoint(usable_columns(schema, content)):
                return content
        return next(
            (content for content in kinds if content.binary and usable_columns(schema, content)), None
        )

    def _names_items(self, file: pq.ParquetFile, column: str) -> bool:
        """True if the column's structs have a path each, and no two the same."""
        kind = file.schema_arrow.field(column).type
        if not pa.types.is_struct(kind) or all(field.name != "path" for field in kind):
            return False
        seen: set[int] = set()
        for batch in self._batches(file, [f"{column}.path"]):
            for path in pc.struct_field(batch.column(0), "path").to_pylist():
                if not isinstance(path, str) or not path or hash(path) in seen:
                    return False
                seen.add(hash(path))
        return True

    def _batches(self, file: pq.ParquetFile, columns: list[str]) -> Iterator[pa.RecordBatch]:
        try:
            yield from file.iter_batches(batch_size=_PARQUET_ROWS, columns=columns)
        except ValueError as error:  # ArrowInvalid
            raise SourceUnreadable(uri=self.uri, reason=str(error)) from error
        except OSError as error:
            raise _unreachable(self.uri, error) from error

    def total(self) -> int:
        return int(open_parquet(self.uri).metadata.num_rows)

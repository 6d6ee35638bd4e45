"""Items in Parquet: which column holds them, and reading them by row.

A row group is read whole and kept in memory, unless it is large: see `_LargeGroup`.
"""

import bisect
import json
import os
import tempfile
import threading
import weakref
from array import array
from collections import OrderedDict
from collections.abc import Collection, Sequence
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any, Protocol

import fsspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from service.content.contract import Content
from service.content.image import CONTENT as IMAGES
from service.content.lines import check_file, same_name, stamp_of_file
from service.errors import ColumnMissing, NoItemColumn, SourceUnreadable

_OPEN_FILES = 8
_ROW_GROUPS = 8
_ROW_GROUP_BYTES = 256 * 2**20  # of all that are kept; the last one is, whatever its size
_LARGE_BYTES = 128 * 2**20  # of a row group's cells, from which on it is not held in memory
_LARGE_GROUPS = 4  # kept on the disk
_SLICE_BYTES = 8 * 2**20  # of a large row group that are in memory
_READ_BYTES = 2**20  # of a file at a time: else a row group's whole column, as it is stored, is in memory


def open_parquet(uri: str) -> pq.ParquetFile:
    """Raises `SourceUnreadable`."""
    try:
        if os.path.isabs(uri):  # what stands in its name means nothing but itself
            check_file(uri)
            file = pa.OSFile(os.fsencode(uri))  # by Arrow itself, as long as anything of it is used
        else:
            file = fsspec.open(uri, "rb").open()
        return pq.ParquetFile(file, buffer_size=_READ_BYTES, pre_buffer=False)
    except (OSError, ValueError, ImportError) as error:  # ArrowInvalid is a ValueError
        raise SourceUnreadable(uri=uri, reason=str(error) or type(error).__name__) from error


def _holds_bytes(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return any(field.name == "bytes" and _holds_bytes(field.type) for field in kind)
    if pa.types.is_dictionary(kind):
        return _holds_bytes(kind.value_type)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))


def _holds_strings(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        return _holds_strings(kind.value_type)
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def usable_columns(schema: pa.Schema, content: Content) -> list[str]:
    """By their type."""
    holds = _holds_bytes if content.binary else _holds_strings
    return [field.name for field in schema if holds(field.type)]


def item_column(schema: pa.Schema, uri: str, content: Content) -> str:
    """The one that holds the items themselves. Raises `NoItemColumn`, `ColumnMissing`."""
    usable = usable_columns(schema, content)
    there = [f"{field.name!r} ({field.type})" for field in schema]
    if not content.binary:
        return named_column(usable, there, uri, content)
    named = likeliest(usable, content)
    if named is None and len(usable) != 1:
        raise NoItemColumn(
            uri=uri, kind=content.name, columns=", ".join(there) or "none", known=content.columns[0]
        )
    return named or usable[0]


def likeliest(usable: Collection[str], content: Content) -> str | None:
    """The first of the content's columns that is there, in any case."""
    found = (same_name(name, usable) for name in content.columns)
    return next((name for name in found if name is not None), None)


def named_column(usable: Collection[str], there: Sequence[str], uri: str, content: Content) -> str:
    """The likeliest of the content's columns; `there`: all columns, as people are told. Raises `ColumnMissing`."""
    named = likeliest(usable, content)
    if named is None:
        raise ColumnMissing(
            uri=uri,
            kind=content.name,
            columns=", ".join(there) or "none",
            known=", ".join(f"`{name}`" for name in content.columns),
        )
    return named


def cell_bytes(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """The column's bytes themselves, whatever type of Arrow's holds them: structs, dictionaries, views, strings."""
    if pa.types.is_struct(column.type):
        return cell_bytes(pc.struct_field(column, "bytes"))
    if pa.types.is_dictionary(column.type):
        return cell_bytes(column.cast(column.type.value_type))
    return column if pa.types.is_binary(column.type) else column.cast(pa.large_binary())


def only_paths(column: pa.ChunkedArray) -> dict[int, str]:
    """By row: the path in a struct that has no bytes. So Hugging Face's datasets name files that lie elsewhere."""
    if not pa.types.is_struct(column.type) or column.type.get_field_index("path") < 0:
        return {}
    without = pc.is_null(cell_bytes(column))
    paths = pc.struct_field(column, "path")
    return {
        row: str(paths[row].as_py()) for row in pc.indices_nonzero(without).to_pylist() if paths[row].as_py()
    }


def class_names(schema: pa.Schema, column: str) -> list[str] | None:
    """The names that the numbers in a column stand for, as Hugging Face's `ClassLabel` keeps them; None without."""
    try:
        metadata = json.loads((schema.metadata or {}).get(b"huggingface", b"null"))
        feature = metadata["info"]["features"][column]
        names = feature.get("feature", feature)["names"]  # of a list of classes, what its elements are
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
    return names if isinstance(names, list) and all(isinstance(name, str) for name in names) else None


class RowWithoutBytes(ValueError):
    """A row names a file and does not hold it."""

    def __init__(self, path: str) -> None:
        super().__init__(
            f"the row has no bytes, only the path {path!r}: write the table with the files' bytes in it, or import "
            "the folder of the files, or a manifest with their paths"
        )


class _File:
    def __init__(self, uri: str, column: str | None) -> None:
        self.stamp = _stamp(uri)  # before it is opened: what is replaced in between is read anew
        self.parquet = open_parquet(uri)
        metadata = self.parquet.metadata
        self.ends = list(accumulate(metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)))
        self.column = column or item_column(self.parquet.schema_arrow, uri, IMAGES)
        if self.column not in self.parquet.schema_arrow.names:
            raise SourceUnreadable(uri=uri, reason=f"it has no column {self.column!r}")
        paths = (f"{self.parquet.schema.column(number).path}." for number in range(metadata.num_columns))
        self._leaves = [
            number for number, path in enumerate(paths) if path.startswith(f"{self.column}.")
        ]  # of a struct there are several

    def bytes_of(self, group: int) -> int:
        """Bytes of memory that the cells of a row group take."""
        metadata = self.parquet.metadata.row_group(group)
        return sum(metadata.column(leaf).total_uncompressed_size for leaf in self._leaves)


_Column = tuple[str, str | None]  # of a file: its place and the column's name, None for that with images


class _Group(Protocol):
    def cell(self, row: int) -> bytes:
        """In row `row` of the group. Raises `OSError`, `ValueError` and `IndexError`, as Arrow does."""
        ...


class _SmallGroup:
    """In memory."""

    def __init__(self, file: _File, group: int) -> None:
        table = file.parquet.read_row_group(group, columns=[file.column])
        self._cells = cell_bytes(table[file.column])
        self._only_paths = only_paths(table[file.column])
        self.nbytes: int = self._cells.nbytes

    def cell(self, row: int) -> bytes:
        if row in self._only_paths:
            raise RowWithoutBytes(self._only_paths[row])
        return self._cells[row].as_py() or b""


class _LargeGroup:
    """On the disk, in a file without a name, as far as rows were asked for.

    Parquet cannot be read from the middle of a row group. So it is read once, from its beginning on and a slice at a
    time, whatever the order of the rows and the number of threads that ask for them.
    """

    def __init__(self, file: _File, group: int, folder: Path) -> None:
        rows = file.parquet.metadata.row_group(group).num_rows
        slice_rows = max(1, rows * _SLICE_BYTES // file.bytes_of(group))
        self._slices = file.parquet.iter_batches(slice_rows, [group], [file.column])
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115
        weakref.finalize(self, self._file.close)
        self._ends = array("q", [0])
        self._only_paths: dict[int, str] = {}

    def cell(self, row: int) -> bytes:
        while row + 1 >= len(self._ends):
            rows = next(self._slices, None)
            if rows is None:
                raise IndexError("a row group ends before its last row")
            self._store(rows)
        if row in self._only_paths:
            raise RowWithoutBytes(self._only_paths[row])
        start, end = self._ends[row : row + 2]
        return os.pread(self._file.fileno(), end - start, start)

    def _store(self, rows: pa.RecordBatch) -> None:
        cells = [cell.as_py() or b"" for cell in cell_bytes(rows.column(0))]
        left = memoryview(b"".join(cells))
        try:
            while left:
                left = left[self._file.write(left) :]
        except OSError as error:
            reason = f"a large row group cannot be unpacked in {str(self._folder)!r}: {error.strerror}"
            raise OSError(error.errno, reason) from error
        first = len(self._ends) - 1
        self._only_paths |= {first + row: path for row, path in only_paths(rows.column(0)).items()}
        self._ends.extend(list(accumulate(map(len, cells), initial=self._ends[-1]))[1:])


class ParquetRows:
    """Reads single rows; the last files stay open, and the last row groups in memory or, where they are large, in
    `folder`. Thread-safe.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: OrderedDict[_Column, _File] = OrderedDict()
        self._small: OrderedDict[tuple[_Column, int], _SmallGroup] = OrderedDict()
        self._large: OrderedDict[tuple[_Column, int], _LargeGroup] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, uri: str, row: int, column: str | None = None) -> bytes:
        """The cell in row `row`, from 0; without `column`, of the one with images. A null is empty bytes. Raises
        `SourceUnreadable`.
        """
        with self._lock:
            key = uri, column
            self._forget_if_changed(key)
            file = _recent(self._files, key, _OPEN_FILES, lambda: _File(uri, column))
            group = bisect.bisect_right(file.ends, row)
            if group == len(file.ends):
                raise SourceUnreadable(uri=uri, reason=f"it has no row {row}")
            start = file.ends[group - 1] if group else 0
            try:
                return self._group(key, file, group).cell(row - start)
            except RowWithoutBytes as error:
                raise SourceUnreadable(uri=uri, reason=str(error)) from None
            except (OSError, ValueError, IndexError, NotImplementedError) as error:
                self._large.pop((key, group), None)  # what has failed to read on would only go on to fail
                raise SourceUnreadable(uri=uri, reason=str(error)) from error

    def forget(self, uri: str) -> None:
        """Read the file anew: it holds other bytes than were expected."""
        with self._lock:
            for key in [key for key in self._files if key[0] == uri]:
                self._drop(key)

    def _forget_if_changed(self, of: _Column) -> None:
        """A file that grew or was replaced is read anew, where that is cheap to know."""
        if of in self._files and self._files[of].stamp != _stamp(of[0]):
            self._drop(of)

    def _drop(self, of: _Column) -> None:
        del self._files[of]
        for groups in (self._small, self._large):
            for key in [key for key in groups if key[0] == of]:
                del groups[key]

    def _group(self, of: _Column, file: _File, group: int) -> _Group:
        key = of, group
        if file.bytes_of(group) > _LARGE_BYTES:
            make = partial(_LargeGroup, file, group, self._folder)
            large: _LargeGroup = _recent(self._large, key, _LARGE_GROUPS, make)
            return large
        small: _SmallGroup = _recent(self._small, key, _ROW_GROUPS, partial(_SmallGroup, file, group))
        while len(self._small) > 1 and sum(one.nbytes for one in self._small.values()) > _ROW_GROUP_BYTES:
            self._small.popitem(last=False)
        return small


def _stamp(uri: str) -> object:
    """Raises `SourceUnreadable`."""
    try:
        return stamp_of_file(uri)
    except OSError as error:
        raise SourceUnreadable(uri=uri, reason=str(error)) from error


def _recent(cache: OrderedDict[Any, Any], key: Any, size: int, make: Any) -> Any:
    """`cache[key]`, made when missing; the least recently used beyond `size` is dropped."""
    if key not in cache:
        cache[key] = make()
        if len(cache) > size:
            cache.popitem(last=False)
    cache.move_to_end(key)
    return cache[key]

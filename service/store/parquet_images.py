"""Images in Parquet: which column holds them, and reading them by row."""

import bisect
import threading
from collections import OrderedDict
from itertools import accumulate
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from service.errors import ParquetWithoutImages, SourceUnreadable

_OPEN_FILES = 8
_ROW_GROUPS = 8
_ROW_GROUP_BYTES = 256 * 2**20  # of all that are kept; the last one is, whatever its size


def open_parquet(uri: str) -> pq.ParquetFile:
    """Raises `SourceUnreadable`."""
    try:
        return pq.ParquetFile(fsspec.open(uri, "rb").open())
    except (OSError, ValueError, ImportError) as error:  # ArrowInvalid is a ValueError
        raise SourceUnreadable(uri=uri, reason=str(error) or type(error).__name__) from error


def _holds_bytes(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return any(field.name == "bytes" and _holds_bytes(field.type) for field in kind)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def image_column(schema: pa.Schema, uri: str) -> str:
    """`image` or `img`, else the only column of bytes or of structs with `bytes`."""
    columns = [field.name for field in schema if _holds_bytes(field.type)]
    for name in ("image", "img"):
        if name in columns:
            return name
    if len(columns) != 1:
        raise ParquetWithoutImages(uri=uri)
    return str(columns[0])


def image_bytes(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """The column's bytes themselves, where it is of structs."""
    return pc.struct_field(column, "bytes") if pa.types.is_struct(column.type) else column


class _File:
    def __init__(self, uri: str) -> None:
        self.parquet = open_parquet(uri)
        metadata = self.parquet.metadata
        self.ends = list(accumulate(metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)))
        self.column = image_column(self.parquet.schema_arrow, uri)


class ParquetImages:
    """Reads single rows; the last files stay open and the last row groups in memory. Thread-safe."""

    def __init__(self) -> None:
        self._files: OrderedDict[str, _File] = OrderedDict()
        self._groups: OrderedDict[tuple[str, int], pa.ChunkedArray] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, uri: str, row: int) -> bytes:
        """The image in row `row`, from 0. A null is empty bytes. Raises `SourceUnreadable`."""
        with self._lock:
            file = _recent(self._files, uri, _OPEN_FILES, lambda: _File(uri))
            group = bisect.bisect_right(file.ends, row)
            if group == len(file.ends):
                raise SourceUnreadable(uri=uri, reason=f"it has no row {row}")
            column = _recent(self._groups, (uri, group), _ROW_GROUPS, lambda: _read_group(uri, file, group))
            while len(self._groups) > 1 and self._kept_bytes() > _ROW_GROUP_BYTES:
                self._groups.popitem(last=False)
            start = file.ends[group - 1] if group else 0
        return column[row - start].as_py() or b""

    def _kept_bytes(self) -> int:
        return sum(column.nbytes for column in self._groups.values())


def _read_group(uri: str, file: _File, group: int) -> pa.ChunkedArray:
    try:
        return image_bytes(file.parquet.read_row_group(group, columns=[file.column])[file.column])
    except (OSError, ValueError) as error:
        raise SourceUnreadable(uri=uri, reason=str(error)) from error


def _recent(cache: OrderedDict[Any, Any], key: Any, size: int, make: Any) -> Any:
    """`cache[key]`, made when missing; the least recently used beyond `size` is dropped."""
    if key not in cache:
        cache[key] = make()
        if len(cache) > size:
            cache.popitem(last=False)
    cache.move_to_end(key)
    return cache[key]

"""CSV, TSV and JSONL files: their rows one after the other, and single rows by number.

A row is a record: what stands in quotes may go over several lines. Rows count from 0, without the header.
"""

import codecs
import csv
import json
import os
import re
import stat
import tempfile
import threading
import weakref
from array import array
from bisect import bisect_right
from codecs import BOM_UTF8
from collections import OrderedDict
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from typing import IO, Any

import fsspec

from service.errors import SourceUnreadable

ENDINGS = (".jsonl", ".ndjson", ".csv", ".tsv")
_BLOCK_ROWS = 64  # that are read together: where each block begins is kept, not where each row does
_BLOCK_BYTES = 64 * 2**10  # … or fewer rows that are so long
_BLOCKS = 64  # kept in memory
_OPEN_FILES = 8
# The csv module's own limit is 128 KiB. This one keeps a quote that is never closed from taking all the memory.
csv.field_size_limit(64 * 2**20)
_DELIMITERS = ",;\t|"
_QUOTED = re.compile(r'"[^"]*"')
_COPY_BYTES = 8 * 2**20  # of a file in UTF-16: its copy in UTF-8 is in memory up to this size

Row = Mapping[str, Any]


class NoFile(OSError):
    """A place holds something else than a file, as a named pipe or a device."""


class TooLarge(ValueError):
    """An item has more bytes than the operator allows."""

    def __init__(self, size: int, largest: int) -> None:
        super().__init__(f"{size:,} bytes are more than {largest:,} allowed (SHORTLIST_MAX_ITEM_BYTES)")


def open_binary(uri: str) -> IO[bytes]:
    """A path or a URL. Raises `OSError`, as `check_file` does."""
    if os.path.isabs(uri):
        check_file(uri)
        return open(uri, "rb")
    file: IO[bytes] = fsspec.open(uri, "rb").open()
    return file


def check_file(path: str) -> None:
    """Raises `OSError`: `NoFile` for a pipe or a device, as whoever opens a pipe waits for its writer."""
    mode = os.stat(path).st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise NoFile(f"it is {kind_of(mode)} and no file")


def kind_of(mode: int) -> str:
    """The kind of what is no file, by its mode, for sentences."""
    if stat.S_ISFIFO(mode):
        return "a named pipe"
    return "a socket" if stat.S_ISSOCK(mode) else "a device"


def folded(name: str) -> str:
    """The name of a column as names are compared: whatever its case."""
    return name.strip().casefold()


def same_name(wanted: str, names: Iterable[str]) -> str | None:
    """The one of `names` that is `wanted`, in any case where none is in just this one."""
    known = list(names)
    if wanted in known:
        return wanted
    return next((name for name in known if folded(name) == folded(wanted)), None)


class Lines:
    """An open file. Raises `OSError`, `UnicodeDecodeError` and `csv.Error` while it is read."""

    def __init__(self, uri: str) -> None:
        self._file = _as_utf8(open_binary(uri))
        weakref.finalize(self, self._file.close)
        ending = uri.lower().rpartition(".")[2]
        usual = {"csv": ",", "tsv": "\t"}.get(ending)
        self.first = len(BOM_UTF8) if self._file.read(len(BOM_UTF8)) == BOM_UTF8 else 0
        self.header: list[str] | None = None  # of CSV
        self.header_lines = 0
        self._delimiter = self._delimiter_of_header(usual) if usual else None
        if self._delimiter is not None:
            self.header = []
            for end, line, values in self._records(self.first):
                if values:
                    self.first, self.header_lines, self.header = end, line, values
                    break

    def close(self) -> None:
        self._file.close()

    def _delimiter_of_header(self, usual: str) -> str:
        """The usual one wherever the header has it: a semicolon may well stand in the name of a column."""
        self._file.seek(self.first)
        pieces = (line for piece in self._file for line in piece.splitlines() if line.strip())
        header = _QUOTED.sub("", next(pieces, b"").decode(errors="replace"))
        if usual in header:
            return usual
        return max((one for one in _DELIMITERS if one in header), key=header.count, default=usual)

    def rows(self, offset: int | None = None) -> Iterator[tuple[int, int, Row | None]]:
        """From the row on that begins at `offset`: (where the next one begins, number of the last line read, the row).
        None is an empty line; `{}` a line of JSONL that is no object.
        """
        for end, line, values in self._records(self.first if offset is None else offset):
            if self.header is not None:
                yield end, line, dict(zip(self.header, values, strict=False)) if values else None
            else:
                yield end, line, _object(values[0])

    def _records(self, offset: int) -> Iterator[tuple[int, int, list[str]]]:
        self._file.seek(offset)
        end = offset

        def lines() -> Iterator[str]:
            nonlocal end
            for piece in self._file:
                for line in piece.splitlines(keepends=True) if b"\r" in piece else (piece,):
                    end += len(line)
                    yield line.decode()

        if self._delimiter is None:
            for number, line in enumerate(lines(), 1):
                yield end, number, [line]
        else:
            reader = csv.reader(lines(), delimiter=self._delimiter)
            for values in reader:
                yield end, reader.line_num, values


def _as_utf8(file: IO[bytes]) -> IO[bytes]:
    """The file from its beginning; of one in UTF-16, as Excel and PowerShell write it, a copy in UTF-8."""
    is_utf16 = file.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
    file.seek(0)
    if not is_utf16:
        return file
    copy: IO[bytes] = tempfile.SpooledTemporaryFile(_COPY_BYTES)  # noqa: SIM115
    decoder = codecs.getincrementaldecoder("utf-16")()
    try:
        with file:
            while piece := file.read(2**20):
                copy.write(decoder.decode(piece).encode())
            copy.write(decoder.decode(b"", True).encode())
    except BaseException:
        copy.close()
        raise
    copy.seek(0)
    return copy


def _object(line: str) -> Row | None:
    if not line.strip():
        return None
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return row if isinstance(row, dict) else {}


def text_bytes(cell: object) -> bytes | None:
    """The bytes of a string, or of an object as JSON; None where the cell holds neither. Broken Unicode stays broken,
    for whoever decodes it to find.
    """
    if isinstance(cell, dict):
        cell = json.dumps(cell, ensure_ascii=False)
    return cell.encode("utf-8", "surrogatepass") if isinstance(cell, str) else None


class _Blocks:
    """Offsets of a file's blocks, as far as rows were asked for."""

    def __init__(self, uri: str) -> None:
        self._lines = Lines(uri)  # for blocks …
        self._rows = self._scanned(Lines(uri))  # … and for reading on
        self.firsts = array("Q")  # first row of each block
        self._offsets = array("Q")
        self.rows = 0

    def close(self) -> None:
        self._rows.close()
        self._lines.close()

    @staticmethod
    def _scanned(lines: Lines) -> Generator[tuple[int, int, Row | None], None, None]:
        try:
            last = lines.first
            for end, _, row in lines.rows():
                yield last, end, row
                last = end
        finally:
            lines.close()

    def scan(self) -> list[Row | None]:
        """The next block that was not read yet; empty at the end."""
        block: list[Row | None] = []
        size = 0
        for start, end, row in self._rows:
            if not block:
                self.firsts.append(self.rows)
                self._offsets.append(start)
            block.append(row)
            size += end - start
            if len(block) == _BLOCK_ROWS or size >= _BLOCK_BYTES:
                break
        self.rows += len(block)
        return block

    def read(self, block: int) -> list[Row | None]:
        """One that was."""
        end = self.firsts[block + 1] if block + 1 < len(self.firsts) else self.rows
        rows = self._lines.rows(self._offsets[block])
        return [row for _, (_, _, row) in zip(range(end - self.firsts[block]), rows, strict=False)]


class LineRows:
    """Reads single rows; the last files stay open, and the last blocks of rows in memory. Thread-safe.

    To find a row, a file is read once from its beginning on as far as that row. What this leaves in memory is 16 bytes
    a block.
    """

    def __init__(self) -> None:
        self._files: OrderedDict[tuple[str, object], _Blocks] = OrderedDict()
        self._blocks: OrderedDict[tuple[str, object, int], list[Row | None]] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, uri: str, row: int, columns: Sequence[str]) -> bytes:
        """The cell of the first of `columns` that the row has. Raises `SourceUnreadable`."""
        with self._lock:
            try:
                found = self._row(uri, row)
            except (OSError, ImportError, ValueError, csv.Error) as error:
                for key in [key for key in self._files if key[0] == uri]:
                    self._files.pop(key).close()
                raise SourceUnreadable(uri=uri, reason=str(error) or type(error).__name__) from error
        column = next((name for name in columns if name in (found or {})), None)
        cell = text_bytes(found[column]) if found and column is not None else None
        if cell is None:
            raise SourceUnreadable(uri=uri, reason=f"its row {row} has no text in {' or '.join(columns)}")
        return cell

    def _row(self, uri: str, row: int) -> Row | None:
        stamp = stamp_of_file(uri)
        blocks = self._files.get((uri, stamp))
        if blocks is None:
            blocks = self._files[uri, stamp] = _Blocks(uri)
            if len(self._files) > _OPEN_FILES:
                self._files.popitem(last=False)[1].close()
        self._files.move_to_end((uri, stamp))
        while row >= blocks.rows:
            block = blocks.scan()
            if not block:
                raise ValueError(f"it has no row {row}")
            self._keep((uri, stamp, len(blocks.firsts) - 1), block)
        number = bisect_right(blocks.firsts, row) - 1
        block = self._blocks.get((uri, stamp, number)) or blocks.read(number)
        self._keep((uri, stamp, number), block)
        return block[row - blocks.firsts[number]]

    def _keep(self, key: tuple[str, object, int], block: list[Row | None]) -> None:
        self._blocks[key] = block
        self._blocks.move_to_end(key)
        if len(self._blocks) > _BLOCKS:
            self._blocks.popitem(last=False)


def stamp_of_file(uri: str) -> object:
    """Another one once the file has changed, where that is cheap to know. Raises `OSError`."""
    if not os.path.isabs(uri):
        return None
    found = os.stat(uri)
    return found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino

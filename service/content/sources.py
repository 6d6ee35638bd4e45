"""What a source holds, one candidate at a time: folder, manifest or Parquet file; local or by fsspec URL."""

import csv
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, TextIO

import fsspec.core
import pyarrow as pa
import pyarrow.parquet as pq

from service.content.image import SUFFIXES
from service.content.reader import ItemBytes, is_url
from service.content.rows import image_bytes, image_column, open_parquet
from service.errors import SourceUnreachable, SourceUnreadable

_PARQUET = (".parquet", ".pq")
_MANIFESTS = (".jsonl", ".ndjson", ".csv", ".tsv")
_REFUSALS_TOLD = 20
_PARQUET_ROWS = 256  # read at a time, images included


@dataclass(frozen=True)
class Candidate:
    """What may become an item. `data` is at hand where the listing had to read it anyway."""

    key: str
    uri: str
    class_name: str | None
    data: bytes | None = None
    has_own_key: bool = False  # the source gave it; else it is made of the path


class Listing(ABC):
    """Iterating streams the candidates in a fixed order; the counts are complete when it has ended. Raises
    `SourceUnreadable`, and `SourceUnreachable`, one of these, when that may pass.
    """

    def __init__(self, uri: str, label_column: str | None) -> None:
        self.uri = uri
        self.label_column = label_column
        self.ignored = 0  # files that are no images
        self.refused = 0  # rows, files and folders that could not be taken …
        self.refusals: list[str] = []  # … and a sentence for the first of them

    def refuse(self, sentence: str) -> None:
        self.refused += 1
        if len(self.refusals) < _REFUSALS_TOLD:
            self.refusals.append(sentence)

    @abstractmethod
    def __iter__(self) -> Iterator[Candidate]: ...

    def total(self) -> int | None:
        """How many candidates there are, where that is cheap to know."""
        return None


def list_source(uri: str, item_bytes: ItemBytes, label_column: str | None) -> Listing:
    """Raises `SourceNotAllowed`, `SourceUnreadable` when there is nothing that can be imported, and
    `SourceUnreachable`, one of these, when that may pass.
    """
    place = item_bytes.check_root(uri)
    try:
        filesystem, path = fsspec.core.url_to_fs(place)
        filesystem.invalidate_cache()  # it may have kept its listings since an earlier import in this process
        if filesystem.isdir(path):
            return (RemoteFolder if is_url(place) else LocalFolder)(place, label_column)
        if not filesystem.exists(path):
            filesystem.info(path)  # raises what was the matter; `exists` takes it for a no
    except FileNotFoundError as error:
        raise SourceUnreadable(uri=uri, reason="there is no such file or folder") from error
    except (ValueError, ImportError) as error:
        raise SourceUnreadable(uri=uri, reason=str(error)) from error
    except Exception as error:  # each file system has its client's own classes
        raise _unreachable(uri, error) from error
    suffix = PurePosixPath(place).suffix.lower()
    if suffix in _PARQUET:
        return ParquetFile(place, label_column)
    if suffix in _MANIFESTS:
        return Manifest(place, label_column)
    known = ", ".join(_MANIFESTS + _PARQUET)
    raise SourceUnreadable(uri=uri, reason=f"a source is a folder of images, or a file that ends in {known}")


def _unreachable(uri: str, error: Exception) -> SourceUnreachable:
    return SourceUnreachable(uri=uri, reason=(str(error) or type(error).__name__).rstrip("."))


def _class_folder(key: str) -> str | None:
    """The first subfolder: in a `test` split it is the class."""
    return key.split("/", 1)[0] if "/" in key else None


class LocalFolder(Listing):
    """All images below a folder; the key is the path below it. Names that begin with a dot are left out."""

    def __iter__(self) -> Iterator[Candidate]:
        self.ignored = self.refused = 0
        self.refusals.clear()
        for folder, subfolders, names in os.walk(self.uri, onerror=self._note):
            subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
            for name in sorted(names):
                if name.startswith(".") or Path(name).suffix.lower() not in SUFFIXES:
                    self.ignored += 1
                    continue
                path = Path(folder, name)
                key = path.relative_to(self.uri).as_posix()
                yield Candidate(key, str(path), _class_folder(key))

    def total(self) -> int:
        return sum(1 for _ in self)

    def _note(self, error: OSError) -> None:
        self.refuse(f"The folder {error.filename!r} cannot be read: {error.strerror}.")


class RemoteFolder(Listing):
    """The same in a bucket."""

    def __iter__(self) -> Iterator[Candidate]:
        filesystem, root = fsspec.core.url_to_fs(self.uri)
        for folder, subfolders, names in self._walk(filesystem, root):
            subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
            for name in sorted(names):
                if name.startswith(".") or PurePosixPath(name).suffix.lower() not in SUFFIXES:
                    self.ignored += 1
                    continue
                path = f"{folder.rstrip('/')}/{name}"
                key = path.removeprefix(root.rstrip("/")).lstrip("/")
                yield Candidate(key, f"{self.uri}/{key}", _class_folder(key))

    def _walk(self, filesystem: Any, root: str) -> Iterator[tuple[str, list[str], list[str]]]:
        try:
            yield from filesystem.walk(root, on_error="raise")
        except Exception as error:  # each file system has its client's own classes
            raise _unreachable(self.uri, error) from error


class Manifest(Listing):
    """JSONL, CSV or TSV with a column `uri` or `path` (absolute or relative to the manifest), maybe `key`."""

    def __iter__(self) -> Iterator[Candidate]:
        folder = self.uri.rpartition("/")[0]
        for line, row in self._rows():
            place = row.get("uri") or row.get("path")
            if not isinstance(place, str) or not place:
                self.refuse(f"Line {line}: there is no `uri` or `path`.")
                continue
            absolute = is_url(place) or Path(place).is_absolute()
            uri = place if absolute else f"{folder}/{PurePosixPath(place)}"
            key = row.get("key")
            class_name = row.get(self.label_column) if self.label_column else None
            yield Candidate(
                str(key) if key not in (None, "") else uri.removeprefix(f"{folder}/"),
                uri,
                str(class_name) if class_name not in (None, "") else None,
                has_own_key=key not in (None, ""),
            )

    def _rows(self) -> Iterator[tuple[int, Mapping[str, Any]]]:
        try:
            with fsspec.open(self.uri, "r", encoding="utf-8-sig", newline="") as file:
                if self.uri.lower().endswith((".csv", ".tsv")):
                    yield from _csv_rows(file, "\t" if self.uri.lower().endswith(".tsv") else ",")
                else:
                    yield from self._json_rows(file)
        except (UnicodeDecodeError, csv.Error) as error:
            raise SourceUnreadable(uri=self.uri, reason=str(error)) from error
        except OSError as error:
            raise _unreachable(self.uri, error) from error

    def _json_rows(self, file: TextIO) -> Iterator[tuple[int, Mapping[str, Any]]]:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                row = None
            if isinstance(row, dict):
                yield number, row
            else:
                self.refuse(f"Line {number}: this is not a JSON object.")


def _csv_rows(file: TextIO, delimiter: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    reader = csv.DictReader(file, delimiter=delimiter)
    for row in reader:
        yield reader.line_num, row


class ParquetFile(Listing):
    """A column of image bytes, perhaps `key`; without one the key is `file.parquet#17`."""

    def __iter__(self) -> Iterator[Candidate]:
        file = open_parquet(self.uri)
        names = set(file.schema_arrow.names)
        column = image_column(file.schema_arrow, self.uri)
        if self.label_column and self.label_column not in names:
            raise SourceUnreadable(uri=self.uri, reason=f"it has no column {self.label_column!r}")
        wanted = [name for name in ("key", self.label_column) if name is not None and name in names]
        stem, number = PurePosixPath(self.uri).name, 0
        for batch in self._batches(file, [column, *wanted]):
            others = {name: batch.column(name).to_pylist() for name in wanted}
            for row, data in enumerate(image_bytes(batch.column(column))):
                key = others["key"][row] if "key" in others else None
                class_name = others[self.label_column][row] if self.label_column else None
                yield Candidate(
                    str(key) if key not in (None, "") else f"{stem}#{number}",
                    f"{self.uri}#row={number}",
                    str(class_name) if class_name is not None else None,
                    data.as_py() or b"",
                    has_own_key=key not in (None, ""),
                )
                number += 1

    def _batches(self, file: pq.ParquetFile, columns: list[str]) -> Iterator[pa.RecordBatch]:
        try:
            yield from file.iter_batches(batch_size=_PARQUET_ROWS, columns=columns)
        except ValueError as error:  # ArrowInvalid
            raise SourceUnreadable(uri=self.uri, reason=str(error)) from error
        except OSError as error:
            raise _unreachable(self.uri, error) from error

    def total(self) -> int:
        return int(open_parquet(self.uri).metadata.num_rows)

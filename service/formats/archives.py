"""Zip archives: written as a stream, read with care; and names of files for keys, which may be anything."""

import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote, unquote

from service.formats import unreadable
from service.formats.tables import Sink

_MOST_BYTES = 16 * 2**20  # of a file with labels: of a picture's boxes, or the names of all pictures
_HARMLESS = " !#$&'()+,;=@[]{}^~"
_DATE = (1980, 1, 1, 0, 0, 0)  # the same labels give the same bytes


class ZipWriter:
    """An archive that is taken away piece by piece while it is written."""

    def __init__(self) -> None:
        self._sink = Sink()
        self._zip = zipfile.ZipFile(self._sink, "w")

    def add(self, name: str, data: bytes, *, comment: str = "", stored: bool = False) -> bytes:
        """The piece. stored: as it is, where it is compressed already."""
        entry = zipfile.ZipInfo(name, _DATE)
        entry.compress_type = zipfile.ZIP_STORED if stored else zipfile.ZIP_DEFLATED
        entry.comment = comment.encode()[:65_535]
        self._zip.writestr(entry, data)
        return self._sink.taken()

    def add_pieces(self, name: str, data: Iterable[bytes]) -> Iterator[bytes]:
        """A file that may be larger than memory."""
        entry = zipfile.ZipInfo(name, _DATE)
        entry.compress_type = zipfile.ZIP_DEFLATED
        with self._zip.open(entry, "w", force_zip64=True) as file:
            for piece in data:
                file.write(piece)
                yield self._sink.taken()
        yield self._sink.taken()

    def close(self, notes: list[str]) -> bytes:
        """The rest. notes: what was left out, as the comment of the archive."""
        self._zip.comment = "\n".join(notes).encode()[:65_535]
        self._zip.close()
        return self._sink.taken()


class ZipReader:
    def __init__(self, path: Path, archive: zipfile.ZipFile) -> None:
        self._path, self._zip = path, archive
        self.files = [
            entry for entry in archive.infolist() if not entry.is_dir() and not _is_note(entry.filename)
        ]

    def read(self, entry: zipfile.ZipInfo) -> bytes:
        """Raises `SourceUnreadable`, also for what is much larger than files with labels are."""
        if entry.file_size > _MOST_BYTES:
            told = f"{entry.filename!r} has {entry.file_size:,} bytes, more than labels take"
            raise unreadable(self._path, told)
        try:
            with self._zip.open(entry) as file:
                data = file.read(_MOST_BYTES + 1)
        except (
            zipfile.BadZipFile,
            OSError,
            NotImplementedError,
            RuntimeError,
            EOFError,
            ValueError,
        ) as error:
            raise unreadable(self._path, f"{entry.filename!r}: {error}") from error
        return data

    def text(self, entry: zipfile.ZipInfo) -> str:
        return self.read(entry).decode("utf-8-sig", errors="replace")


@contextmanager
def opened(path: Path) -> Iterator[ZipReader]:
    """Raises `SourceUnreadable`."""
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise unreadable(path, error) from error
    with archive:
        yield ZipReader(path, archive)


def any_name(path: Path, fits: Callable[[str], bool]) -> bool:
    """True where the archive holds such a file; not where it is none."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any(fits(name) for name in archive.namelist())
    except (zipfile.BadZipFile, OSError, ValueError):
        return False


def file_name(key: str) -> str:
    """A name by which the key is found again, on any system; its folders stay folders, where none leads upwards."""
    parts = key.split("/")
    return "/".join(map(flat_name, parts)) if all(parts) else flat_name(key)


def flat_name(key: str) -> str:
    """The same without folders."""
    name = quote(key, safe=_HARMLESS)
    return f"%2E{name[1:]}" if name.startswith(".") else name  # neither hidden, nor a folder above


def key_of(name: str) -> str:
    return unquote(name)


def _is_note(name: str) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))

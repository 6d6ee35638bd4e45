"""Members of zip and tar archives, listed and read one at a time. Nothing is ever unpacked to a place that an archive
names.

Members are read where they lie, by their offset. Of a compressed tar no part can be read without all before it: it is
unpacked once, into a file without a name.
"""

import bz2
import gzip
import lzma
import os
import re
import shutil
import tarfile
import tempfile
import threading
import weakref
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol
from urllib.parse import quote, unquote

from service.content.lines import NoFile, TooLarge, open_binary, stamp_of_file
from service.errors import SourceUnreachable, SourceUnreadable

ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
MEMBER = re.compile(
    r"(?P<file>.+\.(?:zip|tar|tgz|tar\.gz|tar\.bz2|tar\.xz))#member=(?P<member>[^#]+)",
    re.IGNORECASE | re.DOTALL,
)
# A compressed tar of images hardly shrinks, one of texts by 20 at most.
_LEAST_UNPACKED, _MOST_TIMES = 2**30, 100
_LEAST_FREE = 2**30  # of the disk, beside what is unpacked
_OPEN = 8
_PIECE = 2**20
_BROKEN = (OSError, EOFError, ValueError, zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError)


def is_archive(name: str) -> bool:
    return name.lower().endswith(ARCHIVES)


def member_uri(archive: str, name: str) -> str:
    return f"{archive}#member={quote(name, safe='/', errors='surrogateescape')}"


def member_name(quoted: str) -> str:
    """The inverse of what `member_uri` did to it."""
    return unquote(quoted, errors="surrogateescape")


def folder_of(name: str) -> str:
    """The folder that a member lies in, as the archive spells it; `.` is the archive."""
    return name.rpartition("/")[0] or "."


@dataclass(frozen=True)
class Member:
    """kind: of what cannot be read as a file, for sentences: `a link`, `an encrypted file`"""

    name: str
    kind: str | None = None


class Archive(Protocol):
    def members(self) -> Iterator[Member]:
        """All but folders, in the order they lie in."""
        ...

    def read(self, name: str, largest: int) -> bytes:
        """Thread-safe. Raises `KeyError`, `TooLarge`, and what reading a broken archive does."""
        ...


class _Zip:
    def __init__(self, file: IO[bytes]) -> None:
        self._zip = zipfile.ZipFile(file)
        self._lock = threading.Lock()

    def members(self) -> Iterator[Member]:
        for info in self._zip.infolist():
            if info.is_dir():
                continue
            yield Member(info.filename, "an encrypted file" if info.flag_bits & 1 else None)

    def read(self, name: str, largest: int) -> bytes:
        if (size := self._zip.getinfo(name).file_size) > largest:
            raise TooLarge(size, largest)
        with self._lock, self._zip.open(name) as member:
            data = member.read(largest + 1)
        if len(data) > largest:  # it lied
            raise TooLarge(len(data), largest)
        return data


class _Tar:
    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._lock = file, threading.Lock()
        file.seek(0)
        self._places: dict[str, tuple[int, int]] = {}
        self._kinds: dict[str, str] = {}
        with tarfile.open(fileobj=file, mode="r:") as tar:
            while (info := tar.next()) is not None:
                tar.members.clear()  # type: ignore[attr-defined]  # else all of them are kept, a kilobyte each
                self._note(info)

    def _note(self, info: tarfile.TarInfo) -> None:
        """The last of equal names counts, as when the archive is unpacked."""
        self._places.pop(info.name, None)
        self._kinds.pop(info.name, None)
        if info.isdir():
            return
        if info.islnk() and info.linkname in self._places:  # the same file under another name
            self._places[info.name] = self._places[info.linkname]
        elif not info.isreg() or info.issparse():
            self._kinds[info.name] = "a link" if info.issym() or info.islnk() else "a sparse file or a device"
        else:
            self._places[info.name] = info.offset_data, info.size

    def members(self) -> Iterator[Member]:
        yield from map(Member, self._places)
        yield from (Member(name, kind) for name, kind in self._kinds.items())

    def read(self, name: str, largest: int) -> bytes:
        offset, size = self._places[name]
        if size > largest:
            raise TooLarge(size, largest)
        with self._lock:
            self._file.seek(offset)
            data = self._file.read(size)
        if len(data) < size:
            raise EOFError("the archive ends before it does")
        return data


class Archives:
    """The last archives stay open, as long as their files are as they were. Thread-safe.

    folder: where compressed tars are unpacked; largest: bytes of a member
    """

    def __init__(self, folder: Path, largest: int) -> None:
        self._folder, self._largest = folder, largest
        self._open: OrderedDict[str, tuple[object, Archive]] = OrderedDict()
        self._folders: weakref.WeakKeyDictionary[Archive, dict[str, list[str]]] = weakref.WeakKeyDictionary()
        self._lock = threading.Lock()

    def open(self, place: str) -> Archive:
        """A path or URL. Raises `SourceUnreadable`, and `SourceUnreachable` for a transient I/O error."""
        with self._lock:
            try:
                stamp = stamp_of_file(place)
                kept = self._open.get(place)
                if kept is None or kept[0] != stamp:
                    kept = self._open[place] = stamp, self._opened(place)
                self._open.move_to_end(place)
            except FileNotFoundError as error:
                raise SourceUnreadable(uri=place, reason="there is no such file") from error
            except _BROKEN as error:
                raise _unreadable(place, error) from error
            while len(self._open) > _OPEN:  # whoever reads one still holds it
                self._open.popitem(last=False)
            return kept[1]

    def read(self, place: str, name: str) -> bytes:
        """Raises as `open` does."""
        archive = self.open(place)
        try:
            return archive.read(name, self._largest)
        except KeyError as error:
            raise SourceUnreadable(uri=place, reason=f"it has no member {name!r}") from error
        except RuntimeError as error:  # so zipfile says that it is encrypted, or compressed in an unknown way
            raise SourceUnreadable(uri=place, reason=f"its member {name!r}: {error}") from error
        except _BROKEN as error:
            raise _unreadable(place, error) from error

    def in_folder(self, place: str, folder: str) -> Sequence[str]:
        """The names of the members that lie in the folder itself; `.` is the archive. Raises as `open` does."""
        archive = self.open(place)
        with self._lock:
            folders = self._folders.get(archive)
            if folders is None:
                folders = self._folders[archive] = {}
                for member in archive.members():
                    folders.setdefault(folder_of(member.name), []).append(member.name)
        return folders.get(folder, ())

    def _opened(self, place: str) -> Archive:
        file = open_binary(place)
        if place.lower().endswith((".zip", ".tar")):
            return _kept(file, _Zip if place.lower().endswith(".zip") else _Tar)
        with file:
            return _kept(unpacked(file, self._folder), _Tar)


def unpacked(file: IO[bytes], folder: Path) -> IO[bytes]:
    """A file that gzip, bzip2 or xz compressed, as one without a name in `folder`. Raises `ValueError` where that is
    far more than a file of items can be, or too much for the disk.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    head = file.read(6)
    file.seek(0)
    most = max(_LEAST_UNPACKED, _MOST_TIMES * size)
    folder.mkdir(parents=True, exist_ok=True)
    into = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
    written = 0
    try:
        with _decompressed(file, head) as stream:
            while piece := stream.read(_PIECE):
                written += len(piece)
                if written > most:
                    raise ValueError(f"unpacked it has more than {_MOST_TIMES} times its {size:,} bytes")
                _check_room(folder, written)
                into.write(piece)
        into.flush()
        into.seek(0)
    except BaseException:
        into.close()
        raise
    return into


def _check_room(folder: Path, written: int) -> None:
    if written % (64 * _PIECE) < _PIECE and shutil.disk_usage(folder).free < _LEAST_FREE:
        raise ValueError(
            f"there is no room to unpack it in {str(folder)!r}: make room, or unpack it yourself"
        )


def _kept(file: IO[bytes], kind: type[_Zip] | type[_Tar]) -> Archive:
    """The file is closed once nobody holds the archive any more."""
    try:
        archive = kind(file)
    except BaseException:
        file.close()
        raise
    weakref.finalize(archive, file.close)
    return archive


def _decompressed(file: IO[bytes], head: bytes) -> IO[bytes]:
    """By what it is, as some archives are called otherwise."""
    if head.startswith(b"\x1f\x8b"):
        return gzip.GzipFile(fileobj=file)  # type: ignore[return-value]
    if head.startswith(b"BZh"):
        return bz2.BZ2File(file)
    if head.startswith(b"\xfd7zXZ\x00"):
        return lzma.LZMAFile(file)
    return file


def _unreadable(place: str, error: Exception) -> SourceUnreadable:
    """`SourceUnreachable` where the disk or the bucket is the cause, and not the archive."""
    reason = (str(error) or type(error).__name__).rstrip(".")
    if isinstance(error, NoFile | TooLarge):
        return SourceUnreadable(uri=place, reason=reason)
    # BadGzipFile is an OSError without a number, as are "invalid data" of the others.
    if isinstance(error, OSError) and error.errno is not None:
        return SourceUnreachable(uri=place, reason=reason)
    return SourceUnreadable(uri=place, reason=f"the archive is broken or none: {reason}")

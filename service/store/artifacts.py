"""The artifact store: immutable files by name, on any fsspec filesystem. Written whole or not at all."""

import errno
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Any

from fsspec.implementations.local import LocalFileSystem

from service.content.reader import filesystem_of, local_or_url
from service.errors import ArtifactNotStored

_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_YOUNG_S = 3600.0


class Artifacts:
    """Names are relative POSIX paths, ``scores/7/12.npz``. A name is written once and never changed."""

    def __init__(self, url: str, cache_dir: Path) -> None:
        self._fs, self._root = filesystem_of(local_or_url(url))
        self._local = isinstance(self._fs, LocalFileSystem)
        self._cache_dir = cache_dir  # where remote artifacts are written, and kept for memory mapping

    def _path(self, name: str) -> str:
        parts = PurePosixPath(name).parts
        if not parts or name.startswith("/") or ".." in parts:
            raise ValueError(f"not an artifact name: {name!r}")
        return f"{self._root}/{name}"

    @contextmanager
    def writing(self, name: str) -> Iterator[IO[bytes]]:
        """A file to write; it appears under `name` only when the block ends without an exception.

        Raises `ArtifactNotStored` when there is no room for it.
        """
        try:
            with self._writing(name) as file:
                yield file
        except OSError as error:
            if error.errno not in _NO_ROOM:
                raise
            raise ArtifactNotStored(name=name, reason=str(error.strerror).lower()) from error

    @contextmanager
    def _writing(self, name: str) -> Iterator[IO[bytes]]:
        path = self._path(name)
        target = Path(path) if self._local else self._cache_dir / name
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}.tmp")
        try:
            with temporary.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            if self._local:
                temporary.replace(target)
            else:  # object stores show an object only once it is complete
                self._fs.put_file(str(temporary), path)
        finally:
            temporary.unlink(missing_ok=True)

    def room(self) -> int | None:
        """Bytes that are free where artifacts lie; None where that is not told."""
        if not self._local:
            return None
        folder = Path(self._root)
        return shutil.disk_usage(next(one for one in (folder, *folder.parents) if one.exists())).free

    def names(self, prefix: str) -> list[str]:
        """The artifacts below a folder, sorted; none where it is not there."""
        path = self._path(prefix)
        if not self._fs.exists(path):
            return []
        found = (str(one) for one in self._fs.find(path))
        root = self._root.rstrip("/").removeprefix("/")
        return sorted(one.removeprefix("/").removeprefix(f"{root}/") for one in found)

    def folders(self, prefix: str) -> list[str]:
        """The folders that lie right below a folder, sorted; none where it is not there."""
        path = self._path(prefix)
        if not self._fs.exists(path):
            return []
        found = (
            PurePosixPath(str(one["name"])).name
            for one in self._fs.ls(path, detail=True)
            if one["type"] == "directory"
        )
        return sorted(f"{prefix}/{name}" for name in found)

    def idle_s(self, prefix: str) -> float | None:
        """Seconds since a file below a folder was last written; None where that is not told, or nothing is there."""
        try:
            times = [self._fs.modified(one).timestamp() for one in self._fs.find(self._path(prefix))]
        except (NotImplementedError, FileNotFoundError):  # it comes or goes just now
            return None
        return time.time() - max(times) if times else None

    def open(self, name: str) -> IO[bytes]:
        file: Any = self._fs.open(self._path(name), "rb")
        return file  # type: ignore[no-any-return]

    def exists(self, name: str) -> bool:
        return bool(self._fs.exists(self._path(name)))

    def local_path(self, name: str) -> Path:
        """The artifact as a local file that can be memory-mapped; a remote one is downloaded once."""
        path = self._path(name)
        if self._local:
            return Path(path)
        cached = self._cache_dir / name
        if not cached.exists():
            cached.parent.mkdir(parents=True, exist_ok=True)
            temporary = cached.with_name(f".{cached.name}.{uuid.uuid4().hex}.tmp")
            self._fs.get_file(path, str(temporary))
            temporary.replace(cached)
            self._forget_deleted(PurePosixPath(name).parts[0])
        return cached

    def _forget_deleted(self, kind: str) -> None:
        """Drop what is kept here of folders that were deleted in the store, by whichever worker. Who has mapped a file
        keeps it; a young folder may be on its way to the store.
        """
        for kept in (self._cache_dir / kind).iterdir():
            old = kept.is_dir() and time.time() - kept.stat().st_mtime > _YOUNG_S
            if old and not self.exists(f"{kind}/{kept.name}"):
                shutil.rmtree(kept, ignore_errors=True)

    def delete(self, prefix: str) -> None:
        """Remove an artifact, or all below a folder; missing is fine."""
        path = self._path(prefix)
        if self._fs.exists(path):
            self._fs.rm(path, recursive=True)

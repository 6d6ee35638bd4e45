"""Addresses of items and reads of their bytes, never outside the allowed folders."""

import os
import re
import stat
import time
from collections.abc import Callable, Collection, Iterable
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote, unquote, unquote_to_bytes

import fsspec.core
from fsspec.implementations.local import LocalFileSystem

from service.content import contents
from service.content.archives import MEMBER, Archives, member_name
from service.content.frames import check_number, frames_among, packed_frames
from service.content.graph_files import GRAPH_PART, NETWORK, GraphFiles, Network, NodeOptions
from service.content.graph_formats import EDGE_LISTS, NODES
from service.content.lines import LineRows, NoFile, TooLarge, check_file
from service.content.molecules import MOLECULES
from service.content.pair import (
    EITHER,
    IMAGE_AND_TEXT,
    Kinds,
    inline_bytes,
    is_inline,
    is_place,
    kinds_of,
    packed,
)
from service.content.rows import ParquetRows
from service.content.volumes import FRAME, Volumes
from service.errors import BadItem, SourceNotAllowed, SourceUnreachable, SourceUnreadable
from service.settings import Settings

_ROW = re.compile(
    r"(?P<file>.+\.(?:parquet|pq|csv|tsv|jsonl|ndjson))#row=(?P<row>\d{1,15})"
    r"(?:&column=(?P<column>[^#&]+))?(?:&of=(?P<of>[a-z]+,[a-z]+))?",
    re.IGNORECASE | re.DOTALL,
)
# What came in a request and is kept among the artifacts, a file for the items of a call. It lies below no root, and
# only the service itself gives items such a place.
_INLINE = re.compile(
    r"inline:(?P<file>\d{1,19}/[0-9a-f]{32}\.jsonl)#row=(?P<row>\d{1,15})(?:&of=(?P<of>[a-z]+,[a-z]+))?"
)
# … and an item that is a file of its own, as a picture that a tool sent.
_INLINE_FILE = re.compile(r"inline:(?P<file>\d{1,19}/[0-9a-f]{32}\.bin)")
# What was uploaded is kept among the artifacts, too: by project, upload and path.
_UPLOAD = re.compile(r"upload:(?P<project>\d{1,19})/(?P<path>.+)", re.DOTALL)
UPLOAD_FOLDER = "uploads"
INLINE_FOLDER = "inline"
INLINE_COLUMN = "text"
_BOTH, _PLACE = ",", "@"  # of the columns of a pair; in names they are quoted
_FILE_URLS = ("file://", "local://")
_URL = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_RESTED_NS = 2 * 10**9  # a file younger than that may change again and keep its times
# By which buckets and web servers tell versions of an object apart.
_VERSIONS = (
    "ETag",
    "etag",
    "md5Hash",
    "content_md5",
    "LastModified",
    "last_modified",
    "mtime",
    "modified",
    "created",
)
_LOCAL = "local "
_CHANGED = "its bytes are not those that were imported: import its source again"


def row_uri(file: str, row: int, column: str | None = None) -> str:
    """The URI of one cell; without `column`, of that with images in a Parquet file."""
    return f"{file}#row={row}" + (f"&column={quote(column, safe='')}" if column is not None else "")


def pair_uri(
    file: str, row: int, columns: tuple[str, str], by_place: tuple[bool, bool], kinds: Kinds = IMAGE_AND_TEXT
) -> str:
    """The URI of a row with a pair, by its two columns; by_place: a column says where its half is."""
    both = (
        f"{_PLACE if place else ''}{quote(name, safe='')}"
        for name, place in zip(columns, by_place, strict=True)
    )
    return f"{file}#row={row}&column={_BOTH.join(both)}{_of(kinds)}"


def _of(kinds: Kinds | None) -> str:
    """Pairs of images and texts were there before others, and say nothing."""
    return "" if kinds in (None, IMAGE_AND_TEXT) else f"&of={','.join(kinds or ())}"


def inline_uri(file: str, row: int, kinds: Kinds | None = None) -> str:
    """file: the artifact's name below `INLINE_FOLDER`; kinds: of the halves of a pair."""
    return f"inline:{file}#row={row}{f'&of={kinds[0]},{kinds[1]}' if kinds else ''}"


def inline_file_uri(file: str) -> str:
    """file: as of `inline_uri`; its name is the hash of what it holds, and ends in `.bin`."""
    return f"inline:{file}"


def upload_uri(project: int, path: str) -> str:
    """path: below the project's uploads"""
    return f"upload:{project}/{path}"


def uploaded_to(uri: str) -> int | None:
    """The number of the project to which the file was uploaded; None for all that was not."""
    found = _UPLOAD.fullmatch(uri)
    return int(found["project"]) if found else None


def content_hash_of(data: bytes) -> str:
    """BLAKE2b-128, hex: what an item is known by."""
    return blake2b(data, digest_size=16).hexdigest()


def _part(uri: str) -> re.Match[str] | None:
    """A row of a file, a member of an archive, a frame of a volume, or a graph of many: which `file` it is in."""
    if "#" not in uri:
        return None
    kinds = (_ROW, MEMBER, FRAME, GRAPH_PART, NETWORK)
    return next((found for kind in kinds if (found := kind.fullmatch(uri))), None)


def _in_file(uri: str, kind: re.Pattern[str]) -> re.Match[str] | None:
    found = kind.fullmatch(uri)
    return found if found and not os.path.exists(uri) else None  # a file may be called so


def place_as_text(path: str) -> str:
    """The path, or that of a row, as databases and JSON take it: as it is, or, where it is no Unicode, as a `file://`
    URL.
    """
    try:
        path.encode()
    except UnicodeEncodeError:
        if part := _part(path):
            return place_as_text(part["file"]) + path[len(part["file"]) :]
        try:
            return "file://" + quote(os.fsencode(path))
        except UnicodeEncodeError:  # no path of this machine
            return path
    return path


def local_or_url(place: str) -> str:
    """An absolute path, also for a `file://` URL, or a URL: what begins with a scheme and `//`."""
    if place.lower().startswith(_FILE_URLS):
        return local_path(place)
    return place if is_url(place) else os.path.abspath(os.path.expanduser(place))


def filesystem_of(place: str) -> tuple[Any, str]:
    """The file system of a located place, and its path there. What stands in a local path means nothing but itself."""
    if is_url(place):
        filesystem, path = fsspec.core.url_to_fs(place)
        return filesystem, str(path)
    return LocalFileSystem(), place


class ItemBytes:
    """Reads items below `settings.source_roots`: files, fsspec URLs, rows of Parquet, CSV and JSONL files; members of
    archives, frames of volumes, folders of frames; and those that came inline. Thread-safe.
    """

    def __init__(self, settings: Settings) -> None:
        self._roots = settings.source_roots
        self._located_roots = tuple(_located(self._roots))
        self._inline = f"{local_or_url(settings.artifacts).rstrip('/')}/{INLINE_FOLDER}"
        self._uploads = f"{local_or_url(settings.artifacts).rstrip('/')}/{UPLOAD_FOLDER}"
        self._parquet = ParquetRows(settings.data_dir / "cache")
        self._lines = LineRows()
        self.archives = Archives(settings.data_dir / "cache", settings.max_item_bytes)
        self._volumes = Volumes(settings.data_dir / "cache")
        self.graph_files = GraphFiles(settings.max_item_bytes, self.archives)
        self._largest = settings.max_item_bytes

    def read(self, uri: str, content_hash: str | None = None) -> bytes:
        """`/a/b.png`, `s3://bucket/b.png`, `/a/b.parquet#row=17`, `/a/b.csv#row=17&column=text`,
        `/a/b.zip#member=c/d.png`, `/a/b.nii.gz#frame=17`, `/a/folder-of-frames` or an inline one.

        content_hash: of the bytes that are wanted, where that is known: others are never given. Raises
        `SourceNotAllowed` outside the roots (symlinks are followed first), `SourceUnreadable` when there is nothing, or
        nothing that can be read, and `SourceUnreachable`, one of these, for a transient I/O error.
        """
        data = self._read(uri, is_new=content_hash is None)
        self.check_size(uri, len(data))
        if content_hash is None or content_hash_of(data) == content_hash:
            return data
        if row := _ROW.fullmatch(uri):  # of a file in a bucket, which is kept open
            self._parquet.forget(self.check_root(row["file"]))
            data = self._read(uri)
            if content_hash_of(data) == content_hash:
                return data
        raise SourceUnreadable(uri=uri, reason=_CHANGED)

    def check_size(self, uri: str, size: int) -> None:
        """Raises `SourceUnreadable` for more bytes than an item may have."""
        if size > self._largest:
            raise SourceUnreadable(uri=uri, reason=str(TooLarge(size, self._largest)))

    def stamp(self, uri: str) -> str | None:
        """The same as long as the file is: size and times, or what a bucket tells; None where that is not told, and for
        rows. Raises `SourceNotAllowed`.
        """
        found = self._stamp_alone(uri)
        if found is None or not uri.lower().endswith(EDGE_LISTS):
            return found
        beside = self._stamp_alone(_nodes_of(uri))
        return found if beside is None else f"{found} {beside.removeprefix(_LOCAL)}"

    def _stamp_alone(self, uri: str) -> str | None:
        if uri.startswith("inline:") or _ROW.fullmatch(uri) or _in_file(uri, GRAPH_PART):
            return None  # of these the bytes are looked at
        part = _in_file(uri, MEMBER) or _in_file(uri, FRAME)  # the same as long as its file is
        place = self.check_root(part["file"] if part else uri)
        try:
            if not is_url(place):
                # With the time of any change, which nobody can set: the file's own may be that of an older copy.
                found = os.stat(place)
                if stat.S_ISDIR(found.st_mode):
                    return _stamp_of_frames(place)
                return f"{_LOCAL}{found.st_size} {found.st_mtime_ns} {found.st_ctime_ns}"
            filesystem, path = filesystem_of(place)
            told = filesystem.info(path)
        except Exception:  # whoever reads it will say what is wrong
            return None
        version = next((told[name] for name in _VERSIONS if told.get(name)), None)
        return None if version is None else f"{told.get('size')} {version}"

    def _read(self, uri: str, is_new: bool = False) -> bytes:
        """is_new: nobody has read it yet, so that its size is worth a question to its bucket."""
        data = self._read_alone(uri, is_new)
        return data + self._nodes_beside(uri) if uri.lower().endswith(EDGE_LISTS) else data

    def _nodes_beside(self, uri: str) -> bytes:
        """The last lines of an edge list: those of a file of the same name with its nodes, if there is one."""
        try:
            return f"\n{NODES}\n".encode() + self._read_alone(_nodes_of(uri))
        except SourceUnreadable as error:
            if isinstance(error.__cause__, (FileNotFoundError, KeyError)):
                return b""
            raise

    def _read_alone(self, uri: str, is_new: bool = False) -> bytes:
        if inline := _INLINE.fullmatch(uri):
            return self._read_inline(uri, inline)
        if inline := _INLINE_FILE.fullmatch(uri):
            return self._read_inline_file(uri, inline)
        if row := _ROW.fullmatch(uri):
            return self._read_row(uri, self.check_root(row["file"]), row)
        if member := _in_file(uri, MEMBER):
            return self._read_member(uri, self.check_root(member["file"]), member["member"])
        if frame := _in_file(uri, FRAME):
            return self._read_frame(uri, self.check_root(frame["file"]), int(frame["frame"]))
        if part := _in_file(uri, GRAPH_PART):
            return self._read_graph(self.check_root(part["file"]), part)
        allowed = self.check_root(uri)
        try:
            if is_url(allowed):
                return self._read_remote(uri, allowed, is_new)
            if os.path.isdir(allowed):
                return self._read_frames(
                    uri,
                    os.listdir(allowed),
                    lambda name: self._read_local(uri, self._in_folder(allowed, name)),
                )
            return self._read_local(uri, allowed)
        except (SourceUnreadable, SourceNotAllowed):
            raise
        except Exception as error:  # each file system has its client's own classes
            raise self._unreadable(uri, allowed, error) from error

    def _in_folder(self, folder: str, name: str) -> str:
        """The place of a file in an allowed folder: it may be a link. Raises `SourceNotAllowed`."""
        place = _resolved(f"{folder}/{name}")
        return place if is_below(place, _resolved(folder)) else self.check_root(place)

    def _read_local(self, uri: str, path: str) -> bytes:
        check_file(path)
        self.check_size(uri, os.path.getsize(path))
        return Path(path).read_bytes()

    def _read_remote(self, uri: str, place: str, is_new: bool) -> bytes:
        filesystem, path = filesystem_of(place)
        try:
            told = filesystem.info(path) if is_new else {}
            if told.get("type") != "directory":
                self.check_size(uri, told.get("size") or 0)
                return bytes(filesystem.cat_file(path))
        except (FileNotFoundError, IsADirectoryError):
            if not filesystem.isdir(path):
                raise
        names = [str(found).rstrip("/").rpartition("/")[2] for found in filesystem.ls(path, detail=False)]
        return self._read_frames(
            uri, names, lambda name: bytes(filesystem.cat_file(f"{path.rstrip('/')}/{name}"))
        )

    def _read_frames(self, uri: str, names: Iterable[str], read: Callable[[str], bytes]) -> bytes:
        """names: of all that lies in the folder. Raises `SourceUnreadable` where it holds no frames."""
        try:
            wanted = frames_among(names)
            check_number(len(wanted))
        except ValueError as error:
            raise SourceUnreadable(uri=uri, reason=str(error)) from None
        if not wanted:
            raise SourceUnreadable(uri=uri, reason="it is a folder")
        found, size = [], 0
        for name in wanted:
            found.append(read(name))
            size += len(found[-1])
            self.check_size(uri, size)
        return packed_frames(found)

    def _read_row(self, uri: str, file: str, found: re.Match[str]) -> bytes:
        row, quoted = int(found["row"]), found["column"]
        if quoted and _BOTH in quoted:
            first, second = (self._read_half(uri, file, found, column) for column in quoted.split(_BOTH, 1))
            return packed(first, second, _kinds(uri, found["of"]))
        return self._read_cell(uri, file, row, unquote(quoted) if quoted else None)

    def _read_half(self, uri: str, file: str, found: re.Match[str], column: str) -> bytes:
        """Nothing where the cell is empty: whoever looks at the pair says so."""
        try:
            cell = self._read_cell(uri, file, int(found["row"]), unquote(column.removeprefix(_PLACE)))
        except SourceUnreachable:
            raise
        except SourceUnreadable as error:
            if error.__cause__ is not None:
                raise
            return b""  # there is no such cell in the row
        if not column.startswith(_PLACE) or not cell.strip():
            return cell
        place = cell.decode(errors="replace").strip()
        if is_inline(place) or is_url(place) or Path(place).is_absolute():
            return self._read_place(uri, place)
        return self._read_place(uri, f"{found['file'].rpartition('/')[0]}/{PurePosixPath(place)}")

    def _read_place(self, uri: str, place: str) -> bytes:
        """Half of a pair: a `data:` URL, or what lies below a root."""
        if is_inline(place):
            try:
                return inline_bytes(place)
            except BadItem as error:
                raise SourceUnreadable(uri=uri, reason=error.fields["reason"]) from None
        if _ROW.fullmatch(place):
            raise SourceUnreadable(uri=uri, reason=f"{place!r} is a row of a table, not a file")
        if place.startswith("inline:"):
            raise SourceNotAllowed(uri=place, roots=", ".join(self._roots) or "none are set")
        return self._read(place)

    def read_pair(self, uri: str, kinds: Kinds, both: tuple[str, str]) -> bytes:
        """A pair whose halves are given, each as text, as a `data:` URL, or by where it is; `uri` is for the reason.
        Raises as `read` does.
        """
        first, second = (
            self._read_place(uri, half) if is_place(kind) else half.encode(errors="surrogatepass")
            for kind, half in zip(kinds, both, strict=True)
        )
        return packed(first, second, kinds)

    def _read_cell(self, uri: str, file: str, row: int, column: str | None) -> bytes:
        try:
            if file.lower().endswith((".parquet", ".pq")):
                return self._parquet.read(file, row, column)
            return self._lines.read(file, row, [column] if column is not None else _columns_of_strings())
        except SourceUnreadable as error:
            if isinstance(error.__cause__, OSError):
                raise self._unreadable(uri, file, error.__cause__) from error
            raise

    def _read_member(self, uri: str, archive: str, quoted: str) -> bytes:
        name = member_name(quoted)
        try:
            if inner := self.archives.in_folder(archive, name):
                by_name = {one.rpartition("/")[2]: one for one in inner}
                return self._read_frames(
                    uri, by_name, lambda frame: self.archives.read(archive, by_name[frame])
                )
            return self.archives.read(archive, name)
        except SourceUnreadable as error:
            if isinstance(error.__cause__, FileNotFoundError):
                raise self._unreadable(uri, archive, error.__cause__) from error
            raise

    def _read_frame(self, uri: str, file: str, frame: int) -> bytes:
        try:
            return self._volumes.read(file, frame)
        except SourceUnreadable as error:
            if isinstance(error.__cause__, FileNotFoundError):
                raise self._unreadable(uri, file, error.__cause__) from error
            raise

    def _read_graph(self, place: str, found: re.Match[str]) -> bytes:
        if found["kind"] != "node":
            return self.graph_files.read(place, found["kind"], found["which"])
        options = self._node_options(found["file"], found["options"])
        return self.graph_files.read_node(place, found["which"], options)

    def frames(self, uri: str) -> int | None:
        """The number of pictures or molecules in a file of several; None where it is one, or where whoever reads it
        says what is wrong. Raises `SourceUnreachable`.
        """
        try:
            if uri.lower().endswith(MOLECULES):
                return len(self.graph_files.molecules(self.check_root(uri)))
            return self._volumes.frames(self.check_root(uri))
        except SourceNotAllowed:
            return None

    def network(self, file: str, options: NodeOptions) -> Network:
        """The graph whose nodes are items. Raises as `read` does."""
        return self.graph_files.network(self.check_root(file), self._node_options(file, str(options)))

    def _node_options(self, file: str, text: str) -> NodeOptions:
        """With the place of the attributes, where there are any: relative to the edges. Raises `SourceNotAllowed`."""
        options = NodeOptions(text)
        if options.attributes is not None:
            beside = f"{file.rpartition('/')[0]}/{PurePosixPath(options.attributes)}"
            options.place_of_attributes = self.check_root(beside)
        return options

    def _read_inline(self, uri: str, found: re.Match[str]) -> bytes:
        file, row = f"{self._inline}/{found['file']}", int(found["row"])
        try:
            if not found["of"]:
                return self._lines.read(file, row, [INLINE_COLUMN])
            both = [self._lines.read(file, row, [name]).decode(errors="surrogatepass") for name in EITHER]
        except SourceUnreadable as error:  # never the item's fault: it was written before the item
            raise SourceUnreachable(uri=uri, reason=str(error.fields["reason"]).rstrip(".")) from error
        return self.read_pair(uri, _kinds(uri, found["of"]), (both[0], both[1]))

    def _read_inline_file(self, uri: str, found: re.Match[str]) -> bytes:
        try:
            filesystem, path = filesystem_of(f"{self._inline}/{found['file']}")
            return bytes(filesystem.cat_file(path))
        except Exception as error:  # never the item's fault: it was written before the item
            raise SourceUnreachable(
                uri=uri, reason=(str(error) or type(error).__name__).rstrip(".")
            ) from error

    def _unreadable(self, uri: str, place: str, error: Exception) -> SourceUnreadable:
        """`SourceUnreachable` unless the file is surely the cause: not there, in a place where others are."""
        if isinstance(error, IsADirectoryError):
            return SourceUnreadable(uri=uri, reason="it is a folder")
        if isinstance(error, NoFile):
            return SourceUnreadable(uri=uri, reason=str(error))
        if not isinstance(error, FileNotFoundError):
            return SourceUnreachable(uri=uri, reason=(str(error) or type(error).__name__).rstrip("."))
        if is_url(place):
            return SourceUnreadable(uri=uri, reason="there is no such file")
        if not any(is_below(place, root) and os.path.isdir(root) for root in self._located_roots):
            return SourceUnreachable(uri=uri, reason="its root, of SHORTLIST_SOURCE_ROOTS, is not there")
        above = next(folder for folder in Path(place).parents if os.path.isdir(folder))
        if _is_empty(above):  # as the place of a disk that is not mounted
            return SourceUnreachable(
                uri=uri, reason=f"there is no such file, and the folder {str(above)!r} is empty"
            )
        hint = "; `\\` separates no folders here: write `/`" if "\\" in place else ""
        return SourceUnreadable(uri=uri, reason=f"there is no such file{hint}")

    def check_root(self, uri: str) -> str:
        """The uri, symlinks resolved, if it is an allowed root or below one. Raises `SourceNotAllowed`."""
        if upload := _UPLOAD.fullmatch(uri):
            return self._in_uploads(uri, upload)
        if (part := _part(uri)) and not os.path.exists(uri):  # a folder or file may be called so
            return self.check_root(part["file"]) + uri[len(part["file"]) :]
        located = _locate(uri)
        if located is None or not any(is_below(located, root) for root in self._located_roots):
            raise SourceNotAllowed(uri=uri, roots=", ".join(self._roots) or "none are set")
        return located

    def _in_uploads(self, uri: str, found: re.Match[str]) -> str:
        parts = found["path"].split("/")
        if ".." in parts or "." in parts or "\0" in uri:
            raise SourceNotAllowed(uri=uri, roots=", ".join(self._roots) or "none are set")
        return f"{self._uploads}/{found['project']}/{found['path']}"

    def as_stored(self, uri: str, projects: Collection[int]) -> str:
        """The place as items keep it: what was uploaded to one of these projects by where it lies among the uploads, so
        that a data folder can be moved.
        """
        if uri.startswith(f"{self._uploads}/"):
            found = f"upload:{uri.removeprefix(self._uploads + '/')}"
            if uploaded_to(found) in projects:
                return found
        return uri


def _kinds(uri: str, told: str | None) -> Kinds:
    """Raises `SourceUnreadable`."""
    if told is None:
        return IMAGE_AND_TEXT
    try:
        return kinds_of(told.split(","))
    except ValueError as error:
        raise SourceUnreadable(uri=uri, reason=str(error)) from None


def _stamp_of_frames(folder: str) -> str | None:
    """A stamp of the frames, not of the folder, whose times say nothing of a frame that was written anew. Raises
    `ValueError` and `OSError`.
    """
    stats = [(name, os.stat(f"{folder}/{name}")) for name in frames_among(os.listdir(folder))]
    if not stats:
        return None
    told = [(name, one.st_size, one.st_mtime_ns, one.st_ctime_ns) for name, one in stats]
    times = (max(one.st_mtime_ns for _, one in stats), max(one.st_ctime_ns for _, one in stats))
    return f"{_LOCAL}{content_hash_of(repr(told).encode())} {times[0]} {times[1]}"


def _columns_of_strings() -> list[str]:
    """For a row whose place names no column."""
    return [name for content in contents().values() if not content.binary for name in content.columns]


def _nodes_of(edges: str) -> str:
    return f"{edges.rpartition('.')[0]}.nodes"


def _is_empty(folder: Path) -> bool:
    try:
        return next(folder.iterdir(), None) is None
    except OSError:  # it may be entered, but not listed
        return False


def is_url(uri: str) -> bool:
    """A remote place, not a local path; `_locate` has made paths of `file://` URLs."""
    return _URL.match(uri) is not None


def is_settled(stamp: str) -> bool:
    """False for a file so young that it may change again within a tick of its clock, and keep its stamp."""
    if not stamp.startswith(_LOCAL):
        return True
    times = stamp.removeprefix(_LOCAL).split()[1:]
    return time.time_ns() - max(map(int, times)) >= _RESTED_NS


def _located(roots: Iterable[str]) -> Iterable[str]:
    for root in roots:
        located = _locate(root if is_url(root) else os.path.abspath(os.path.expanduser(root)))
        if located is not None:
            yield located


def _locate(uri: str) -> str | None:
    """One spelling for each place; None for what has no place: relative paths, chained URLs, `..` in URLs."""
    if is_url(uri) and not uri.lower().startswith(_FILE_URLS):
        climbs = ".." in unquote(uri).replace("\\", "/").split("/")
        return None if climbs or "::" in uri else uri.rstrip("/")
    try:
        uri = local_path(uri)
        return _resolved(uri) if os.path.isabs(uri) else None
    except (OSError, ValueError, RuntimeError):  # a NUL, a name too long, a circle of links
        return None


def local_path(uri: str) -> str:
    """The path of a `file://` URL, its percent-encoding decoded, bytes that are no UTF-8 included; a path as it is. A
    file whose name only looks encoded is found, too: Shortlist once took such URLs as they stood.
    """
    if not uri.lower().startswith(_FILE_URLS):
        return uri
    path = uri.split("://", 1)[1]
    if path.lower().startswith("localhost/"):
        path = path[len("localhost") :]
    decoded = os.fsdecode(unquote_to_bytes(path.encode(errors="surrogatepass")))
    return path if "%" in path and not os.path.lexists(decoded) and os.path.lexists(path) else decoded


def _resolved(path: str) -> str:
    """Symlinks followed. Folders are looked at once a second, as a pool has a million files in a few of them: who can
    put a symlink in the place of a folder below a root is believed for that long.
    """
    folder, name = os.path.split(path)
    if name in ("", ".", ".."):
        return os.path.realpath(path)
    place = os.path.join(_resolved_folder(folder, int(time.monotonic())), name)
    return os.path.realpath(place) if _is_link(place) else place


@lru_cache(maxsize=1_024)
def _resolved_folder(folder: str, second: int) -> str:
    return os.path.realpath(folder)


def _is_link(place: str) -> bool:
    try:
        return stat.S_ISLNK(os.lstat(place).st_mode)
    except OSError:  # whoever reads it will say what is wrong
        return False


def is_below(place: str, root: str) -> bool:
    """True if `place` is `root` or lies below it: both local paths, or both URLs."""
    return place == root or place.startswith(root.rstrip("/") + "/")

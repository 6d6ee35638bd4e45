"""A source, one candidate at a time: folder, archive, manifest or Parquet file; local or by fsspec URL."""

import csv
import json
import os
import stat
from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar
from urllib.parse import quote

import fsspec.core
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from service.content import contents
from service.content.archives import ARCHIVES, Archive, Archives, folder_of, is_archive, member_uri
from service.content.contract import Content
from service.content.frames import SeveralSequences, frames_among, is_picture
from service.content.graph_files import NETWORK, NodeOptions, is_tu, molecule_uri, tu_folders
from service.content.graph_sources import GraphDataSet, MoleculeFile, NodesOfGraph
from service.content.lines import (
    ENDINGS,
    Lines,
    NoFile,
    Row,
    folded,
    kind_of,
    open_binary,
    same_name,
    text_bytes,
)
from service.content.listing import Candidate, Listing
from service.content.mistaken import HEAD_BYTES, mistaken
from service.content.molecules import MOLECULES
from service.content.pair import IMAGE_AND_TEXT, Kinds, Pairs, columns_of, is_place
from service.content.reader import ItemBytes, filesystem_of, is_below, is_url, pair_uri, row_uri
from service.content.row_keys import ContentKeys
from service.content.rows import (
    cell_bytes,
    class_names,
    item_column,
    likeliest,
    named_column,
    only_paths,
    open_parquet,
    usable_columns,
)
from service.content.volumes import DICOM, NIFTI, frame_uri
from service.errors import SourceNotAllowed, SourceUnreachable, SourceUnreadable

PARQUET = (".parquet", ".pq")
_PLACES = ("uri", "path")  # columns that say where a file is, in any case …
# … and those of other tools, where there is none of these; for what is no bytes, an item's own column goes before.
_OTHER_PLACES = (
    "file_name",
    "filename",
    "image",
    "image_path",
    "audio",
    "audio_path",
    "video",
    "video_path",
    "file",
    "filepath",
)
_NETWORKS = frozenset(
    {".graphml", ".json", ".edges", ".edgelist", ".txt"}
)  # that may be one whose nodes are items
_LEFT_OUT = frozenset({"@eaDir", "__MACOSX"})  # folders of other programs, with their thumbnails
_CLASS_BYTES = 1_000  # of a file that says an item's class
_NOTES = frozenset({".json", ".md", ".txt", ".yaml", ".yml", ""})  # that lie beside shards
_PARQUET_ROWS = 256  # read at a time, items included
_ROWS_LOOKED_AT = 1_000  # that tell what a manifest names


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


def _is_taken(name: str, content: Content) -> bool:
    return _suffix(name) in content.suffixes | content.shared_suffixes


def _suffix(name: str) -> str:
    compressed = next((ending for ending in NIFTI if name.lower().endswith(ending)), None)
    return compressed or PurePosixPath(name).suffix.lower()


def list_source(
    uri: str, item_bytes: ItemBytes, label_column: str | None, content: Content | None
) -> Listing:
    """content: of the items that are wanted; None where the source is to tell. Raises `SourceNotAllowed`,
    `SourceUnreadable` when there is nothing that can be imported, and `SourceUnreachable`, one of these, when that may
    pass.
    """
    place = item_bytes.check_root(uri)
    if not os.path.exists(place) and (network := NETWORK.fullmatch(place)):
        options = NodeOptions(network["options"])
        return NodesOfGraph(place, network["file"], label_column, content, item_bytes.network, options)
    if not is_url(place):
        return _list_local(uri, place, item_bytes, label_column, content)
    try:
        filesystem, path = filesystem_of(place)
        filesystem.invalidate_cache()  # it may have kept its listings since an earlier import in this process
        if filesystem.isdir(path):
            names = [str(one).rpartition("/")[2] for one in filesystem.ls(path, detail=False)]
            if _may_be_graphs(content) and is_tu(names):
                return GraphDataSet(place, label_column, content, item_bytes.graph_files)
            return RemoteFolder(place, label_column, content, item_bytes.frames)
        if not filesystem.exists(path):
            filesystem.info(path)  # raises what was the matter; `exists` takes it for a no
    except FileNotFoundError as error:
        raise SourceUnreadable(uri=uri, reason="there is no such file or folder") from error
    except (ValueError, ImportError) as error:
        raise SourceUnreadable(uri=uri, reason=str(error)) from error
    except Exception as error:  # each file system has its client's own classes
        raise _unreachable(uri, error) from error
    return _list_file(uri, place, label_column, content, item_bytes)


def _list_local(
    uri: str, place: str, item_bytes: ItemBytes, label_column: str | None, content: Content | None
) -> Listing:
    try:
        is_folder = stat.S_ISDIR(os.stat(place).st_mode)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise SourceUnreadable(uri=uri, reason="there is no such file or folder") from error
    except OSError as error:
        raise _unreachable(uri, error) from error
    if is_folder and (shards := _shards(place)):
        return ArchiveFiles(place, label_column, content, shards, item_bytes.archives)
    if is_folder and _may_be_graphs(content) and is_tu(_names(place)):
        return GraphDataSet(place, label_column, content, item_bytes.graph_files)
    if is_folder:
        return LocalFolder(place, label_column, content, item_bytes.frames, item_bytes.check_root)
    return _list_file(uri, place, label_column, content, item_bytes)


def _may_be_graphs(content: Content | None) -> bool:
    return content is None or content.name == "graph"


def _names(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:  # whoever lists it says why
        return []


def _shards(folder: str) -> list[str]:
    """The archives in a folder that holds nothing else but notes about them, as a WebDataset does; else none."""
    try:
        with os.scandir(folder) as entries:
            found = sorted(
                (entry for entry in entries if _is_listed(entry.name)), key=lambda entry: entry.name
            )
    except OSError:  # whoever lists it says why
        return []
    names = [entry.name for entry in found if not is_archive(entry.name)]
    if any(_is_folder(entry) for entry in found) or any(_suffix(name) not in _NOTES for name in names):
        return []
    return [entry.path for entry in found if is_archive(entry.name)]


def _list_file(
    uri: str, place: str, label_column: str | None, content: Content | None, item_bytes: ItemBytes
) -> Listing:
    suffix = _suffix(place)
    if (suffix in PARQUET + ENDINGS or is_archive(place)) and (
        reason := _mistaken_file(uri, place)
    ) is not None:
        raise SourceUnreadable(uri=uri, reason=reason)
    of_pairs = content is not None and content.name == "pair"
    if suffix in PARQUET:
        return (ParquetPairs if of_pairs else ParquetFile)(place, label_column, content)
    if suffix in ENDINGS:
        return (ManifestPairs if of_pairs else Manifest)(place, label_column, content)
    if is_archive(place) and _may_be_graphs(content) and tu_folders(item_bytes.archives.open(place)):
        return GraphDataSet(place, label_column, content, item_bytes.graph_files)
    if is_archive(place):
        return ArchiveFiles(place, label_column, content, [place], item_bytes.archives)
    if suffix in MOLECULES and _may_be_graphs(content):
        return MoleculeFile(place, label_column, content, item_bytes.graph_files)
    known = ", ".join(ENDINGS + PARQUET + ARCHIVES + MOLECULES)
    more = (
        "; where the nodes of a graph are the items, write `#nodes` after it" if suffix in _NETWORKS else ""
    )
    raise SourceUnreadable(
        uri=uri, reason=f"a source is a folder of items, or a file that ends in {known}{more}"
    )


def _mistaken_file(uri: str, place: str) -> str | None:
    """Why the file is no table at all."""
    try:
        with open_binary(place) as file:
            found = mistaken(file.read(HEAD_BYTES))
    except NoFile as error:
        return str(error)
    except Exception as error:  # each file system has its client's own classes
        raise _unreachable(uri, error) from error
    return f"it is {found}" if found is not None else None


def _unreachable(uri: str, error: Exception) -> SourceUnreachable:
    return SourceUnreachable(uri=uri, reason=(str(error) or type(error).__name__).rstrip("."))


def _class_folder(key: str) -> str | None:
    """The first subfolder: in a `test` split it is the class."""
    return key.split("/", 1)[0] if "/" in key else None


@dataclass(frozen=True)
class _File:
    """key: the path below the folder; kind: of what is no file though it stands among files, as a named pipe; frame:
    the first one, where it is a folder of frames.
    """

    key: str
    place: str
    kind: str | None = None
    frame: "_File | None" = None


class _Folder(Listing):
    """All files of the content below a folder; the key is the path below it. Names that begin with a dot, and folders
    in which other programs keep thumbnails, are left out.

    frames: the number of pictures or molecules in a file of several, each of which is a candidate; None where files are
    not opened
    """

    by_folders: ClassVar[bool] = True
    _opened: ClassVar[tuple[str, ...]] = (*NIFTI, *MOLECULES)  # endings of files that may hold several

    def __init__(
        self,
        uri: str,
        label_column: str | None,
        content: Content | None,
        frames: Callable[[str], int | None] | None,
    ) -> None:
        super().__init__(uri, label_column, content)
        self._frames = frames

    def __iter__(self) -> Iterator[Candidate]:
        self.ignored = self.refused = 0
        self.refusals.clear()
        self.complete = True
        content = self._wanted()
        for file in self._items():
            key, name = file.key, PurePosixPath(file.key).name
            if file.frame is not None:
                yield Candidate(key, file.place, self._class_of(file.frame))
            elif not name.startswith(".") and _is_taken(name, content):
                yield from self._candidates(file)
            elif self.told and not name.startswith(".") and (other := _content_of(name)) is not None:
                self.refuse(
                    f"{key!r} is no {content.name} but a file of {' or '.join(other.formats)}, and most files here are "
                    f"{content.name}s, so they are what this project labels. Import {other.name}s into another "
                    f'project; or, before there are items, say "modality": "{other.name}" (PATCH /projects/…).'
                )
            else:
                self.ignored += 1

    def _candidates(self, file: "_File") -> Iterator[Candidate]:
        """One, or one a picture where the file holds several."""
        if file.kind is not None:
            return self.refuse(f"{file.key!r} is {file.kind} and no file.")
        is_opened = file.key.lower().endswith(self._opened)
        if is_opened and self._frames is None:
            return self.refuse(
                f"{file.key!r} may hold several items, and is in an archive: unpack it, and import its folder."
            )
        frames = self._frames(file.place) if is_opened and self._frames is not None else None
        if frames is None:
            yield Candidate(file.key, file.place, self._class_of(file))
        part_uri = molecule_uri if file.key.lower().endswith(MOLECULES) else frame_uri
        for frame in range(frames or 0):
            yield Candidate(f"{file.key}/{frame:04}", part_uri(file.place, frame), self._class_of(file))

    def _items(self) -> Iterator["_File"]:
        """All files; where videos are wanted, a folder of frames in the place of its pictures."""
        if self._wanted().name != "video":
            yield from self._files()
            return
        for _, group in groupby(self._by_folder(), key=_folder_key):
            yield from self._with_frames(list(group))

    def _by_folder(self) -> Iterator["_File"]:
        """The files, those of one folder one after the other."""
        return self._files()

    def _with_frames(self, files: list["_File"]) -> Iterator["_File"]:
        """The files of one folder. Pictures beside videos are no frames but thumbnails."""
        names = {PurePosixPath(file.key).name: file for file in files}
        if not any(_is_taken(name, self._wanted()) for name in names):
            try:
                frames = frames_among(names)
            except SeveralSequences as error:
                self.refuse(f"The folder {_folder_key(files[0])!r}: {error}.")
                frames = []
                files = [file for file in files if not is_picture(file.key)]
            if frames:
                yield self._folder_of(names[frames[0]])
                others = [file for file in files if not is_picture(file.key)]
                self.ignored += len(files) - len(others) - len(frames)
                files = others
        yield from files

    def _folder_of(self, frame: "_File") -> "_File":
        folder = _folder_key(frame)
        own = PurePosixPath(self.uri.rstrip("/")).name  # where the source itself is one video
        return _File(own if folder == "." else folder, self._place_of_folder(frame), frame=frame)

    def _place_of_folder(self, file: "_File") -> str:
        return file.place.rpartition("/")[0]

    def _class_of(self, file: "_File") -> str | None:
        return _class_folder(file.key)

    def _told(self) -> Content | None:
        names = (PurePosixPath(file.key).name for file in self._files())
        return content_of_most(name for name in names if not name.startswith("."))

    @abstractmethod
    def _files(self) -> Iterator[_File]:
        """All that is no folder, in a fixed order."""


def _folder_key(file: _File) -> str:
    """The path of its folder below the source, `.` where it lies in the source itself."""
    return PurePosixPath(file.key).parent.as_posix()


def _is_listed(folder: str) -> bool:
    return not folder.startswith(".") and folder not in _LEFT_OUT


class LocalFolder(_Folder):
    """On a disk. Links to folders are followed where they lead to another allowed place; no folder is entered twice.

    check_root: gives the place that a path leads to, or raises `SourceNotAllowed`.
    """

    _opened: ClassVar[tuple[str, ...]] = (
        *NIFTI,
        *MOLECULES,
        DICOM,
    )  # the header of each: too much in a bucket, of a series

    def __init__(
        self,
        uri: str,
        label_column: str | None,
        content: Content | None,
        frames: Callable[[str], int | None],
        check_root: Callable[[str], str],
    ) -> None:
        super().__init__(uri, label_column, content, frames)
        self._check_root = check_root

    def _files(self) -> Iterator[_File]:
        linked: set[str] = set()  # folders that a link led to
        folders = [self.uri]
        while folders:
            try:
                with os.scandir(folders.pop()) as entries:
                    found = sorted(entries, key=lambda entry: entry.name)
            except OSError as error:
                self._note(error)
                continue
            for entry in found:
                if not _is_folder(entry):
                    key = entry.path.removeprefix(self.uri).lstrip("/")
                    yield _File(_text_of(key), _uri_of(entry.path), _not_a_file(entry))
            inner = [entry for entry in found if _is_folder(entry) and _is_listed(entry.name)]
            entered = [entry.path for entry in inner if self._enters(entry.path, linked)]
            folders += reversed(entered)

    def _enters(self, folder: str, linked: set[str]) -> bool:
        real = os.path.realpath(folder)
        if real == folder:
            return True
        if is_below(real, self.uri) or real in linked:  # listed under its own name, or already
            return False
        try:
            self._check_root(real)
        except SourceNotAllowed as error:
            self.refuse(f"The folder {folder!r} is a link. {error}")
            return False
        linked.add(real)
        return True

    def total(self) -> int:
        """The files; some hold several candidates, which only their headers tell."""
        wanted = self._wanted().suffixes
        files = (file for file in self._items() if not PurePosixPath(file.key).name.startswith("."))
        return sum(file.frame is not None or _suffix(file.key) in wanted for file in files)

    def _note(self, error: OSError) -> None:
        self.complete = False
        self.refuse(f"The folder {error.filename!r} cannot be read: {error.strerror}.")


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _not_a_file(entry: os.DirEntry[str]) -> str | None:
    """The kind of what is no file; None also for what cannot be looked at: whoever reads it says why."""
    try:
        return None if entry.is_file() else kind_of(entry.stat().st_mode)
    except OSError:
        return None


def _text_of(name: str) -> str:
    """Bytes that are not UTF-8 as `\\xe9`: a key is text."""
    return os.fsencode(name).decode(errors="backslashreplace")


def _uri_of(path: str) -> str:
    """The path itself; where it is not UTF-8, its `file://` URL: no database stores such a path."""
    raw = os.fsencode(path)
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return f"file://{quote(raw)}"


class RemoteFolder(_Folder):
    """In a bucket."""

    def _files(self) -> Iterator[_File]:
        filesystem, root = fsspec.core.url_to_fs(self.uri)
        for folder, subfolders, names in self._walk(filesystem, root):
            subfolders[:] = sorted(filter(_is_listed, subfolders))
            for name in sorted(names):
                path = f"{folder.rstrip('/')}/{name}"
                key = path.removeprefix(root.rstrip("/")).lstrip("/")
                yield _File(key, f"{self.uri}/{key}")

    def _walk(self, filesystem: Any, root: str) -> Iterator[tuple[str, list[str], list[str]]]:
        try:
            yield from filesystem.walk(root, on_error="raise")
        except Exception as error:  # each file system has its client's own classes
            raise _unreachable(self.uri, error) from error


class ArchiveFiles(_Folder):
    """In archives: the key is the name of the member; of one of several archives, after the archive's.

    Where one folder holds all of an archive, as when a folder was packed, the class of a test item is the folder below
    it. label_column: of a WebDataset, what the file with the class ends in (`cls`: `0001.cls` beside `0001.jpg`).
    """

    by_folders: ClassVar[bool] = False

    def __init__(
        self,
        uri: str,
        label_column: str | None,
        content: Content | None,
        places: Sequence[str],
        archives: Archives,
    ) -> None:
        super().__init__(uri, label_column, content, None)
        self._places, self._archives = places, archives
        self._classes: dict[str, str] = {}  # by place, of the archive that is listed
        self._with_classes = False

    def __iter__(self) -> Iterator[Candidate]:
        self._with_classes = True
        try:
            yield from super().__iter__()
        finally:
            self._with_classes = False

    def total(self) -> int:
        content = self._wanted()
        return sum(file.frame is not None or _is_taken(file.key, content) for file in self._items())

    def _by_folder(self) -> Iterator[_File]:
        """Members may lie in any order."""
        for place in self._places:
            yield from sorted(self._files_in(place), key=_folder_key)

    def _place_of_folder(self, file: _File) -> str:
        archive, mark, name = file.place.rpartition("#member=")
        return f"{archive}{mark}{folder_of(name)}"

    def _class_of(self, file: _File) -> str | None:
        return self._classes.get(file.place)

    def _files(self) -> Iterator[_File]:
        for place in self._places:
            yield from self._files_in(place)

    def _files_in(self, place: str) -> Iterator[_File]:
        archive = self._archives.open(place)
        before = f"{PurePosixPath(place).name}/" if len(self._places) > 1 else ""
        names = {member.name: member.kind for member in archive.members()}
        keys = {name: _key_in_archive(name) for name in names}
        if self._with_classes:
            good = {name: key for name, key in keys.items() if key is not None}
            self._classes = self._classes_in(place, archive, good)
        for name, key in keys.items():
            if key is None:
                self.refuse(f"{name!r} leads out of its archive; such names are not read.")
            elif all(map(_is_listed, key.split("/")[:-1])):
                yield _File(_text_of(f"{before}{key}"), _uri_of_member(place, name), names[name])

    def _classes_in(self, place: str, archive: Archive, keys: dict[str, str]) -> dict[str, str]:
        if self.label_column is not None:
            return self._classes_beside(place, archive, keys)
        folders = {key.split("/", 1)[0] for key in keys.values()}
        packed = len(folders) == 1 and any(key.count("/") > 1 for key in keys.values())
        found = {}
        for name, key in keys.items():
            class_name = _class_folder(key.split("/", 1)[1] if packed and "/" in key else key)
            if class_name is not None:
                found[_uri_of_member(place, name)] = class_name
        return found

    def _classes_beside(self, place: str, archive: Archive, keys: dict[str, str]) -> dict[str, str]:
        ending = f".{str(self.label_column).lstrip('.')}"
        beside = {key.removesuffix(ending): name for name, key in keys.items() if key.endswith(ending)}
        found = {}
        for name, key in keys.items():
            label = beside.get(str(PurePosixPath(key).with_suffix("")))
            if label is not None and label != name:
                data = self._archives.read(place, label)[:_CLASS_BYTES]
                found[_uri_of_member(place, name)] = data.decode(errors="replace").strip()
        return found


def _key_in_archive(name: str) -> str | None:
    """The name as a path below the archive; None where it leads out of it."""
    path = name if "/" in name else name.replace("\\", "/")  # packed by a program for Windows
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if path.startswith("/") or ".." in parts or (parts and parts[0].endswith(":")):
        return None
    return "/".join(parts)


def _uri_of_member(place: str, name: str) -> str:
    return member_uri(_uri_of(place) if not is_url(place) else place, name)


class Manifest(Listing):
    """JSONL, CSV or TSV, maybe with `key`. A column `uri` or `path` says where the items are (absolute or relative to
    the manifest); for what is no bytes, a column may hold the items themselves.
    """

    def __iter__(self) -> Iterator[Candidate]:
        column = self._item_column()
        self._keys = ContentKeys()
        places = _places_in(self._columns(), self._wanted()) or _PLACES
        for number, line, row in self._rows():
            if column is None:
                yield from self._placed(line, row, places)
            else:
                yield from self._cell(number, line, row, column)

    def columns(self) -> list[str]:
        return list(map(repr, self._columns()))

    def names_places(self) -> bool:
        """True if it names the items' places and does not hold the items."""
        return self._names_places(self.content or self._told())

    def _told(self) -> Content | None:
        """By the files that it names; else by its columns."""
        columns = self._columns()
        named = content_of_most(self._named_first(_places_in(columns, None)))
        if named is not None:
            return named
        for content in contents().values():
            if not content.binary and likeliest(columns, content) is not None:
                return content
        return next(iter(contents().values())) if _places_in(columns, None) else None

    def _item_column(self) -> str | None:
        """The column with the items themselves; None where one says where they are. Raises `ColumnMissing`."""
        content = self._wanted()
        if content.binary or self._names_places(content):
            return None
        return named_column(self._columns(), self.columns(), self.uri, content)

    def _names_places(self, content: Content | None) -> bool:
        columns = self._columns()
        places = _places_in(columns, content)
        if not places:
            return False
        if content is None or content.binary or likeliest(columns, content) is None:
            return True
        return content_of_most(self._named_first(places)) is not None

    def _named_first(self, columns: Collection[str]) -> Iterator[str]:
        """The places that the first rows name."""
        for _, _, row in islice(self._rows(), _ROWS_LOOKED_AT):
            if (place := _place(row, columns)) is not None:
                yield place

    def _columns(self) -> list[str]:
        """The column names: a CSV file's header, or the keys of the first JSONL objects."""
        with self._open() as (lines, _):
            if lines.header is not None:
                return lines.header
        rows = (row for _, _, row in islice(self._rows(), _ROWS_LOOKED_AT) if row)
        return list(dict.fromkeys(name for row in rows for name in row))

    def _placed(self, line: int, row: Row, columns: Collection[str]) -> Iterator[Candidate]:
        folder = self.uri.rpartition("/")[0]
        place = _place(row, columns)
        if place is None:
            there = ", ".join(map(repr, row))
            return self.refuse(f"Line {line}: there is no `uri` or `path`; its columns are {there}.")
        absolute = is_url(place) or Path(place).is_absolute()
        uri = place if absolute else f"{folder}/{PurePosixPath(place)}"
        yield self._candidate(row, uri.removeprefix(f"{folder}/"), uri)

    def _cell(self, number: int, line: int, row: Row, column: str) -> Iterator[Candidate]:
        cell = row.get(column)
        is_text = self._wanted().name == "text"
        data = None if is_text and isinstance(cell, dict) else text_bytes(cell)
        if data is None:
            return self.refuse(f"Line {line}: there is no {self._wanted().name} in `{column}`.")
        yield self._candidate(row, None, row_uri(self.uri, number, column), data)

    def _candidate(self, row: Row, key: str | None, uri: str, data: bytes | None = None) -> Candidate:
        """Without a key of its own, `key`; where that is None, a key by its content."""
        own_key = _cell_of(row, "key")
        if own_key in (None, "") and key is None:
            key = self._keys.key(data or b"")
        class_name = _cell_of(row, self.label_column) if self.label_column else None
        return Candidate(
            str(own_key) if own_key not in (None, "") else str(key),
            uri,
            _class_name(class_name) if class_name not in (None, "") else None,
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
        except UnicodeDecodeError as error:
            reason = f"it is not UTF-8 text ({error}): save it as UTF-8"
            raise SourceUnreadable(uri=self.uri, reason=reason) from error
        except csv.Error as error:
            raise SourceUnreadable(uri=self.uri, reason=str(error)) from error
        except OSError as error:
            raise _unreachable(self.uri, error) from error


def _cell_of(row: Row, wanted: str) -> Any:
    """None where the row has no such column, in any case."""
    if wanted in row:
        return row[wanted]
    name = same_name(wanted, row)
    return None if name is None else row[name]


def _places_in(columns: Sequence[str], content: Content | None) -> tuple[str, ...]:
    """The columns that may say where the items are, the likeliest first; none where these hold the items themselves.

    content: of the items; None for any.
    """
    there = {folded(name) for name in columns}
    if not there.isdisjoint(_PLACES):
        return _PLACES
    held = [content] if content is not None else contents().values()
    if any(not one.binary and likeliest(columns, one) is not None for one in held):
        return ()
    return () if there.isdisjoint(_OTHER_PLACES) else _OTHER_PLACES


def _place(row: Row, columns: Collection[str]) -> str | None:
    """The first that the row names."""
    places = (_cell_of(row, column) for column in columns)
    return next((place for place in places if isinstance(place, str) and place), None)


class ParquetFile(Listing):
    """A column of items, as bytes or strings, perhaps `key`. Without one the key is the `path` of a struct with bytes
    and path, as Hugging Face writes them, where all are different; else it comes from the content.
    """

    def __iter__(self) -> Iterator[Candidate]:
        file = open_parquet(self.uri)
        schema = file.schema_arrow
        content = self._wanted()
        column = item_column(schema, self.uri, content)
        in_uri = None if content.name == "image" else column  # as places of images always were
        key_column = same_name("key", schema.names)
        label_column, names = self._label_column(schema)
        wanted = [name for name in (key_column, label_column) if name is not None]
        number, content_keys = 0, ContentKeys()
        by_path = self._names_items(file, column)
        for batch in self._batches(file, list(dict.fromkeys([column, *wanted]))):
            others = {name: batch.column(name).to_pylist() for name in wanted}
            cells = batch.column(column)
            paths = pc.struct_field(cells, "path").to_pylist() if by_path else None
            elsewhere = only_paths(cells)
            for row, cell in enumerate(cell_bytes(cells)):
                data = None if row in elsewhere else cell.as_py() or b""  # who reads it says what is wrong
                key = others[key_column][row] if key_column is not None else None
                own = key not in (None, "")
                if not own:
                    key = paths[row] if paths is not None else content_keys.key(data or b"")
                class_cell = others[label_column][row] if label_column is not None else None
                yield Candidate(
                    str(key),
                    row_uri(self.uri, number, in_uri),
                    _class_name(class_cell, names),
                    data,
                    has_own_key=own,
                )
                number += 1

    def columns(self) -> list[str]:
        return [f"{field.name!r} ({field.type})" for field in open_parquet(self.uri).schema_arrow]

    def _label_column(self, schema: pa.Schema) -> tuple[str | None, list[str] | None]:
        """And the names that its numbers stand for, if any. Raises `SourceUnreadable`."""
        if not self.label_column:
            return None, None
        column = same_name(self.label_column, schema.names)
        if column is None:
            there = ", ".join(map(repr, schema.names))
            reason = f"it has no column {self.label_column!r}; its columns are {there}"
            raise SourceUnreadable(uri=self.uri, reason=reason)
        return column, class_names(schema, column)

    def _told(self) -> Content | None:
        """By the names of its columns; a column of bytes under another name is one of images."""
        schema = open_parquet(self.uri).schema_arrow
        kinds = list(contents().values())
        for content in kinds:
            if likeliest(usable_columns(schema, content), content) is not None:
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
        except (ValueError, NotImplementedError) as error:  # Arrow's
            raise SourceUnreadable(uri=self.uri, reason=str(error)) from error
        except OSError as error:
            raise _unreachable(self.uri, error) from error

    def total(self) -> int:
        return int(open_parquet(self.uri).metadata.num_rows)


def _class_name(cell: object, names: Sequence[str] | None = None) -> str | None:
    """names: that numbers stand for; -1 is no class then, as in test splits whose labels are not public. Several
    classes become a list in JSON.
    """
    if isinstance(cell, list):
        return json.dumps([_class_name(one, names) for one in cell], ensure_ascii=False)
    if cell is None or isinstance(cell, bool) or not isinstance(cell, int) or names is None:
        return None if cell is None else str(cell)
    if cell == -1:
        return None
    return names[cell] if 0 <= cell < len(names) else str(cell)


def _pair_columns(
    uri: str, kinds: Kinds, usable: tuple[Sequence[str], Sequence[str]], there: Sequence[str]
) -> tuple[str, str]:
    """The columns of a pair's halves, of those that may be. Raises `SourceUnreadable`."""
    for first, second in columns_of(kinds):
        found = same_name(first, usable[0]), same_name(second, usable[1])
        if found[0] is not None and found[1] is not None and found[0] != found[1]:
            return found[0], found[1]
    either = [f"`{one}` and `{other}`" for one, other in columns_of(kinds)[:2]]
    names = " and one of ".join(f"{kind}s{' or their places' if is_place(kind) else ''}" for kind in kinds)
    raise SourceUnreadable(
        uri=uri,
        reason=f"a table of pairs has a column of {names}, called {' or '.join(either)}, or as docs/pairs.md says; its "
        f"columns are {', '.join(map(repr, there))}",
    )


def _kinds_of(content: Content) -> Kinds:
    return content.kinds if isinstance(content, Pairs) else IMAGE_AND_TEXT


class ManifestPairs(Manifest):
    """JSONL, CSV or TSV, a pair a row: a column says where a half is, or holds it. A row in which one of them is empty
    is a candidate, too: people are told.
    """

    def __iter__(self) -> Iterator[Candidate]:
        columns, kinds = self._columns(), _kinds_of(self._wanted())
        both = _pair_columns(self.uri, kinds, (columns, columns), columns)
        by_place = is_place(kinds[0]), is_place(kinds[1])
        keys = ContentKeys()
        for number, _, row in self._rows():
            key = keys.key("\0".join(str(row.get(name) or "") for name in both).encode(errors="replace"))
            yield self._candidate(row, key, pair_uri(self.uri, number, both, by_place, kinds))


class ParquetPairs(ParquetFile):
    """A pair a row: a column of each half, as bytes or strings, or of strings that say where it is."""

    def __iter__(self) -> Iterator[Candidate]:
        file = open_parquet(self.uri)
        schema = file.schema_arrow
        kinds = _kinds_of(self._wanted())
        there = [f"{field.name} ({field.type})" for field in schema]
        by_place, both = self._halves(schema, kinds, there)
        key_column = same_name("key", schema.names)
        label_column, names = self._label_column(schema)
        others = [name for name in (key_column, label_column) if name is not None]
        keys = ContentKeys()
        number = 0
        for batch in self._batches(file, list(dict.fromkeys([*both, *others]))):
            known = {name: batch.column(name).to_pylist() for name in others}
            halves = zip(*(cell_bytes(batch.column(name)).to_pylist() for name in both), strict=True)
            for row, cells in enumerate(halves):
                own = known[key_column][row] if key_column is not None else None
                class_cell = known[label_column][row] if label_column is not None else None
                yield Candidate(
                    str(own)
                    if own not in (None, "")
                    else keys.key(b"\0".join(cell or b"" for cell in cells)),
                    pair_uri(self.uri, number, both, by_place, kinds),
                    _class_name(class_cell, names),
                    has_own_key=own not in (None, ""),
                )
                number += 1

    def _halves(
        self, schema: pa.Schema, kinds: Kinds, there: Sequence[str]
    ) -> tuple[tuple[bool, bool], tuple[str, str]]:
        """Both halves' columns, and before these whether they say where the halves are. Bytes go before places."""
        strings = usable_columns(schema, contents()["text"])
        held = [usable_columns(schema, contents()[kind]) for kind in kinds]
        ways = [
            (first, second)
            for first in ((False, True) if is_place(kinds[0]) else (False,))
            for second in ((False, True) if is_place(kinds[1]) else (False,))
        ]
        for first, second in ways:
            usable = strings if first else held[0], strings if second else held[1]
            try:
                return (first, second), _pair_columns(self.uri, kinds, usable, there)
            except SourceUnreadable as error:
                missing = error
        raise missing

"""Places that hold many graphs, of which each is an item: folders and archives in the text format of TU Dortmund,
files of molecules, and one graph whose nodes are the items.

What they give is written here as node-link JSON, byte by byte the same, as an item is known by its bytes; records of
molecules are given as they stand.
"""

import io
import json
import os
import re
import threading
import weakref
from array import array
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import PurePosixPath
from typing import Any, TypeVar
from urllib.parse import parse_qsl, quote, unquote, urlencode
from zlib import crc32

import fsspec.core
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv

from service.content.archives import Archive, Archives, folder_of, is_archive
from service.content.graph import tag_of
from service.content.graph_formats import Attributes, Parsed, as_text, of_edge_list, parsed, short
from service.content.lines import NoFile, TooLarge, open_binary, stamp_of_file
from service.content.molecules import MOLECULES, RECORD_END
from service.errors import BadItem, SourceUnreachable, SourceUnreadable

_OPTIONS = r"(?P<options>(?:&[a-z]+=[^#&]*)*)"
NETWORK = re.compile(rf"(?P<file>.+)#nodes{_OPTIONS}", re.DOTALL)
GRAPH_PART = re.compile(rf"(?P<file>.+)#(?P<kind>graph|molecule|node)=(?P<which>[^#&]+){_OPTIONS}", re.DOTALL)
_OPEN = 4
_LARGEST = (
    64 * 2**20
)  # bytes of a graph whose nodes are items: all of it is in memory, ten times as large while read
_TU_EDGES, _TU_GRAPHS = "_A.txt", "_graph_indicator.txt"

HOPS, MOST_HOPS = 2, 4
NODES, MOST_NODES = 64, 1_024

Ints = npt.NDArray[np.int64]
T = TypeVar("T")


def file_of(place: str) -> str:
    """The file of a place whose nodes are items; any other place as it is."""
    found = None if os.path.exists(place) else NETWORK.fullmatch(place)
    return found["file"] if found else place


def molecule_uri(file: str, number: int) -> str:
    return f"{file}#molecule={number}"


def is_tu(names: Iterable[str]) -> bool:
    """True for the files of a data set in the text format of TU Dortmund, also of several."""
    return bool(_tu_names(names))


def _tu_names(names: Iterable[str]) -> list[str]:
    """Names that begin with a dot are files of other programs, as those that macOS packs beside each."""
    there = {name for name in names if not name.startswith(".")}
    found = (name.removesuffix(_TU_EDGES) for name in sorted(there) if name.endswith(_TU_EDGES))
    return [name for name in found if name + _TU_GRAPHS in there]


def tu_folders(archive: Archive) -> dict[str, dict[str, str]]:
    """The folders of an archive that hold a data set in the text format of TU Dortmund: the names of the files in each
    -> as the archive has them.
    """
    folders: dict[str, dict[str, str]] = {}
    for member in archive.members():
        if member.kind is None:
            folders.setdefault(folder_of(member.name), {})[PurePosixPath(member.name).name] = member.name
    return {folder: files for folder, files in folders.items() if is_tu(files)}


class GraphFiles:
    """The last places stay open, as long as they are as they were. Thread-safe.

    largest: bytes of one file of a data set, as settings have it; archives: those that a data set may lie in
    """

    def __init__(self, largest: int, archives: Archives) -> None:
        self._largest, self._archives = largest, archives
        self._open: OrderedDict[tuple[str, ...], tuple[object, Any]] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, place: str, kind: str, which: str) -> bytes:
        """The bytes of a graph of a data set, from 1, or of a molecule, from 0. Raises `SourceUnreadable`, and
        `SourceUnreachable` for a transient I/O error.
        """
        found = self.data_set(place) if kind == "graph" else self.molecules(place)
        return _told(place, lambda: found.read(int(which)))

    def read_node(self, place: str, which: str, options: "NodeOptions") -> bytes:
        """The item of a node, by its id as it stands in a place. Raises as `read` does."""
        found = self.network(place, options)
        return _told(place, lambda: found.read(unquote(which, errors="surrogatepass"), options))

    def data_set(self, place: str) -> "DataSet":
        """A folder or an archive. Raises as `read` does."""
        found: DataSet = self._opened((place,), lambda: self._data_set(place))
        return found

    def _data_set(self, place: str) -> "DataSet":
        if is_archive(place):
            folders = tu_folders(self._archives.open(place))
            if len(folders) > 1:
                several = ", ".join(sorted(folders))
                raise ValueError(
                    f"it holds data sets in several folders ({several}): unpack it, and import each"
                )
            files = next(iter(folders.values()), {})
            return DataSet(files, lambda name: self._archives.read(place, files[name]))
        return DataSet(_names_in(place), lambda name: _bytes_of(f"{place.rstrip('/')}/{name}", self._largest))

    def molecules(self, place: str) -> "Molecules":
        """Raises as `read` does."""
        found: Molecules = self._opened((place,), lambda: Molecules(place))
        return found

    def network(self, place: str, options: "NodeOptions") -> "Network":
        """Raises as `read` does."""
        attributes = options.place_of_attributes
        places = (place,) if attributes is None else (place, attributes)
        found: Network = self._opened(places, lambda: Network(place, attributes))
        return found

    def _opened(self, places: tuple[str, ...], make: Callable[[], Any]) -> Any:
        with self._lock:
            stamp = _told(places[0], lambda: list(map(_stamp, places)))
            kept = self._open.get(places)
            if kept is None or kept[0] != stamp:
                kept = self._open[places] = stamp, _told(places[0], make)
            self._open.move_to_end(places)
            while len(self._open) > _OPEN:
                self._open.popitem(last=False)
            return kept[1]


def _stamp(place: str) -> object:
    """Another one once the file, or one in the folder, has changed. Raises `OSError`."""
    if os.path.isabs(place) and os.path.isdir(place):
        return [(name, stamp_of_file(f"{place}/{name}")) for name in os.listdir(place)]
    return stamp_of_file(place)


def _told(place: str, run: Callable[[], T]) -> T:
    """The result of `run`. Raises `SourceUnreadable` for what is wrong with the file."""
    try:
        return run()
    except BadItem as error:
        raise SourceUnreadable(uri=place, reason=str(error.fields["reason"])) from error
    except FileNotFoundError as error:
        raise SourceUnreadable(uri=place, reason="there is no such file") from error
    except (NoFile, ValueError, IndexError, ImportError) as error:  # Arrow's are ValueErrors
        raise SourceUnreadable(uri=place, reason=str(error)) from error
    except OSError as error:
        raise SourceUnreachable(uri=place, reason=str(error).rstrip(".")) from error


def _bytes_of(place: str, largest: int) -> bytes:
    with open_binary(place) as file:
        data = file.read(largest + 1)
    if len(data) > largest:
        raise TooLarge(len(data), largest)
    return data


# ---- the text format of TU Dortmund ----


class DataSet:
    """Files `NAME_A.txt` (a line an edge, `node, node`), `NAME_graph_indicator.txt` (a line a node, the graph
    it is in), and perhaps `NAME_node_labels.txt` and `NAME_graph_labels.txt`. Nodes and graphs count from 1. Attributes
    and labels of edges are not read. Raises `ValueError` and `OSError`.

    Morris et al. 2020, "TUDataset: A collection of benchmark datasets for learning with graphs",
    https://arxiv.org/abs/2007.08663.
    """

    def __init__(self, names: Collection[str], read_file: Callable[[str], bytes]) -> None:
        """names: of the files that there are."""
        found = _tu_names(names)
        if not found:
            raise ValueError(f"it has no files NAME{_TU_EDGES} and NAME{_TU_GRAPHS}")
        if len(found) > 1:
            raise ValueError(
                f"it holds several data sets ({', '.join(found)}): give each a folder of its own"
            )
        (name,) = found

        def read(ending: str) -> bytes | None:
            file = f"{name}{ending}"
            return read_file(file) if file in names else None

        (graph_of,) = _numbers(read(_TU_GRAPHS), f"{name}{_TU_GRAPHS}", 1)
        one, other = _numbers(read(_TU_EDGES), f"{name}{_TU_EDGES}", 2)
        nodes = len(graph_of)
        self.graphs = int(graph_of.max(initial=0))
        if nodes == 0 or graph_of.min() < 1:
            raise ValueError(f"{name}{_TU_GRAPHS} names no graph, or one below 1")
        if len(one) and not (min(one.min(), other.min()) >= 1 and max(one.max(), other.max()) <= nodes):
            raise ValueError(
                f"{name}{_TU_EDGES} names a node that is none of the {nodes:,} of {name}{_TU_GRAPHS}"
            )
        one, other = one - 1, other - 1
        if (graph_of[one] != graph_of[other]).any():
            raise ValueError(f"{name}{_TU_EDGES} has an edge between two graphs")
        self._tags = _lines_of(read("_node_labels.txt"), nodes, f"{name}_node_labels.txt")
        self._classes = _lines_of(read("_graph_labels.txt"), self.graphs, f"{name}_graph_labels.txt")
        # Both in the order of the graphs, and where each graph's begin.
        self._nodes = np.argsort(graph_of, kind="stable")
        self._first_node = np.searchsorted(graph_of[self._nodes], np.arange(1, self.graphs + 2))
        self._place = np.empty(nodes, np.int64)
        self._place[self._nodes] = np.arange(nodes)
        order = np.argsort(graph_of[one], kind="stable")
        self._ends = np.stack([one[order], other[order]], 1)
        self._first_edge = np.searchsorted(graph_of[one[order]], np.arange(1, self.graphs + 2))

    def class_of(self, number: int) -> str | None:
        """The class of graph `number`, from 1."""
        return self._classes[number - 1] if self._classes is not None else None

    def read(self, number: int) -> bytes:
        """Graph `number`, from 1."""
        if not 1 <= number <= self.graphs:
            raise ValueError(f"it has no graph {number}")
        start, end = self._first_node[number - 1 : number + 1]
        nodes: list[dict[str, Any]] = [{"id": place} for place in range(end - start)]
        if self._tags is not None:
            for node, place in zip(nodes, self._nodes[start:end], strict=True):
                node["tag"] = self._tags[place]
        edges = self._place[self._ends[slice(*self._first_edge[number - 1 : number + 1])]] - start
        pairs = np.unique(np.sort(edges, axis=1), axis=0)  # each is there both ways
        return _as_json(nodes, pairs.tolist())


def _names_in(folder: str) -> list[str]:
    if os.path.isabs(folder):
        return os.listdir(folder)
    filesystem, path = fsspec.core.url_to_fs(folder)
    return [str(one).rstrip("/").rpartition("/")[2] for one in filesystem.ls(path, detail=False)]


def _numbers(data: bytes | None, name: str, columns: int) -> list[Ints]:
    """The columns of a file of whole numbers between commas. Raises `ValueError`."""
    if not (data or b"").strip():
        return [np.zeros(0, np.int64)] * columns
    names = [str(column) for column in range(columns)]
    try:
        table = pyarrow.csv.read_csv(
            io.BytesIO(data or b""),
            pyarrow.csv.ReadOptions(column_names=names),
            convert_options=pyarrow.csv.ConvertOptions(column_types=dict.fromkeys(names, pa.int64())),
        )
    except ValueError as error:
        raise ValueError(f"{name} is broken or truncated ({error})") from None
    if any(column.null_count for column in table.columns):
        raise ValueError(f"{name} is broken or truncated: a number is missing")
    return [column.to_numpy() for column in table.columns]


def _lines_of(data: bytes | None, count: int, name: str) -> list[str] | None:
    if data is None:
        return None
    lines = [line.strip() for line in data.decode(errors="replace").splitlines() if line.strip()]
    if len(lines) != count:
        raise ValueError(f"{name} has {len(lines):,} lines and not {count:,}: broken or truncated")
    return lines


def _as_json(nodes: Sequence[Attributes], edges: Sequence[Sequence[Any]]) -> bytes:
    return json.dumps({"nodes": nodes, "edges": edges}, ensure_ascii=False, separators=(",", ":")).encode(
        errors="surrogatepass"
    )


# ---- molecules ----


class Molecules:
    """An SDF file, or one with a SMILES a line and perhaps a name after it. Only where each begins is in memory. Raises
    `OSError`.
    """

    def __init__(self, place: str) -> None:
        self._starts = array("Q")
        self._is_sdf = place.lower().endswith(MOLECULES[0])
        self._file, self._lock = open_binary(place), threading.Lock()
        weakref.finalize(self, self._file.close)
        start = end = 0
        filled = False
        for line in self._file:
            end += len(line)
            filled = filled or bool(line.strip())
            if self._is_sdf and not line.startswith(RECORD_END.encode()):
                continue
            if filled:
                self._starts.append(start)
            start, filled = end, False
        if filled:  # the last one, cut off or without its end
            self._starts.append(start)
        self._starts.append(end)

    def __len__(self) -> int:
        return len(self._starts) - 1

    def read(self, number: int) -> bytes:
        """Record `number`, from 0."""
        if not 0 <= number < len(self):
            raise ValueError(f"it has no molecule {number}")
        with self._lock:
            self._file.seek(self._starts[number])
            return self._file.read(self._starts[number + 1] - self._starts[number])

    def name(self, data: bytes) -> str:
        """A record's own name; empty without one."""
        text = data.decode(errors="replace").lstrip("\r\n" if not self._is_sdf else "")
        first = text.splitlines()[0] if text else ""
        return first.strip() if self._is_sdf else " ".join(first.split()[1:])

    @staticmethod
    def value(data: bytes, field: str) -> str | None:
        """The first line of a field of an SDF record (`> <field>`)."""
        lines = iter(data.decode(errors="replace").splitlines())
        for line in lines:
            if line.startswith(">") and f"<{field.casefold()}>" in line.casefold():
                return next(lines, "").strip() or None
        return None


# ---- one graph whose nodes are the items ----


class NodeOptions:
    """Options of a graph whose nodes are items, as the place of a source says them: `#nodes&hops=1&most=32`.

    hops        edges between the node and the furthest one of its item
    most        nodes of an item; of more, those of the last hop are drawn at random, the same each time
    tag         the attribute that says what nodes are; None where the graph is to tell, empty for none
    attributes  a file beside the edges with a line a node
    """

    def __init__(self, text: str = "") -> None:
        """text: `&hops=1&most=32`. Raises `SourceUnreadable`."""
        told = dict(parse_qsl(text.lstrip("&"), keep_blank_values=True))
        unknown = told.keys() - {"hops", "most", "tag", "attributes"}
        try:
            self.hops, self.most = int(told.pop("hops", HOPS)), int(told.pop("most", NODES))
        except ValueError:
            self.hops = self.most = 0
        if unknown or not (1 <= self.hops <= MOST_HOPS and 2 <= self.most <= MOST_NODES):
            raise SourceUnreadable(
                uri=f"#nodes{text}",
                reason=f"after `#nodes` there may stand `&hops=` (1 to {MOST_HOPS}, else {HOPS}), `&most=` (nodes of "
                f"an item, 2 to {MOST_NODES:,}, else {NODES}), `&tag=` and `&attributes=`",
            )
        self.tag, self.attributes = told.get("tag"), told.get("attributes")
        self.place_of_attributes: str | None = None  # as it may be read; whoever knows the roots sets it

    def __str__(self) -> str:
        told = {"hops": self.hops, "most": self.most, "tag": self.tag, "attributes": self.attributes}
        return "&" + urlencode(
            {name: one for name, one in told.items() if one is not None}, safe="/", quote_via=quote
        )


def node_uri(file: str, node: str, options: str) -> str:
    """options: as text"""
    return f"{file}#node={quote(node, safe='', errors='surrogatepass')}{options}"


class Network:
    """A graph in memory: for each node its id, attributes and neighbours. Raises `BadItem`, `ValueError`, `OSError`.

    An item is the ego network of a node: all nodes within some hops of it, and the edges between them. Where these are
    too many, nodes of the last hop are drawn at random, as Hamilton et al. 2017 do ("Inductive Representation
    Learning on Large Graphs", https://arxiv.org/abs/1706.02216), here by a hash of their ids, so that an item stays the
    same. The node itself is marked in its tag, as else no network could tell it from its neighbours (You et al. 2021,
    "Identity-aware Graph Neural Networks", https://arxiv.org/abs/2101.10320).
    """

    def __init__(self, place: str, attributes: str | None) -> None:
        graph = _parsed_network(place, attributes)
        self.ids = [one if isinstance(one, str) else json.dumps(one, sort_keys=True) for one in graph.ids]
        if not self.ids:
            raise ValueError("it has no nodes")
        self.attributes = graph.attributes
        # Inside, nodes have their numbers at random: the first neighbours of a node are a random draw of them.
        self._order = np.argsort(
            [crc32(name.encode(errors="surrogatepass")) for name in self.ids], kind="stable"
        )
        self._numbers = {self.ids[place]: number for number, place in enumerate(self._order.tolist())}
        if len(self._numbers) < len(self.ids):
            raise ValueError("two of its nodes have the same id")
        count = len(self.ids)
        number_of = np.empty(count, np.int64)
        number_of[self._order] = np.arange(count)
        ends = number_of[np.array(graph.ends, np.int64).reshape(-1, 2)]
        ends = ends[ends[:, 0] != ends[:, 1]]
        one, other = np.concatenate([ends, ends[:, ::-1]]).T
        self._edges: Ints = np.unique(one * count + other)  # both ways, in order
        self._first = np.searchsorted(self._edges, np.arange(count + 1) * count)

    def read(self, name: str, options: NodeOptions) -> bytes:
        """The item of a node, by its id."""
        node = self._numbers.get(name)
        if node is None:
            raise ValueError(f"it has no node {short(name)}")
        nodes = self._around(node, options)
        ids = [self.ids[place] for place in self._order[nodes]]
        told = []
        for name_of, place in zip(ids, self._order[nodes].tolist(), strict=True):
            tag = tag_of(self.attributes[place], options.tag) if options.tag else None
            if name_of == name:
                tag = f"*{tag or ''}"
            told.append({"id": name_of} | ({"tag": tag} if tag is not None else {}))
        earlier, later = np.triu_indices(len(nodes), 1)
        there = self._are_edges(nodes[earlier] * len(self.ids) + nodes[later])
        pairs = zip(earlier[there].tolist(), later[there].tolist(), strict=True)
        return _as_json(told, [[ids[one], ids[other]] for one, other in pairs])

    def _around(self, node: int, options: NodeOptions) -> Ints:
        """The node, then those of each hop."""
        found = np.array([node])
        last = found
        for _ in range(options.hops):
            starts, ends = self._first[last], self._first[last + 1]
            ends = np.minimum(ends, starts + options.most)  # no more of a node's are ever drawn
            near = [self._edges[start:end] % len(self.ids) for start, end in zip(starts, ends, strict=True)]
            last = np.setdiff1d(np.concatenate(near), found)[: options.most - len(found)]
            found = np.concatenate([found, last])
            if not len(last):
                break
        return found

    def _are_edges(self, wanted: Ints) -> npt.NDArray[np.bool_]:
        if not len(self._edges):
            return np.zeros(len(wanted), np.bool_)
        place = np.minimum(np.searchsorted(self._edges, wanted), len(self._edges) - 1)
        found: npt.NDArray[np.bool_] = self._edges[place] == wanted
        return found


def _parsed_network(place: str, attributes: str | None) -> Parsed:
    data = _network_bytes(place)
    if attributes is not None:
        nodes, edges = as_text(_network_bytes(attributes)), as_text(data)
        if nodes is None or edges is None:
            raise ValueError(
                "with `&attributes=` both files are UTF-8 text, a line an edge and a line a node"
            )
        return of_edge_list(edges, nodes)
    found = parsed(data)
    if found is None:
        raise ValueError("no graph: one whose nodes are items is GraphML, node-link JSON or an edge list")
    return found


def _network_bytes(place: str) -> bytes:
    try:
        return _bytes_of(place, _LARGEST)
    except TooLarge:
        name, most = PurePosixPath(place).name, _LARGEST // 2**20
        raise ValueError(
            f"{name!r} has more than {most} MiB, the most of a graph whose nodes are items"
        ) from None

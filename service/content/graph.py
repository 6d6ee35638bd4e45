"""Graphs: one an item, as node-link JSON or GraphML, to nodes with a tag each and the edges between them."""

import io
import json
import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from json.encoder import encode_basestring_ascii
from typing import Any, ClassVar
from xml.etree import ElementTree
from zlib import crc32

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from service.content.contract import Facts, Limits, Preview
from service.content.mistaken import mistaken
from service.errors import BadItem

# What a node is: the first of these attributes that any node has. Names tell nodes apart, not what they are.
_TAGS = ("tag", "label", "type", "kind", "category", "element", "symbol", "atom", "class")
_EDGES = ("edges", "links")  # networkx wrote `links` until its version 3.4
_TOLD = 60  # characters of what was found

_PICTURE = 640  # pixels a side where nobody says
_DRAWN = 150  # nodes; of a larger graph so many around the one with most edges
_STEPS = 80  # of the layout
_FINE = 2  # pixels drawn for each that is shown
_LINE, _RIM = (148, 163, 184), (51, 65, 85)
# Okabe and Ito 2008: eight colours that people who see fewer colours tell apart, less black.
_COLOURS = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (0, 114, 178),
    (213, 94, 0),
    (204, 121, 167),
)


@dataclass(frozen=True)
class Graph:
    """tags: of each node, None where none has any. edges: pairs of places in `tags`, each once and without a direction;
    loops: edges from a node to itself, which are left out of them.
    """

    tags: list[str | None]
    edges: list[tuple[int, int]]
    loops: int

    def neighbours(self) -> list[list[int]]:
        found: list[list[int]] = [[] for _ in self.tags]
        for one, other in self.edges:
            found[one].append(other)
            found[other].append(one)
        return found

    def in_order(self, near: list[list[int]] | None = None) -> list[int]:
        """The nodes, breadth first from the one with most edges; then so the next component's. So neighbours are near
        each other, and the first of them are a connected part. near: the neighbours, where they are known.
        """
        near = self.neighbours() if near is None else near
        order: list[int] = []
        seen = [False] * len(near)
        for first in sorted(range(len(near)), key=lambda node: (-len(near[node]), node)):
            if seen[first]:
                continue
            seen[first] = True
            waiting = deque([first])
            while waiting:
                node = waiting.popleft()
                order.append(node)
                for other in near[node]:
                    if not seen[other]:
                        seen[other] = True
                        waiting.append(other)
        return order


def read_graph(data: bytes, limits: Limits) -> Graph:
    """Raises `BadItem`."""
    if not data.strip():
        raise BadItem(reason="it is empty")
    if len(data) > limits.max_graph_bytes:
        raise BadItem(
            reason=f"{len(data)} bytes are more than {limits.max_graph_bytes} allowed (SHORTLIST_MAX_GRAPH_BYTES)"
        )
    if (found := mistaken(data)) is not None:
        raise BadItem(reason=f"it is {found}")
    start = data.lstrip(b"\xef\xbb\xbf \t\r\n")[:1]
    try:
        if start == b"<":
            nodes, edges = _of_graphml(data)
        elif start == b"{":
            nodes, edges = _of_json(data)
        else:
            raise BadItem(reason=f"not a graph in a supported format ({', '.join(CONTENT.formats)})")
    except RecursionError:
        raise BadItem(reason="broken: it is nested too deeply") from None
    if not nodes:
        raise BadItem(reason="it has no nodes")
    return _graph(nodes, edges)


def _of_json(data: bytes) -> tuple[dict[str, Mapping[str, Any]], list[tuple[str, str]]]:
    try:
        found = json.loads(data)
    except ValueError as error:
        raise BadItem(reason=f"broken or truncated JSON ({error})") from None
    nodes = found.get("nodes")
    edges = next((found[name] for name in _EDGES if name in found), None)
    if not isinstance(nodes, list) or not isinstance(edges, list):
        raise BadItem(reason="its JSON is no graph: it needs lists `nodes` and `edges` (or `links`)")
    attributes: dict[str, Mapping[str, Any]] = {}
    for place, node in enumerate(nodes):
        known = node if isinstance(node, dict) else {"id": node}
        name = _name(known.get("id", place))
        if name in attributes:
            raise BadItem(reason=f"two of its nodes have the id {_short(name)}")
        attributes[name] = known
    pairs = []
    for edge in edges:
        if isinstance(edge, dict) and "source" in edge and "target" in edge:
            pairs.append((_name(edge["source"]), _name(edge["target"])))
        elif isinstance(edge, list) and len(edge) >= 2:
            pairs.append((_name(edge[0]), _name(edge[1])))
        else:
            raise BadItem(
                reason=f"an edge has no `source` and `target`: {_short(json.dumps(edge, ensure_ascii=False))}"
            )
    return attributes, pairs


def _name(value: Any) -> str:
    """A node's id as JSON writes it: 1 and "1" are two nodes."""
    # What nearly all ids are, without an encoder for each: it took half of the time that a graph takes to be read.
    if type(value) is int:
        return str(value)
    if type(value) is str:
        return encode_basestring_ascii(value)
    return json.dumps(value, sort_keys=True)


def _of_graphml(data: bytes) -> tuple[dict[str, Mapping[str, Any]], list[tuple[str, str]]]:
    """Brandes et al. 2002, http://graphml.graphdrawing.org: of the first graph nodes, edges and data of nodes."""
    if b"<!DOCTYPE" in data or b"<!ENTITY" in data:
        raise BadItem(reason="its XML declares entities, which are not read: save it without a DOCTYPE")
    try:
        root = ElementTree.fromstring(data)
    except ElementTree.ParseError as error:
        raise BadItem(reason=f"broken or truncated XML ({error})") from None
    except (ValueError, LookupError) as error:  # an encoding that nobody knows
        raise BadItem(reason=f"its XML cannot be read ({error})") from None
    if _local(root) != "graphml":
        raise BadItem(reason=f"its XML is no GraphML: it begins with <{_short(_local(root))}>")
    graph = next((one for one in root if _local(one) == "graph"), None)
    if graph is None:
        raise BadItem(reason="it has no graph in it")
    keys = {one.get("id"): one.get("attr.name", one.get("id")) for one in root if _local(one) == "key"}
    attributes: dict[str, Mapping[str, Any]] = {}
    pairs = []
    for part in graph:
        kind = _local(part)
        if kind == "node":
            name = part.get("id", "")
            if name in attributes:
                raise BadItem(reason=f"two of its nodes have the id {_short(name)}")
            attributes[name] = {
                str(keys.get(one.get("key"))): one.text for one in part if _local(one) == "data"
            }
        elif kind == "edge":
            pairs.append((part.get("source", ""), part.get("target", "")))
        elif kind == "hyperedge":
            raise BadItem(reason="it has edges between more than two nodes (hyperedge)")
    return attributes, pairs


def _local(element: ElementTree.Element) -> str:
    return str(element.tag).rpartition("}")[2]


def _graph(nodes: Mapping[str, Mapping[str, Any]], pairs: Sequence[tuple[str, str]]) -> Graph:
    places = {name: place for place, name in enumerate(nodes)}
    edges: set[tuple[int, int]] = set()
    loops = 0
    for one, other in pairs:
        if one not in places or other not in places:
            missing = one if one not in places else other
            raise BadItem(reason=f"an edge names the node {_short(missing)}, which is not among its nodes")
        first, last = places[one], places[other]
        if first == last:
            loops += 1
        else:
            edges.add((first, last) if first < last else (last, first))
    wanted = next((name for name in _TAGS if any(name in one for one in nodes.values())), None)
    tags = [None if wanted is None or one.get(wanted) is None else str(one[wanted]) for one in nodes.values()]
    return Graph(tags, sorted(edges), loops)


def _short(text: str) -> str:
    return text if len(text) <= _TOLD else f"{text[:_TOLD]}…"


def facts_of(graph: Graph) -> Facts:
    kinds = {tag for tag in graph.tags if tag is not None}
    facts = {"nodes": len(graph.tags), "edges": len(graph.edges), "tags": len(kinds)}
    return facts | ({"loops": graph.loops} if graph.loops else {})


class Graphs:
    """Molecules, networks of people, call graphs: a graph is an item."""

    name: ClassVar[str] = "graph"
    suffixes: ClassVar[frozenset[str]] = frozenset({".graphml"})
    shared_suffixes: ClassVar[frozenset[str]] = frozenset({".json"})  # which is mostly something else
    columns: ClassVar[tuple[str, ...]] = ("graph", "graphml", "node_link")
    formats: ClassVar[tuple[str, ...]] = ("GraphML", "node-link JSON")
    binary: ClassVar[bool] = False
    has_text: ClassVar[bool] = False
    default_task: ClassVar[str] = "attribute_masking"
    shown_as: ClassVar[str | None] = "image/png"

    def inspect(self, data: bytes, limits: Limits) -> Facts:
        return facts_of(read_graph(data, limits))

    def preview(
        self, data: bytes, limits: Limits, size: int | None, settings: Mapping[str, Any] | None = None
    ) -> Preview:
        """A drawing, the same each time: nodes in the colours of their tags, neighbours near each other."""
        buffer = io.BytesIO()
        _drawing(read_graph(data, limits), size or _PICTURE).save(buffer, "PNG")
        return Preview("image/png", buffer.getvalue())

    def text(self, data: bytes, limits: Limits) -> None:
        return None


CONTENT = Graphs()


# ---- the drawing ----


def _drawing(graph: Graph, side: int) -> Image.Image:
    drawn = graph.in_order()[:_DRAWN]
    at = {node: place for place, node in enumerate(drawn)}
    edges = [(at[one], at[other]) for one, other in graph.edges if one in at and other in at]
    large = side * _FINE
    radius = min(large / 30, large / (4 * math.sqrt(len(drawn)) + 8))
    points = _layout(len(drawn), edges) * (large - 4 * radius) + 2 * radius
    image = Image.new("RGB", (large, large), "white")
    draw = ImageDraw.Draw(image)
    for one, other in edges:
        line = [*points[one], *points[other]]
        draw.line(line, fill=_LINE, width=max(1, round(radius / 4)))
    for place, node in enumerate(drawn):
        x, y = points[place]
        tag = graph.tags[node]
        fill = "white" if tag is None else _COLOURS[crc32(tag.encode(errors="replace")) % len(_COLOURS)]
        corners = (x - radius, y - radius, x + radius, y + radius)
        draw.ellipse(corners, fill=fill, outline=_RIM, width=max(1, round(radius / 8)))
        if tag is not None and len(tag) <= 3 and radius / _FINE >= 7:
            draw.text((x, y), tag, fill="black", anchor="mm", font_size=1.1 * radius)
    return image.resize((side, side), Image.Resampling.LANCZOS)


def _layout(n: int, edges: Sequence[tuple[int, int]]) -> npt.NDArray[np.float64]:
    """(n, 2) in 0..1, from a circle in the order of the nodes: Fruchterman and Reingold 1991, "Graph Drawing by
    Force-directed Placement", https://doi.org/10.1002/spe.4380211102.
    """
    angles = 2 * np.pi * np.arange(n) / n
    points = np.stack([np.cos(angles), np.sin(angles)], 1) / 2
    near = np.zeros((n, n))
    for one, other in edges:
        near[one, other] = near[other, one] = 1
    length = 1 / math.sqrt(n)
    for step in range(_STEPS):
        apart = points[:, None] - points[None]
        distances = np.maximum(np.sqrt((apart**2).sum(2)), 1e-3)
        # Near each other's place at rest; the last part draws components of the graph together.
        forces = length**2 / distances**2 - near * distances / length - 0.02
        moves = (apart * forces[:, :, None]).sum(1)
        sizes = np.maximum(np.sqrt((moves**2).sum(1, keepdims=True)), 1e-9)
        points = points + moves / sizes * np.minimum(sizes, 0.1 * (1 - step / _STEPS))
    low, high = points.min(0), points.max(0)
    spread = max(float((high - low).max()), 1e-9)
    found: npt.NDArray[np.float64] = (points - (low + high) / 2) / spread + 0.5
    return found

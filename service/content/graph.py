"""Graphs: one an item, as node-link JSON, GraphML, an edge list or a molecule, to nodes with a tag each and the edges
between them.
"""

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar
from zlib import crc32

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from service.content.contract import Facts, Limits, Preview
from service.content.graph_formats import EDGE_LISTS, parsed
from service.content.mistaken import archive, mistaken
from service.content.molecules import MOLECULES, molecule
from service.errors import BadItem

# What a node is: the first of these attributes that any node has. Names tell nodes apart, not what they are.
_TAGS = ("tag", "label", "type", "kind", "category", "element", "symbol", "atom", "class")

_MOST_EDGES = 500_000  # of an edge list; a graph has a few hundred bytes in memory for each

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
        edges = list(map(len, near))
        seen = [False] * len(near)
        order = _component(edges.index(max(edges)), near, seen)
        if len(order) == len(near):  # as of most graphs
            return order
        for first in sorted(range(len(near)), key=lambda node: (-edges[node], node)):
            if not seen[first]:
                order += _component(first, near, seen)
        return order


def _component(first: int, near: Sequence[Sequence[int]], seen: list[bool]) -> list[int]:
    """All nodes that are connected with one, breadth first; seen: nodes to leave out, itself changed."""
    order = [first]
    seen[first] = True
    for node in order:  # grows meanwhile
        for other in near[node]:
            if not seen[other]:
                seen[other] = True
                order.append(other)
    return order


def read_graph(data: bytes, limits: Limits) -> Graph:
    """Raises `BadItem`."""
    if not data.strip():
        raise BadItem(reason="it is empty")
    if len(data) > limits.max_graph_bytes:
        raise BadItem(
            reason=f"{len(data)} bytes are more than {limits.max_graph_bytes} allowed (SHORTLIST_MAX_GRAPH_BYTES)"
        )
    if (found := mistaken(data) or archive(data)) is not None:
        raise BadItem(reason=f"it is {found}")
    graph = parsed(data, _MOST_EDGES) or molecule(data)
    if graph is None:
        raise BadItem(reason=f"not a graph in a supported format ({', '.join(CONTENT.formats)})")
    if not graph.ids:
        raise BadItem(reason="it has no nodes")
    loops = sum(one == other for one, other in graph.ends)
    edges = {(one, other) if one < other else (other, one) for one, other in graph.ends if one != other}
    wanted = tag_name(graph.attributes)
    tags = [None if wanted is None else tag_of(one, wanted) for one in graph.attributes]
    return Graph(tags, sorted(edges), loops)


def tag_name(attributes: Sequence[Mapping[str, Any]], but: str | None = None) -> str | None:
    """The attribute that says what nodes are; None where no node has one. but: the name of one that is not meant."""
    return next((name for name in _TAGS if name != but and any(name in one for one in attributes)), None)


def tag_of(attributes: Mapping[str, Any], name: str) -> str | None:
    found = attributes.get(name)
    return None if found is None else str(found)


def facts_of(graph: Graph) -> Facts:
    kinds = {tag for tag in graph.tags if tag is not None}
    facts = {"nodes": len(graph.tags), "edges": len(graph.edges), "tags": len(kinds)}
    return facts | ({"loops": graph.loops} if graph.loops else {})


class Graphs:
    """Molecules, networks of people, call graphs: a graph is an item."""

    name: ClassVar[str] = "graph"
    suffixes: ClassVar[frozenset[str]] = frozenset({".graphml", ".mol", *EDGE_LISTS, *MOLECULES})
    shared_suffixes: ClassVar[frozenset[str]] = frozenset({".json"})  # which is mostly something else
    columns: ClassVar[tuple[str, ...]] = ("graph", "graphml", "node_link", "smiles", "canonical_smiles")
    formats: ClassVar[tuple[str, ...]] = (
        "GraphML",
        "node-link JSON",
        "edge list",
        "SMILES",
        "SDF",
        "TU Dortmund",
    )
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

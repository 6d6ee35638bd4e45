"""Graphs in files: node-link JSON, GraphML and edge lists, to nodes with attributes and pairs of them."""

import json
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

from service.errors import BadItem

NODES = "# nodes"  # the line of an edge list after which nodes follow, with a tag each
EDGE_LISTS = (".edges", ".edgelist")
_EDGES = ("edges", "links")  # networkx wrote `links` until its version 3.4
_TOLD = 60  # characters of what was found
_COMMENTS = ("#", "%")
_MOST_COLUMNS = 4  # of an edge: its two nodes, perhaps a weight and a time; prose has more words a line
_LOOKED_AT = 4_096  # characters that tell an edge list
_HEADERS = ("source", "from", "src", "node1", "node_1", "id1", "id_1")
_NODE_HEADERS = ("id", "node", "node_id", "key", "name")

Attributes = Mapping[str, Any]
Ends = tuple[int, int]


@dataclass(frozen=True)
class Parsed:
    """ids: of the nodes, as their file has them; attributes: of each node; ends: of each edge the places of its nodes,
    in the order of the file, with loops and repeats.
    """

    ids: Sequence[Any]
    attributes: Sequence[Attributes]
    ends: Sequence[Ends]


def parsed(data: bytes, most: int | None = None) -> Parsed | None:
    """A graph in JSON, XML, or lines of text; None for what is none of these. most: lines that an edge list may have.
    Raises `BadItem`.
    """
    start = data.lstrip(b"\xef\xbb\xbf \t\r\n")[:1]
    try:
        if start == b"<":
            return _of_graphml(data)
        if start == b"{":
            return _of_json(data)
    except RecursionError:
        raise BadItem(reason="broken: it is nested too deeply") from None
    text = as_text(data)
    if text is None or not _is_edge_list(text):
        return None
    if most is not None and (count := text.count("\n")) > most:
        raise BadItem(
            reason=f"its edge list has {count:,} lines, more than {most:,}: split it into its components"
        )
    return of_edge_list(text)


def as_text(data: bytes) -> str | None:
    """None for what is no UTF-8 text."""
    if b"\0" in data:
        return None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return None


def short(text: str) -> str:
    return text if len(text) <= _TOLD else f"{text[:_TOLD]}…"


# ---- node-link JSON ----


def _of_json(data: bytes) -> Parsed:
    try:
        found = json.loads(data)
    except ValueError as error:
        raise BadItem(reason=f"broken or truncated JSON ({error})") from None
    nodes = found.get("nodes")
    edges = next((found[name] for name in _EDGES if name in found), None)
    if not isinstance(nodes, list) or not isinstance(edges, list):
        raise BadItem(reason="its JSON is no graph: it needs lists `nodes` and `edges` (or `links`)")
    attributes = [node if isinstance(node, dict) else {"id": node} for node in nodes]
    ids = [one.get("id", place) for place, one in enumerate(attributes)]
    places = _places(map(_key, ids))
    if len(places) < len(ids):
        raise _two_of_one_id([_key(one) for one in ids])
    return Parsed(ids, attributes, _ends(edges, places))


def _key(value: Any) -> Hashable:
    """A node's id to look it up by: 1 and "1" are two nodes."""
    return value if type(value) in (int, str) else ("JSON", json.dumps(value, sort_keys=True))


def _places(keys: Iterable[Hashable]) -> dict[Hashable, int]:
    return {key: place for place, key in enumerate(keys)}


def _two_of_one_id(keys: Sequence[Hashable]) -> BadItem:
    twice = next(key for place, key in enumerate(keys) if key in keys[:place])
    return BadItem(reason=f"two of its nodes have the id {short(_shown(twice))}")


def _ends(edges: Sequence[Any], places: Mapping[Hashable, int]) -> list[Ends]:
    """By the whole list where all is well: an edge at a time takes twice as long as reading the JSON does."""
    kinds = set(map(type, edges))
    try:
        if kinds == {dict}:
            return [(places[edge["source"]], places[edge["target"]]) for edge in edges]
        if kinds == {list}:
            return [(places[edge[0]], places[edge[1]]) for edge in edges]
    except (KeyError, IndexError, TypeError):
        pass
    return [_end(edge, places) for edge in edges]


def _end(edge: Any, places: Mapping[Hashable, int]) -> Ends:
    if isinstance(edge, dict) and "source" in edge and "target" in edge:
        both = _key(edge["source"]), _key(edge["target"])
    elif isinstance(edge, list) and len(edge) >= 2:
        both = _key(edge[0]), _key(edge[1])
    else:
        said = short(json.dumps(edge, ensure_ascii=False))
        raise BadItem(reason=f"an edge has no `source` and `target`: {said}")
    return _place(both[0], places), _place(both[1], places)


def _place(key: Hashable, places: Mapping[Hashable, int]) -> int:
    if key not in places:
        raise BadItem(reason=f"an edge names the node {short(_shown(key))}, which is not among its nodes")
    return places[key]


def _shown(key: Hashable) -> str:
    return key[1] if isinstance(key, tuple) else json.dumps(key, ensure_ascii=False)


# ---- GraphML ----


def _of_graphml(data: bytes) -> Parsed:
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
        raise BadItem(reason=f"its XML is no GraphML: it begins with <{short(_local(root))}>")
    graph = next((one for one in root if _local(one) == "graph"), None)
    if graph is None:
        raise BadItem(reason="it has no graph in it")
    keys = {one.get("id"): one.get("attr.name", one.get("id")) for one in root if _local(one) == "key"}
    attributes: dict[str, Attributes] = {}
    pairs = []
    for part in graph:
        kind = _local(part)
        if kind == "node":
            name = part.get("id", "")
            if name in attributes:
                raise BadItem(reason=f"two of its nodes have the id {short(name)}")
            attributes[name] = {
                str(keys.get(one.get("key"))): one.text for one in part if _local(one) == "data"
            }
        elif kind == "edge":
            pairs.append((part.get("source", ""), part.get("target", "")))
        elif kind == "hyperedge":
            raise BadItem(reason="it has edges between more than two nodes (hyperedge)")
    places = _places(attributes)
    ends = [(_place(one, places), _place(other, places)) for one, other in pairs]
    return Parsed(list(attributes), list(attributes.values()), ends)


def _local(element: ElementTree.Element) -> str:
    return str(element.tag).rpartition("}")[2]


# ---- edge lists ----


def of_edge_list(text: str, nodes: str = "") -> Parsed:
    """A line an edge, `source target` and perhaps a weight and a time, between spaces, tabs, commas or semicolons.
    After a line `# nodes`, or in a text of their own, a line a node: its id, and its tag or what the header names.
    Raises `BadItem`.
    """
    edges, _, inside = f"\n{text}\n".partition(f"\n{NODES}\n")
    attributes: dict[str, Attributes] = {}
    for name, told in _nodes(inside):
        if name in attributes:
            raise BadItem(reason=f"two of its nodes have the id {short(name)}")
        attributes[name] = told
    attributes |= dict(_nodes(nodes))
    places = {name: place for place, name in enumerate(attributes)}
    ends = []
    for number, (line, cells) in enumerate(_lines(edges)):
        if number == 0 and cells[0].lower() in _HEADERS:
            continue
        if not 2 <= len(cells) <= _MOST_COLUMNS:
            raise BadItem(
                reason=f"broken or truncated: line {line} of its edges is no pair of nodes: {short(' '.join(cells))}"
            )
        ends.append((places.setdefault(cells[0], len(places)), places.setdefault(cells[1], len(places))))
    alone: list[Attributes] = [{}] * (len(places) - len(attributes))
    return Parsed(list(places), [*attributes.values(), *alone], ends)


def _is_edge_list(text: str) -> bool:
    """True where it looks like one: by its second line, or by a first one that begins with a number or a comment. A
    line alone, as `CCO ethanol`, is a molecule.
    """
    lines = [cells for _, cells in _lines(text[:_LOOKED_AT].partition(NODES)[0])][:2]
    if any(not 2 <= len(cells) <= _MOST_COLUMNS for cells in lines):
        return False
    return len(lines) > 1 or text.lstrip()[:1].isdigit() or text.lstrip().startswith(_COMMENTS)


def _lines(text: str) -> Iterator[tuple[int, list[str]]]:
    """Each line that is neither empty nor a comment: its number, from 1, and its cells."""
    between: str | None = None
    for number, line in enumerate(text.strip("\n").splitlines(), 1):
        stripped = line.strip()
        if not stripped or stripped.startswith(_COMMENTS):
            continue
        if between is None:
            between = next((one for one in "\t,;" if one in stripped), "")
        yield number, [cell.strip().strip('"') for cell in stripped.split(between or None)]


def _nodes(text: str) -> Iterator[tuple[str, Attributes]]:
    header: list[str] | None = None
    for _, cells in _lines(text):
        if header is None:
            header = ["id", "tag"]
            if cells[0].lower() in _NODE_HEADERS:
                header = cells
                continue
        yield cells[0], dict(zip(header[1:], cells[1:], strict=False))

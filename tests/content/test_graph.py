"""Graphs: facts, order, drawings, and reasons."""

import gzip
import io
import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from service.content.contract import Limits
from service.content.graph import CONTENT, read_graph
from service.content.reader import ItemBytes
from service.content.sources import list_source
from service.errors import BadItem
from service.settings import Settings
from tests.journeys.drawings import graph, graphml

LIMITS = Limits(max_pixels=10**6, max_text_bytes=10**6)


def as_json(found: object) -> bytes:
    return json.dumps(found).encode()


def test_json_and_graphml_say_the_same() -> None:
    nodes = [{"id": f"n{node}", "element": "C"} for node in range(4)]
    edges = [{"source": "n0", "target": "n1"}, {"source": "n2", "target": "n1"}]
    for name in ("edges", "links"):
        found = read_graph(as_json({"nodes": nodes, name: edges}), LIMITS)
        assert found == read_graph(graphml(4, [(0, 1), (2, 1)]), LIMITS)
    assert found.edges == [(0, 1), (1, 2)]
    pairs = read_graph(as_json({"nodes": [1, 2], "edges": [[1, 2], [2, 1], [1, 1]]}), LIMITS)
    assert (pairs.tags, pairs.edges, pairs.loops) == ([None, None], [(0, 1)], 1)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"{", "truncated JSON"),
        (b"[1]", "supported format"),
        (as_json({"nodes": 3, "edges": []}), "needs lists"),
        (as_json({"nodes": []}), "needs lists"),
        (as_json({"nodes": [], "edges": []}), "no nodes"),
        (as_json({"nodes": [1, 1], "edges": []}), "two of its nodes"),
        (as_json({"nodes": [1], "edges": [3]}), "no `source`"),
        (as_json({"nodes": [1], "edges": [{"source": 1, "target": "1"}]}), "not among its nodes"),
        (b'{"a":' * 100_000, "broken"),
        (b"<a>" * 100_000, "truncated XML"),
        (b"<?xml version='1.0' encoding='no such'?><graphml/>", "XML"),
        (b"<graphml/>", "no graph in it"),
        (b"<graphml><graph><hyperedge/></graph></graphml>", "hyperedge"),
        (b"{" + b" " * 16 * 2**20, "SHORTLIST_MAX_GRAPH_BYTES"),
    ],
)
def test_reasons(data: bytes, words: str) -> None:
    with pytest.raises(BadItem) as raised:
        CONTENT.inspect(data, LIMITS)
    assert words in str(raised.value.fields["reason"])


def test_broken_files_are_quarantined_and_odd_ones_taken(tmp_path: Path) -> None:
    """From the disk, as an import reads them."""
    whole, edges = graphml(4, [(0, 1), (1, 2)]), "".join(f"{n} {n + 1}\n" for n in range(600_000))
    bomb = b"<!DOCTYPE b [<!ENTITY a 'aaaa'><!ENTITY b '&a;&a;&a;&a;'>]>" + whole
    broken = {
        "truncated.graphml": (whole[:200], "truncated XML"),
        "picture.graphml": (b"\x89PNG\r\n\x1a\n" + bytes(50), "supported format"),
        "empty.edges": (b"", "empty"),
        "blank.graphml": (b" \n ", "empty"),
        "bomb.graphml": (bomb, "declares entities"),
        "packed.json": (gzip.compress(bytes(10**7)), "gzip"),
        "million.edges": (edges.encode(), "600,000 lines, more than 500,000"),
        "large.json": (b'{"nodes":[' + b"1," * 9 * 2**20, "SHORTLIST_MAX_GRAPH_BYTES"),
        "page.graphml": (b"<!doctype html><p>Log in</p>", "saved web page"),
        "prose.edges": (b"This is what the folder holds:\nsome graphs, and notes.\n", "supported format"),
        "cut.edges": (b"1 2\n2 3\n3\n", "line 3 of its edges"),
        "dangling.json": (as_json({"nodes": [1], "edges": [[1, 2]]}), "not among its nodes"),
    }
    odd = {
        "loops.edges": (b"1 1\n1 2\n", {"nodes": 2, "edges": 1, "tags": 0, "loops": 1}),
        "apart.edges": (b"1 2\n3 4\n", {"nodes": 4, "edges": 2, "tags": 0}),
        "bare.graphml": (graphml(3, [], None), {"nodes": 3, "edges": 0, "tags": 0}),
    }
    for name, (data, _) in (broken | odd).items():
        (tmp_path / name).write_bytes(data)
    reader = ItemBytes(Settings(source_roots=(str(tmp_path),)))
    listing = list_source(str(tmp_path), reader, None, CONTENT)
    tracemalloc.start()
    for found in listing:
        if found.key in odd:
            assert CONTENT.inspect(reader.read(found.uri), LIMITS) == odd[found.key][1]
            continue
        with pytest.raises(BadItem) as raised:
            CONTENT.inspect(reader.read(found.uri), LIMITS)
        assert broken[found.key][1] in str(raised.value.fields["reason"])
    assert tracemalloc.get_traced_memory()[1] < 100 * 2**20
    tracemalloc.stop()
    assert (listing.refused, listing.ignored) == (0, 0)


def test_the_order_is_breadth_first_from_the_one_with_most_edges() -> None:
    found = read_graph(graphml(7, [(0, 1), (1, 2), (1, 3), (3, 4), (5, 6)]), LIMITS)

    assert found.in_order() == [1, 0, 2, 3, 4, 5, 6]


def test_drawings() -> None:
    data = as_json(graph("ring", 1))
    shown = CONTENT.preview(data, LIMITS, 200)

    assert shown == CONTENT.preview(data, LIMITS, 200)
    pixels = np.asarray(Image.open(io.BytesIO(shown.data)))
    assert pixels.shape == (200, 200, 3)
    inked = pixels.min(axis=2) < 250
    assert 0.02 < inked.mean() < 0.6
    assert inked[:, :100].any()
    assert inked[:, 100:].any()
    for small in (graphml(1, []), graphml(300, [(0, node) for node in range(300)])):
        assert CONTENT.preview(small, LIMITS, None).media_type == "image/png"


def test_json_files_are_graphs_where_the_project_is_of_graphs(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(as_json({"nodes": [1, 2], "edges": [[1, 2]]}))
    reader = ItemBytes(Settings(source_roots=(str(tmp_path),)))
    (found,) = list_source(str(tmp_path), reader, None, CONTENT)

    assert CONTENT.inspect(reader.read(found.uri), LIMITS)["edges"] == 1
    assert list_source(str(tmp_path), reader, None, None).tell() is None

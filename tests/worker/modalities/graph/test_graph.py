"""A graph in one tensor, and what does not depend on how its nodes are numbered."""

import json

import numpy as np
import pytest
import torch

from service.content.contract import Limits
from tests.journeys.drawings import graph, graphml
from worker.modalities.graph import Graph
from worker.modalities.graph.packed import ABSENT, degrees, flat

LIMITS = Limits(max_pixels=10**6, max_text_bytes=10**6)
GRAPHS = Graph(nodes=24, edges=40)
CPU = torch.device("cpu")


def decoded(*made: bytes) -> torch.Tensor:
    return torch.stack([GRAPHS.decode(data, LIMITS)[0] for data in made])


def rings_and_stars(count: int) -> torch.Tensor:
    return decoded(*(json.dumps(graph(("ring", "star")[i % 2], i)).encode() for i in range(count)))


def test_the_pool_decides_what_is_open() -> None:
    facts = [{"nodes": n, "edges": 2 * n} for n in range(1, 101)]
    assert Graph().resolved(facts, CPU) == Graph(nodes=96, edges=192)
    assert Graph().resolved([{"nodes": 10**6, "edges": 10**7}], CPU) == Graph(nodes=256, edges=2_048)
    assert Graph(nodes=5).resolved(facts, CPU) == Graph(nodes=5, edges=40)


def test_unpacked_it_is_the_graph() -> None:
    item = decoded(graphml(5, [(0, 1), (1, 2), (1, 3), (3, 4)]))  # in the order 1 0 2 3 4
    found = flat(item.long(), 24)

    assert len(found.tags) == 5
    assert {tuple(pair) for pair in found.ends.T.tolist()} == {
        (0, 1),
        (1, 0),
        (0, 2),
        (2, 0),
        (0, 3),
        (3, 0),
        (3, 4),
        (4, 3),
    }
    assert degrees(item, 24)[0, :5].tolist() == [3, 1, 1, 2, 1]


def test_of_a_large_graph_the_part_around_the_hub_is_read() -> None:
    chain = [(node, node + 1) for node in range(99)]
    item = decoded(graphml(100, [*chain, (50, 52), (50, 53)]))

    assert (item[:, :24] != ABSENT).all()
    assert int((item[:, 24:] > 0).sum()) // 2 >= 23  # connected
    plain = decoded(graphml(30, [], tag=None))
    assert (plain[0, :24] != ABSENT).all()


@torch.no_grad()
def test_how_nodes_are_numbered_changes_nothing() -> None:
    items = rings_and_stars(12)
    again = GRAPHS.sketcher.changed_slightly(items, torch.Generator().manual_seed(1))
    assert not torch.equal(items, again)
    torch.manual_seed(0)
    net = GRAPHS.make_backbone("small", False)[0].eval()

    torch.testing.assert_close(net(items.long()), net(again.long()), rtol=1e-4, atol=1e-4)
    assert np.array_equal(GRAPHS.sketcher.sketch(items), GRAPHS.sketcher.sketch(again))
    rng = np.random.default_rng(0)
    assert GRAPHS.raw_features([items], rng) == pytest.approx(GRAPHS.raw_features([again], rng))


def test_another_graph_has_another_sketch() -> None:
    sketches = GRAPHS.sketcher.sketch(rings_and_stars(12))

    assert len(np.unique(sketches, axis=0)) == 12
    first = np.arange(12)
    assert GRAPHS.sketcher.differences(sketches, first, np.roll(first, 1)[:, None]).min() > 0.05


@pytest.mark.parametrize("each", [True, False])
def test_a_view_is_a_part(each: bool) -> None:
    items = GRAPHS.dummy(40).long()
    for seed in range(4):
        view = GRAPHS.view(items, torch.Generator().manual_seed(seed), each=each, strength=1.0)
        there, shown = items[:, :24] != ABSENT, view[:, :24] != ABSENT
        assert (shown & ~there).sum() == 0
        assert shown.any(1).all()
        ends = torch.cat([torch.ones(40, 1, dtype=torch.bool), shown], 1).gather(1, view[:, 24:])
        assert ends.all()  # no edge to a node that is not shown
        assert ((view[:, 24:64] > 0) == (view[:, 64:] > 0)).all()


def test_traits() -> None:
    found = GRAPHS.traits(decoded(graphml(5, [(0, 1), (1, 2)]), graphml(1, [])), np.array([10, 20]))

    assert found["nodes"].tolist() == [5, 1]
    assert found["edges"].tolist() == [2, 0]
    assert found["degree"] == pytest.approx([0.8, 0])
    assert found["tags"].tolist() == [1, 1]

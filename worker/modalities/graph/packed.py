"""A graph in one tensor: a tag for each node, then the edges as pairs of nodes.

(N + 2 E,) int32. The first N are tags: 0 where there is no node, else a hash of the node's tag; of nodes without any
tag, of the number of their edges. The next E are the first nodes of the edges, the last E their second ones, counted
from 1; 0 where there is no edge (docs/decisions/0026).
"""

from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from zlib import crc32

import numpy as np
import torch
from torch import Tensor

from service.content.graph import Graph

ABSENT, MASK = 0, 1
FIRST = 2  # the ids of tags begin here
BUCKETS = 512  # ids, with these two
_MOST_EDGES_TOLD = 12  # of a node without a tag; more count as that many


def pack(graph: Graph, nodes: int, edges: int) -> Tensor:
    """(nodes + 2 · edges,) int32. Of a larger graph the connected part around the node with most edges is kept, and of
    that the first edges.
    """
    near = graph.neighbours()
    order = graph.in_order(near)[:nodes]
    found = np.zeros(nodes + 2 * edges, np.int32)
    found[: len(order)] = [_tag_id(graph.tags[node], len(near[node])) for node in order]
    if graph.edges:
        at = np.full(len(near), -1)
        at[order] = np.arange(len(order))
        ends = at[
            np.fromiter(chain.from_iterable(graph.edges), np.int64, 2 * len(graph.edges)).reshape(-1, 2)
        ]
        if len(order) < len(near):  # else all edges are within
            ends = ends[(ends >= 0).all(1)]
        earlier, later = np.minimum(ends[:, 0], ends[:, 1]), np.maximum(ends[:, 0], ends[:, 1])
        later, earlier = np.divmod(np.sort(later * nodes + earlier)[:edges], nodes)
        found[nodes : nodes + len(later)] = earlier + 1
        found[nodes + edges : nodes + edges + len(later)] = later + 1
    return torch.from_numpy(found)


def _tag_id(tag: str | None, edges: int) -> int:
    return _id_of(f"\0{min(edges, _MOST_EDGES_TOLD)}" if tag is None else tag)


@lru_cache(maxsize=4_096)
def _id_of(known: str) -> int:
    return FIRST + crc32(known.encode(errors="surrogatepass")) % (BUCKETS - FIRST)


@dataclass(frozen=True)
class Flat:
    """All nodes of a batch in one row, without those that are not there.

    tags (m,) ids; owner (m,) the item of each node; place (m,) its place in n · N; ends (2, k) the nodes of each edge,
    both ways, as places in m
    """

    tags: Tensor
    owner: Tensor
    place: Tensor
    ends: Tensor
    items: int


def flat(batch: Tensor, nodes: int) -> Flat:
    """(n, N + 2 E) int64 -> its nodes in a row."""
    n = len(batch)
    tags = batch[:, :nodes]
    place = (tags != ABSENT).flatten().nonzero()[:, 0]
    row = batch.new_zeros(n * nodes)
    row[place] = torch.arange(len(place), device=batch.device)
    one, other = batch[:, nodes:].chunk(2, dim=1)
    first = torch.arange(n, device=batch.device)[:, None] * nodes - 1
    there = one > 0
    from_, to = (one + first)[there], (other + first)[there]
    ends = torch.stack([torch.cat([row[from_], row[to]]), torch.cat([row[to], row[from_]])])
    return Flat(tags.flatten()[place], torch.div(place, nodes, rounding_mode="floor"), place, ends, n)


def degrees(batch: Tensor, nodes: int) -> Tensor:
    """(n, N + 2 E) -> (n, N) int64: edges of each node."""
    ids = batch[:, nodes:].long()
    found = ids.new_zeros((len(batch), nodes + 1))
    return found.scatter_add_(1, ids, torch.ones_like(ids))[:, 1:]


def without(batch: Tensor, kept: Tensor, nodes: int) -> Tensor:
    """The graphs (n, N + 2 E) with only the nodes `kept` (n, N), and the edges between them."""
    seen = torch.cat([torch.zeros_like(kept[:, :1]), kept], 1)
    one, other = batch[:, nodes:].chunk(2, dim=1)
    both = seen.gather(1, one.long()) & seen.gather(1, other.long())
    return torch.cat([batch[:, :nodes] * kept, one * both, other * both], 1)

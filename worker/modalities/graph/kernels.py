"""Weisfeiler-Lehman labels of nodes: what raw features and sketches of graphs count.

Shervashidze et al. 2011, "Weisfeiler-Lehman Graph Kernels", https://jmlr.org/papers/v12/shervashidze11a.html. A label
is a hash of the node's label before and of those of its neighbours, whatever their order; equal graphs have equal
counts however their nodes are numbered.
"""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from worker.arrays import Bytes, Floats, Ints
from worker.modalities import Sketcher
from worker.modalities.graph.packed import ABSENT, degrees, flat

_Counts = npt.NDArray[np.int64]

_ROUNDS = 3
_BINS = 64  # of a sketch, for the labels of each round
_TAGS, _EDGES, _LABELS = 64, 16, 128  # columns of raw features
_ROWS = 1_024


def label_counts(items: Tensor, nodes: int, bins: int) -> _Counts:
    """(n, N + 2 E) -> (n, rounds + 1, bins): nodes by a hash of their label, before any round and after each."""
    graphs = flat(items.long(), nodes)
    labels = _mixed(graphs.tags.numpy().astype(np.uint64))
    owner, (one, other) = graphs.owner.numpy(), graphs.ends.numpy()
    found = np.zeros((len(items), _ROUNDS + 1, bins), np.int64)
    for step in range(_ROUNDS + 1):
        np.add.at(found[:, step], (owner, (labels % np.uint64(bins)).astype(np.int64)), 1)
        around = np.zeros_like(labels)
        np.add.at(around, other, _mixed(labels[one]))
        labels = _mixed(labels * np.uint64(0x9E3779B97F4A7C15) + around)
    return found


def _mixed(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """SplitMix64's finalizer: every bit depends on every bit."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: npt.NDArray[np.uint64] = values ^ (values >> np.uint64(31))
    return mixed


def raw_features(items: Iterable[Tensor], nodes: int) -> Floats:
    """Parts (m, N + 2 E) -> (n, p) float32: the sizes, and the shares of nodes by their number of edges, by tag, and by
    label after one round.
    """
    parts = [_features(part, nodes) for part in items]
    return np.concatenate(parts) if parts else np.empty((0, 2 + _EDGES + _TAGS + _LABELS), np.float32)


def _features(items: Tensor, nodes: int) -> Floats:
    there = items[:, :nodes] != ABSENT
    count = there.sum(1).numpy()
    edges = (items[:, nodes:] > 0).sum(1).numpy() / 2
    by_edges = torch.nn.functional.one_hot(degrees(items, nodes).clamp_max(_EDGES - 1), _EDGES)
    joined = np.concatenate(
        [
            (by_edges * there[:, :, None]).sum(1).numpy(),
            label_counts(items, nodes, _TAGS)[:, 0],
            label_counts(items, nodes, _LABELS)[:, 1],
        ],
        axis=1,
    )
    sizes = np.log1p(np.stack([count, edges], 1))
    found: Floats = np.concatenate([sizes, joined / np.maximum(count, 1)[:, None]], 1).astype(np.float32)
    return found


class LabelHistogram(Sketcher):
    """A sketch is the counts of labels in 64 bins, before any round and after each of three, up to 255. Graphs are
    copies where they are the same but for the numbers of their nodes, as far as these labels tell.

    nodes: that a decoded graph has room for; None suffices to compare sketches.
    """

    def __init__(self, nodes: int | None) -> None:
        self._given = nodes

    @property
    def _nodes(self) -> int:
        if self._given is None:
            raise ValueError("`nodes` is open: ask `resolved` first")
        return self._given

    def sketch(self, items: Tensor) -> Bytes:
        """(n, N + 2 E) -> (n, 256) uint8."""
        counts = label_counts(items, self._nodes, _BINS).reshape(len(items), -1)
        found: Bytes = np.minimum(counts, 255).astype(np.uint8)
        return found

    def places(self, sketches: Bytes) -> Floats:
        """(n, 256) -> (n, 256) float32."""
        found: Floats = np.sqrt(sketches.astype(np.float32))
        return found

    def differences(self, sketches: Bytes, first: Ints, others: Ints) -> Floats:
        """The share of labels that one graph has and the other has not (Bray and Curtis 1957): (m,) and (m, k) rows of
        sketches -> (m, k) float32.
        """
        found = np.empty(others.shape, np.float32)
        for start in range(0, len(first), _ROWS):
            part = slice(start, start + _ROWS)
            mine = sketches[first[part], None].astype(np.int16)
            theirs = sketches[others[part]].astype(np.int16)
            total = (mine + theirs).sum(axis=2, dtype=np.float32)
            found[part] = np.abs(mine - theirs).sum(axis=2, dtype=np.float32) / np.maximum(total, 1)
        return found

    def changed_slightly(self, items: Tensor, generator: torch.Generator) -> Tensor:
        """(n, N + 2 E), in and out: the same graphs, their nodes numbered anew."""
        order = torch.rand((len(items), self._nodes), generator=generator).argsort(1)
        tags = items[:, : self._nodes].gather(1, order)
        place = torch.zeros((len(items), self._nodes + 1), dtype=torch.int64)
        place[:, 1:] = order.argsort(1) + 1
        ends = place.gather(1, items[:, self._nodes :].long())
        return torch.cat([tags, ends.to(items.dtype)], 1)

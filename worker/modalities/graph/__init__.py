"""Graphs: bytes to tags and edges, and all that the rest of the worker asks about them."""

import math
from collections.abc import Iterable, Sequence
from typing import ClassVar, Self

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from service.content.contract import Facts, Limits
from service.content.graph import facts_of, read_graph
from worker.arrays import Floats, Ints
from worker.modalities import Batch, Modality, Sketcher
from worker.modalities.graph.backbones import make_backbone
from worker.modalities.graph.kernels import LabelHistogram, raw_features
from worker.modalities.graph.packed import ABSENT, FIRST, degrees, pack
from worker.modalities.graph.views import view

_COVERED = 0.95  # of the graphs are read whole
_MOST_NODES = {"cpu": 256, "cuda": 1_024}
_EDGES_A_NODE = 8  # at most
_UNKNOWN = (64, 128)


class Graph(Modality):
    """Graphs whose nodes may have a tag each. Edges have no direction and no kind; other attributes than tags are not
    read. Of a larger one the connected part around the node with most edges is read, `nodes` of it.
    """

    name: ClassVar[str] = "graph"
    dtype: ClassVar[torch.dtype] = torch.int32
    default_task: ClassVar[str] = "attribute_masking"
    items_seen: ClassVar[dict[str, int]] = {"cpu": 40_000, "cuda": 2_000_000}
    least_spread: ClassVar[float] = 0.3

    nodes: int | None = Field(None, ge=1, le=8_192, description="Nodes that are read of a graph.")
    edges: int | None = Field(None, ge=1, le=65_536, description="Edges that are read of a graph.")

    def resolved(self, facts: Sequence[Facts], device: torch.device) -> Self:
        most = _MOST_NODES["cpu" if device.type == "cpu" else "cuda"]
        nodes = self.nodes or min(
            _covering([fact["nodes"] for fact in facts if "nodes" in fact], _UNKNOWN[0]), most
        )
        edges = _covering([fact["edges"] for fact in facts if "edges" in fact], _UNKNOWN[1])
        return self.model_copy(
            update={"nodes": nodes, "edges": self.edges or min(edges, _EDGES_A_NODE * nodes)}
        )

    @property
    def _resolved(self) -> tuple[int, int]:
        if self.nodes is None or self.edges is None:
            raise ValueError("`nodes` or `edges` is open: ask `resolved` first")
        return self.nodes, self.edges

    @property
    def _nodes(self) -> int:
        return self._resolved[0]

    @property
    def item_shape(self) -> tuple[int, ...]:
        nodes, edges = self._resolved
        return (nodes + 2 * edges,)

    def decode(self, data: bytes, limits: Limits) -> tuple[Tensor, Facts]:
        graph = read_graph(data, limits)
        return pack(graph, *self._resolved), facts_of(graph)

    def prepare(self, items: Tensor) -> Batch:
        """(n, N + 2 E) int32 -> int64, as embeddings and losses take ids."""
        return items.long()

    def view(
        self,
        batch: Batch,
        generator: torch.Generator,
        *,
        each: bool,
        strength: float = 0.5,
        share: tuple[float, float] = (0.2, 1.0),
        size: int | None = None,
    ) -> Batch:
        return view(batch, generator, nodes=self._nodes, each=each, strength=strength, share=share)

    def dummy(self, n: int) -> Tensor:
        """Made-up trees of all sizes, with a few more edges."""
        nodes, edges = self._resolved
        rng = np.random.default_rng(0)
        found = torch.zeros((n, *self.item_shape), dtype=torch.int32)
        for row in range(n):
            count = int(rng.integers(1, nodes + 1))
            found[row, :count] = torch.from_numpy(FIRST + rng.integers(0, 8, count)).int()
            pairs = {(int(rng.integers(node)), node) for node in range(1, count)}
            more = rng.integers(0, count, (count // 4, 2))
            pairs |= {(min(pair), max(pair)) for pair in more.tolist() if pair[0] != pair[1]}
            kept = torch.tensor(sorted(pairs)[:edges], dtype=torch.int32).view(-1, 2) + 1
            found[row, nodes : nodes + len(kept)] = kept[:, 0]
            found[row, nodes + edges : nodes + edges + len(kept)] = kept[:, 1]
        return found

    def make_backbone(self, name: str, pretrained: bool) -> tuple[nn.Module, int]:
        return make_backbone(name, pretrained, self._nodes)

    def for_raw_features(self, facts: Sequence[Facts] = ()) -> Self:
        return self.resolved(facts, torch.device("cpu"))

    def raw_features(self, items: Iterable[Tensor], rng: np.random.Generator) -> Floats:
        return raw_features(items, self._nodes)

    def traits(self, items: Tensor, sizes: Ints) -> dict[str, Floats]:
        """nodes, edges: that are read; degree: edges of a node, their mean; tags: different ones."""
        tags = items[:, : self._nodes]
        nodes = (tags != ABSENT).sum(1).float()
        degree = degrees(items, self._nodes).sum(1) / nodes.clamp_min(1)
        kinds = [len(row[row != ABSENT].unique()) for row in tags]
        return {
            "nodes": nodes.numpy(),
            "edges": (items[:, self._nodes :] > 0).sum(1).float().numpy() / 2,
            "degree": degree.float().numpy(),
            "tags": np.array(kinds, np.float32),
            "file_size": sizes.astype(np.float32),
        }

    @property
    def sketcher(self) -> Sketcher:
        return LabelHistogram(self.nodes)


def _covering(counts: Sequence[int], unknown: int) -> int:
    """So many that most of the pool fits, a multiple of 8."""
    return 8 * max(math.ceil(float(np.quantile(counts, _COVERED)) / 8), 1) if counts else unknown

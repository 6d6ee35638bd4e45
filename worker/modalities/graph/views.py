"""Views of graphs: a connected part, less some nodes and edges, some tags hidden."""

import math

import torch
from torch import Tensor

from worker.modalities.graph.packed import ABSENT, MASK, without

_DROPPED = 0.2  # of the nodes, and of the edges, at strength 1
_HIDDEN = 0.4  # of the tags


def view(
    batch: Tensor,
    generator: torch.Generator,
    *,
    nodes: int,
    each: bool,
    strength: float = 0.5,
    share: tuple[float, float] = (0.2, 1.0),
) -> Tensor:
    """A random view of each graph: (n, N + 2 E) in and out, at least one node of each.

    each      one set of random numbers an item; else one for the whole batch, so that an item's view does not
              depend on its batch
    strength  of the change
    share     as of the area of a picture: a view shows the square root of it of the nodes, in a row of the order
              breadth first

    You et al. 2020, "Graph Contrastive Learning with Augmentations", https://arxiv.org/abs/2010.13902.
    """
    n, length = batch.shape
    edges = (length - nodes) // 2
    draw = torch.rand((n if each else 1, 2 + 2 * nodes + edges), generator=generator, device=batch.device)
    draw = draw.expand(n, -1)
    there = batch[:, :nodes] != ABSENT
    count = there.sum(1)
    low, high = math.sqrt(share[0]), math.sqrt(share[1])
    covered = ((low + (high - low) * draw[:, 0]) * count).round().clamp_min(1)
    start = (draw[:, 1] * (count - covered + 1)).floor()
    place = torch.arange(nodes, device=batch.device)
    inside = (place >= start[:, None]) & (place < (start + covered)[:, None]) & there
    numbers = draw[:, 2 : 2 + nodes].masked_fill(~inside, -1.0)
    surest = torch.zeros_like(inside).scatter(1, numbers.argmax(1, keepdim=True), True) & there
    kept = inside & ((numbers >= _DROPPED * strength) | surest)
    found = without(batch, kept, nodes)
    whole = draw[:, 2 + 2 * nodes :] >= _DROPPED * strength
    hidden = kept & (draw[:, 2 + nodes : 2 + 2 * nodes] < _HIDDEN * strength)
    tags = torch.where(hidden, MASK, found[:, :nodes])
    return torch.cat([tags, found[:, nodes:] * torch.cat([whole, whole], 1)], 1)

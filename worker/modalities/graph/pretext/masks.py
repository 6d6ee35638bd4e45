"""Masks of nodes, alike for all tasks that hide some."""

import torch
from torch import Tensor

from worker.modalities.graph.packed import ABSENT

_SHARES = (0.75, 1.25)  # of the share that is masked, while training


def node_masks(batch: Tensor, nodes: int, masked: float, generator: torch.Generator, *, each: bool) -> Tensor:
    """(n, N) bool, true where masked: the nodes of a graph whose random numbers are lowest, at least one.

    each: one set of numbers an item, and its own share, from 3/4 to 5/4 of `masked`; else one for the whole batch,
    so that what is masked of a graph follows from its size and the generator alone.
    """
    there = batch[:, :nodes] != ABSENT
    draw = torch.rand((len(batch) if each else 1, nodes + 1), generator=generator, device=batch.device)
    low, high = _SHARES if each else (1.0, 1.0)
    share = (masked * (low + (high - low) * draw[:, 0])).clamp_max(1.0)
    count = (share * there.sum(1)).round().clamp_min(1)
    order = draw[:, 1:].expand(there.shape).masked_fill(~there, 2.0)
    rank = order.argsort(stable=True, dim=1).argsort(1)
    return (rank < count[:, None]) & there


def mean_of(values: Tensor, owner: Tensor, items: int) -> Tensor:
    """Values (k,) of nodes, and the item of each -> (n,) the mean of each item's; 0 where it has none."""
    sums = values.new_zeros(items).index_add(0, owner, values)
    counts = values.new_zeros(items).index_add(0, owner, torch.ones_like(values))
    return sums / counts.clamp_min(1)

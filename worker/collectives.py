"""Collectives of the trainers of one training: the processes that train one network, one a device.

Torch calls them ranks. A training of one process has no process group; it is alone, and everything here then
gives back what it got, so that the same code serves both.
"""

import warnings
from collections.abc import Callable

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel


def world_size() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """The rank of this trainer, from 0. The first one speaks for all."""
    return dist.get_rank() if dist.is_initialized() else 0


# ---- what one tells the others ----


def all_gather_counts(number: int) -> list[int]:
    """Everyone's number, in the order of the trainers. On the CPU: no device is waited for."""
    if world_size() == 1:
        return [number]
    numbers = torch.zeros(world_size(), dtype=torch.int64)
    numbers[rank()] = number
    dist.all_reduce(numbers)
    found: list[int] = numbers.tolist()
    return found


def any_rank(says: bool) -> bool:
    """True if any rank says so."""
    return any(all_gather_counts(says))


def broadcast_from_first(says: bool) -> bool:
    """Rank 0's answer, for all ranks. Clocks differ, and all must do the same."""
    return bool(all_gather_counts(says)[0])


def all_reduce_sum(values: Tensor) -> Tensor:
    """The sum of all trainers' tensors, of one shape. Gradients flow back to all of them."""
    if world_size() == 1:
        return values
    summed: Tensor = _Total.apply(values)
    return summed


def all_gather(rows: Tensor) -> Tensor:
    """(n, d), n may differ -> (n of all trainers, d), in their order. Gradients flow back to all of them."""
    if world_size() == 1:
        return rows
    lengths = all_gather_counts(len(rows))
    before = sum(lengths[: rank()])
    return all_reduce_sum(functional.pad(rows, (0, 0, before, sum(lengths) - before - len(rows))))


def stack_ranks(row: Tensor) -> Tensor:
    """(d,) -> (trainers, d), in their order. Gradients flow back to all of them."""
    return all_reduce_sum(functional.pad(row[None], (0, 0, rank(), world_size() - rank() - 1)))


def row_offset(rows: Tensor) -> int:
    """The offset of this rank's own rows in `all_gather(rows)`."""
    return sum(all_gather_counts(len(rows))[: rank()])


def all_reduce_mean(rows: Tensor) -> Tensor:
    """(n, …), n may differ -> (…): the mean over the rows of all trainers."""
    if world_size() == 1:
        return rows.mean(0)
    return all_reduce_sum(rows.sum(0)) / sum(all_gather_counts(len(rows)))


class _Total(torch.autograd.Function):
    @staticmethod
    def forward(_: object, values: Tensor) -> Tensor:
        summed = values.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(summed)
        return summed

    @staticmethod
    def backward(_: object, gradient: Tensor) -> Tensor:
        """The gradient of each rank's summand is the all-reduced sum of all ranks' gradients."""
        return all_reduce_sum(gradient)


# ---- a step of all ----


def data_parallel(net: nn.Module, losses: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """`losses` of a batch, computed with `net`, whose gradients become the mean of all trainers'.

    Buffers are not copied around: those that training writes must come out equal by themselves.
    """
    if world_size() == 1:
        return losses
    with warnings.catch_warnings():  # of a new name for `broadcast_buffers` that older versions do not know
        warnings.simplefilter("ignore", FutureWarning)
        return DistributedDataParallel(
            _Losses(net, losses),
            broadcast_buffers=False,
            find_unused_parameters=True,  # networks of timm have some that a task does not use
        )


class _Losses(nn.Module):
    """A loss as a module's forward, where DistributedDataParallel wants it."""

    def __init__(self, net: nn.Module, losses: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.net = net
        self._losses = losses

    def forward(self, batch: Tensor) -> Tensor:
        return self._losses(batch)


def weighted_mean(losses: Tensor, items: int) -> Tensor:
    """(n,) -> (): a rank's loss; its mean over the ranks is the mean loss of all `items` of the batch."""
    if world_size() == 1:
        return losses.mean()
    return losses.sum() * (world_size() / items)


def reseed(generator: torch.Generator, seed: int, step: int) -> None:
    """Each trainer draws its own numbers in each step, the same when the step is done again."""
    if world_size() == 1:
        return
    seeds = np.random.SeedSequence((seed, step, rank())).generate_state(2, np.uint64)
    generator.manual_seed(int(seeds[0]))
    torch.manual_seed(int(seeds[1]))

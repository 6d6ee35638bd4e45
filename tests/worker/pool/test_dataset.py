"""Every epoch sees every row once, in an order that follows from seed and epoch."""

import threading
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from worker.pool.dataset import Dataset, ahead, epoch_order


@pytest.mark.parametrize("block", [1, 4, 100])
@pytest.mark.parametrize("size", [1, 3, 64, 101])
def test_an_order_holds_every_row_once(size: int, block: int) -> None:
    order = epoch_order(size, block, np.random.default_rng(0))

    assert sorted(order.tolist()) == list(range(size))


def test_blocks_keep_neighbours_near() -> None:
    order = epoch_order(10_000, 100, np.random.default_rng(0))

    assert all(len(set(order[start : start + 800] // 100)) <= 16 for start in range(0, 9_000, 100))
    assert (order != np.arange(10_000)).mean() > 0.9


def test_batches_can_start_anywhere() -> None:
    dataset = Dataset(10, lambda rows: torch.from_numpy(rows))

    whole = [batch.tolist() for batch in dataset.batches(seed=1, epoch=2, batch_size=4)]
    rest = [batch.tolist() for batch in dataset.batches(seed=1, epoch=2, batch_size=4, first=1)]
    other = [batch.tolist() for batch in dataset.batches(seed=1, epoch=3, batch_size=4)]

    assert [len(batch) for batch in whole] == [4, 4, 2]
    assert rest == whole[1:]
    assert other != whole


def test_ahead_keeps_order_and_passes_errors_on() -> None:
    def numbers() -> Iterator[int]:
        yield 1
        yield 2
        raise ValueError("three")

    made = ahead(numbers(), 1)

    assert [next(made), next(made)] == [1, 2]
    with pytest.raises(ValueError, match="three"):
        next(made)


def test_ahead_stops_when_nobody_reads_on() -> None:
    before = threading.active_count()
    endless = ahead(iter(int, 1), 2)
    next(endless)
    endless.close()

    assert threading.active_count() == before

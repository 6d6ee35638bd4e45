"""The local engine: shards in order, each loaded while the one before is computed."""

import threading

import pytest

from worker.engines.local import LocalEngine


class Doubling:
    """Work that is open from the beginning."""

    def __init__(self) -> None:
        self.loaded_second = threading.Event()

    def open(self, device: str) -> "Doubling":
        assert device == "cpu"
        return self

    def close(self) -> None:
        self.closed = True

    def load(self, shard: int) -> int:
        if shard == 2:
            self.loaded_second.set()
        if shard == 13:
            raise ValueError("unlucky")
        return shard

    def compute(self, loaded: int) -> int:
        if loaded == 1:
            assert self.loaded_second.wait(timeout=10), "the next shard must load meanwhile"
        return 2 * loaded


def test_shards_come_in_order_and_load_ahead() -> None:
    assert list(LocalEngine().map(Doubling(), [1, 2, 3], device="cpu")) == [2, 4, 6]


def test_an_error_comes_after_the_shards_before_it() -> None:
    finished = LocalEngine().map(Doubling(), [2, 13, 3], device="cpu")

    assert next(finished) == 4
    with pytest.raises(ValueError, match="unlucky"):
        next(finished)


def test_no_shards() -> None:
    assert list(LocalEngine().map(Doubling(), [], device="cpu")) == []

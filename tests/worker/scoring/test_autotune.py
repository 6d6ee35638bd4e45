"""The quickest way is found by measuring, within the time that is given."""

import torch

from worker.scoring.autotune import Way, quickest


class Machine:
    """Scores so many items a second; time passes only by scoring."""

    def __init__(self, rates: dict[Way, float]) -> None:
        self.rates, self.now, self.runs = rates, 0.0, list[Way]()

    def run(self, way: Way) -> None:
        self.runs.append(way)
        self.now += way.batch / self.rates.get(way, 100)

    def quickest(self, seconds: float = 1e9) -> Way:
        return quickest(Way(64, 2), (32, 128), (1,), self.run, seconds, lambda: self.now)


def test_threads_first_then_batches() -> None:
    machine = Machine({Way(64, 1): 200, Way(128, 1): 300, Way(128, 2): 1_000})

    assert machine.quickest() == Way(128, 1)


def test_what_is_at_hand_stays_unless_something_is_clearly_quicker() -> None:
    assert Machine({Way(32, 2): 102}).quickest() == Way(64, 2)


def test_what_there_is_no_time_for_is_not_chosen() -> None:
    machine = Machine({Way(128, 2): 1_000})

    assert machine.quickest(seconds=0.5) == Way(64, 2)
    assert machine.runs == [Way(64, 2)]


def test_what_does_not_fit_into_memory_is_not_chosen() -> None:
    machine = Machine({Way(64, 1): 200, Way(128, 1): 1_000})

    def run(way: Way) -> None:
        machine.run(way)
        if way.batch > 64:
            raise torch.OutOfMemoryError

    assert quickest(Way(64, 2), (32, 128), (1,), run, 1e9, lambda: machine.now) == Way(64, 1)

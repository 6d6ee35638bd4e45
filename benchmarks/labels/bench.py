"""Pools × strategies × seeds, over all cores: one process a core, one thread each."""

import itertools
import multiprocessing
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import Progress

from benchmarks.labels import embeddings, simulation
from benchmarks.labels.comparison import Arm, Run, compare
from benchmarks.labels.embeddings import Embedded
from benchmarks.labels.pools import Missing, make_pool
from benchmarks.labels.records import Records, RunKey
from benchmarks.labels.simulation import Row

_FEWER = (5, 7)  # labels random is also measured at, to compare with strategies that lose at the first budget
_MORE = 4  # times the last budget random goes on, to compare with strategies that win at it


class Bench:
    def __init__(self, path: Path, budgets: Sequence[int], epochs: int, processes: int) -> None:
        self.records = Records(path)
        self._budgets, self._epochs, self._processes = tuple(budgets), epochs, processes
        self._console = Console(stderr=True)

    def run(self, pools: Sequence[str], strategies: Sequence[str], seeds: int) -> dict[str, list[Arm]]:
        """The arms of each pool that is on this machine, `random` always among them."""
        return self.run_on(self._embed(pools), strategies, seeds)

    def run_on(self, paths: dict[str, Path], strategies: Sequence[str], seeds: int) -> dict[str, list[Arm]]:
        """The same on embedded pools, by their name."""
        wanted = ["random", *(name for name in dict.fromkeys(strategies) if name != "random")]
        todo = []
        for name, path in paths.items():
            items = len(_load(path).classes)
            for strategy, seed in itertools.product(wanted, range(seeds)):
                key, budgets = RunKey(name, path.stem, strategy, seed), self._budgets_of(strategy, items)
                if not self.records.has(key, budgets):
                    todo.append((key, path, budgets))
        todo.sort(key=lambda one: one[0].seed)  # so that what is there when it is stopped can be compared
        if todo:
            with processes(self._processes) as executor, Progress(console=self._console) as progress:
                task = progress.add_task("runs", total=len(todo))
                for run in as_completed([executor.submit(_run, *one) for one in todo]):
                    self.records.put(run.result())
                    progress.advance(task)
        return {
            name: self._compare(RunKey(name, path.stem, "", 0), wanted, seeds) for name, path in paths.items()
        }

    def _embed(self, pools: Sequence[str]) -> dict[str, Path]:
        """In the order of `pools`, less those whose data are missing, which is said."""
        with processes(self._processes) as executor, Progress(console=self._console) as progress:
            task = progress.add_task("embeddings", total=len(pools))
            waiting = {name: executor.submit(_embed, name, self._epochs) for name in pools}
            paths = {}
            for name, embedded in waiting.items():
                try:
                    paths[name] = embedded.result()
                except Missing as error:
                    self._console.print(f"Pool {name} is left out. {error}")
                progress.advance(task)
        return paths

    def _compare(self, key: RunKey, strategies: list[str], seeds: int) -> list[Arm]:
        runs: dict[str, list[Run]] = {
            strategy: [self.records.runs[key._replace(strategy=strategy, seed=seed)] for seed in range(seeds)]
            for strategy in strategies
        }
        return compare(runs, self._budgets, balanced="long-tail" in key.pool)

    def _budgets_of(self, strategy: str, items: int) -> tuple[int, ...]:
        return self._budgets if strategy != "random" else budgets_of_random(self._budgets, items)


def budgets_of_random(budgets: Sequence[int], items: int) -> tuple[int, ...]:
    """Denser and longer than `budgets`, so that random's own curve tells what a strategy's accuracy is worth."""
    found = {*budgets, *(few for few in _FEWER if few < budgets[0])}
    step = float(budgets[0])
    while step < _MORE * budgets[-1]:
        found.add(round(step))
        step *= 2**0.5
    found.add(_MORE * budgets[-1])
    return tuple(sorted({min(one, items) for one in found}))


@contextmanager
def processes(count: int) -> Iterator[ProcessPoolExecutor]:
    """Each with one thread, and the environment says so before numpy is loaded there."""
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = "1"
    spawn = multiprocessing.get_context("spawn")
    try:
        with ProcessPoolExecutor(count, spawn, torch.set_num_threads, (1,)) as executor:
            yield executor
    finally:
        if before is None:
            del os.environ["OMP_NUM_THREADS"]
        else:
            os.environ["OMP_NUM_THREADS"] = before


def _embed(name: str, epochs: int) -> Path:
    return embeddings.embedded(make_pool(name), epochs)


def _run(key: RunKey, path: Path, budgets: tuple[int, ...]) -> list[Row]:
    return list(simulation.run(key.pool, _load(path), key.strategy, key.seed, budgets))


@lru_cache(maxsize=2)
def _load(path: Path) -> Embedded:
    return embeddings.load(path)

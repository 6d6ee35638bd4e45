"""Pools × strategies × seeds, over all cores: one process a core, one thread each."""

import itertools
import multiprocessing
import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import torch
from rich.console import Console
from rich.progress import Progress

from benchmarks.labels import embeddings, judges, simulation
from benchmarks.labels.catalogue import KINDS, make_pool
from benchmarks.labels.comparison import Arm, Compared, Run, compare
from benchmarks.labels.embeddings import CACHE, Embedded
from benchmarks.labels.picks import Picks
from benchmarks.labels.pools import Missing
from benchmarks.labels.records import Records, RunKey
from benchmarks.labels.simulation import OWN, Row
from benchmarks.labels.spaces import in_space
from benchmarks.labels.split import Drawn, draw

_FEWER = (5, 7)  # labels random is also measured at, to compare with strategies that lose at the first budget
_MORE = 4  # times the last budget random goes on, to compare with strategies that win at it


class Prepared(NamedTuple):
    """A pool's files: embeddings, and what each judge sees, None where it needs no file."""

    embedded: Path
    judges: dict[str, Path | None]


class Todo(NamedTuple):
    """A run, by the judges that have not seen it; own: its rows by judge `own`, where the picks need no new run."""

    key: RunKey  # by judge `own`
    pool: Prepared
    budgets: tuple[int, ...]
    judges: tuple[str, ...]
    own: tuple[Row, ...]


class Bench:
    def __init__(
        self,
        path: Path,
        budgets: Sequence[int],
        epochs: int | None,
        processes: int,
        picks: Path = CACHE / "picks",
        space: str = "trained",
    ) -> None:
        self.records = Records(path)
        self._budgets, self._epochs, self._processes = tuple(budgets), epochs, processes
        self._picks, self._space = Picks(picks), space
        self._console = Console(stderr=True)

    def run(
        self, pools: Sequence[str], strategies: Sequence[str], seeds: int, wanted: Sequence[str] = (OWN,)
    ) -> Compared:
        """The arms of each pool that is on this machine by the judges `wanted`, `random` always among the arms and
        `own` among the judges.
        """
        return self.run_on(self._prepare(pools, wanted), strategies, seeds)

    def run_on(self, pools: dict[str, Prepared], strategies: Sequence[str], seeds: int) -> Compared:
        """The same on prepared pools, by their name."""
        arms = ["random", *(name for name in dict.fromkeys(strategies) if name != "random")]
        todo = []
        for name, pool in pools.items():
            items = len(_load(pool.embedded).classes)
            for strategy, seed in itertools.product(arms, range(seeds)):
                key = RunKey(name, pool.embedded.stem, strategy, seed, OWN)
                todo.append(self._todo(key, pool, self._budgets_of(strategy, items)))
        todo = [one for one in todo if one.judges]
        todo.sort(key=lambda one: one.key.seed)  # so that what is there when it is stopped can be compared
        if todo:
            with processes(self._processes) as executor, Progress(console=self._console) as progress:
                task = progress.add_task("runs", total=len(todo))
                for run in as_completed([executor.submit(_run, one, self._picks) for one in todo]):
                    self.records.put(*run.result())
                    progress.advance(task)
        return {name: self._compare(name, pool, arms, seeds) for name, pool in pools.items()}

    def _todo(self, key: RunKey, pool: Prepared, budgets: tuple[int, ...]) -> Todo:
        missing = [
            judge
            for judge in pool.judges
            if not self.records.has(key._replace(judge=judge), judges.budgets_of(judge, budgets))
        ]
        own: tuple[Row, ...] = ()
        if OWN not in missing and self._picks.has(key, budgets):
            own = tuple(self.records.runs[key])
        elif missing:
            missing = list(pool.judges)  # all judge the same picks
        return Todo(key, pool, budgets, tuple(missing), own)

    def _prepare(self, pools: Sequence[str], wanted: Sequence[str]) -> dict[str, Prepared]:
        """In the order of `pools`, less those whose data are missing and judges whose weights are, which is said."""
        named = dict.fromkeys((OWN, *wanted))
        with processes(self._processes) as executor, Progress(console=self._console) as progress:
            task = progress.add_task("embeddings and features", total=len(pools) * (1 + len(named)))
            waiting = {name: executor.submit(_embed, name, self._epochs, self._space) for name in pools}
            files = {
                (name, one): executor.submit(judges.prepared, one, name) for name in pools for one in named
            }
            found: dict[str, Prepared] = {}
            for name, embedded in waiting.items():
                try:
                    found[name] = Prepared(embedded.result(), {})
                except Missing as error:
                    self._console.print(f"Pool {name} is left out. {error}")
                progress.advance(task)
            for (name, judge), file in files.items():
                try:
                    seen = file.result()
                    if name in found:
                        found[name].judges[judge] = seen
                except Missing as error:
                    if name in found:
                        self._console.print(f"{name}: judge {judge} is left out. {error}")
                progress.advance(task)
        return found

    def _compare(self, name: str, pool: Prepared, strategies: list[str], seeds: int) -> dict[str, list[Arm]]:
        items = len(_load(pool.embedded).classes)
        found = {}
        for judge in pool.judges:
            budgets = judges.budgets_of(judge, within(self._budgets, items))
            runs: dict[str, list[Run]] = defaultdict(list)
            for strategy, seed in itertools.product(strategies, range(seeds)):
                runs[strategy].append(
                    self.records.runs[RunKey(name, pool.embedded.stem, strategy, seed, judge)]
                )
            if budgets:
                found[judge] = compare(runs, budgets, balanced=name in KINDS and KINDS[name].balanced)
        return found

    def _budgets_of(self, strategy: str, items: int) -> tuple[int, ...]:
        return (
            budgets_of_random(self._budgets, items) if strategy == "random" else within(self._budgets, items)
        )


def within(budgets: Sequence[int], items: int) -> tuple[int, ...]:
    """The budgets up to half of the items: most of what is left when test items are drawn and a part is shown."""
    return tuple(budget for budget in budgets if budget <= items // 2)


def budgets_of_random(budgets: Sequence[int], items: int) -> tuple[int, ...]:
    """Denser and longer than `budgets`, so that random's own curve tells what a strategy's accuracy is worth."""
    found = {*budgets, *(few for few in _FEWER if few < budgets[0])}
    step = float(budgets[0])
    while step < _MORE * budgets[-1]:
        found.add(round(step))
        step *= 2**0.5
    found.add(_MORE * budgets[-1])
    return tuple(sorted({min(one, items // 2) for one in found}))


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


def _embed(name: str, epochs: int | None, space: str) -> Path:
    return in_space(space, name, embeddings.embedded(make_pool(name), epochs))


def _run(todo: Todo, kept: Picks) -> list[list[Row]]:
    key, drawn = todo.key, _drawn(todo.pool.embedded, todo.key.seed)
    if todo.own:
        own, picks = list(todo.own), kept.get(key, todo.budgets)
    else:
        own, picks = simulation.run(key.pool, drawn.pool, key.strategy, key.seed, todo.budgets)
        kept.put(key, todo.budgets, picks)
    found = [own]
    for name in todo.judges:
        if name != OWN:
            judge = judges.make_judge(name, key.pool, todo.pool.judges[name], drawn, key.seed)
            wanted = judges.budgets_of(name, todo.budgets)
            found.append(
                judges.judged(judge, name, [row for row in own if row.budget in wanted], picks, drawn)
            )
    return [rows for rows in found if rows]


@lru_cache(maxsize=2)
def _drawn(path: Path, seed: int) -> Drawn:
    return draw(_load(path), seed)


@lru_cache(maxsize=2)
def _load(path: Path) -> Embedded:
    return embeddings.load(path)

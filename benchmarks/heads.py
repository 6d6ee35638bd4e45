"""Heads compared for the default: accuracy on random labels, over pools and spaces of embeddings, and cost.

python -m benchmarks.heads             accuracy; goes on where it was stopped; results/heads.csv and heads.md
python -m benchmarks.heads --speed     instead, seconds a fit on 8,000 and 100,000 made-up items; results/heads.json

Sub-pools, test items and spaces are those of `make bench-labels`; labels are drawn at random among what is no junk, so
that no strategy has a part in it. `auto` keeps the candidate with the lowest cross-validated loss, so its accuracy
comes from the fits of the others and its time is theirs together. A default is a choice: it is made on the pools for
development alone.
"""

import argparse
import csv
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from itertools import product
from pathlib import Path
from statistics import fmean, median, stdev

import numpy as np
import torch
from pydantic import TypeAdapter
from rich.console import Console

from benchmarks.labels.catalogue import DEVELOPMENT, KINDS, make_pool
from benchmarks.labels.comparison import Mean
from benchmarks.labels.embeddings import Embedded, embedded, load
from benchmarks.labels.pools import Missing
from benchmarks.labels.simulation import balanced_accuracy
from benchmarks.labels.spaces import in_space
from benchmarks.labels.split import draw
from benchmarks.report import RESULTS, Figure, machine, write_report
from worker.heads import FittedHead, Head
from worker.heads.auto import CANDIDATES
from worker.heads.labeled_view import LabeledView
from worker.heads.pool_graph import PoolGraph

BUDGETS = (20, 50, 100, 200, 500, 1_000)
SPACES = ("trained", "joined")
SEEDS = 5
_SIZES, _LABELS, _REPEATS = (8_000, 100_000), 500, 5
_CLASSES, _DIMENSIONS = 10, 192


@dataclass(frozen=True)
class Row:
    pool: str
    space: str
    embeddings: str
    seed: int
    labels: int
    head: str
    accuracy: float
    balanced_accuracy: float
    loss: float  # of held-out labels, by which `auto` chooses
    seconds: float


_ROW = TypeAdapter(Row)
_COLUMNS = [field.name for field in fields(Row)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--pools", nargs="*", default=list(DEVELOPMENT), choices=list(KINDS))
    parser.add_argument("--spaces", nargs="*", default=list(SPACES), choices=("raw", "pretrained", *SPACES))
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--speed", action="store_true")
    options = parser.parse_args()
    command = " ".join(["python -m benchmarks.heads", *sys.argv[1:]])
    if options.speed:
        write_report("heads", speed(), command)
        return
    rows = accuracies(RESULTS / "heads.csv", options.pools, options.spaces, options.seeds)
    text = markdown(with_auto(rows), command, machine())
    (RESULTS / "heads.md").write_text(text)
    print(text)


def accuracies(path: Path, pools: list[str], spaces: list[str], seeds: int) -> list[Row]:
    """A row a fit; each run of a pool, space and seed is on the disk once it is done."""
    console = Console(stderr=True)
    done = read(path)
    for name, space in product(pools, spaces):
        try:
            file = in_space(space, name, embedded(make_pool(name)))
        except Missing as error:
            console.print(f"{name}, {space}: left out. {error}")
            continue
        known = {
            row.seed for row in done if (row.pool, row.space, row.embeddings) == (name, space, file.stem)
        }
        for seed in sorted(set(range(seeds)) - known):
            done += run(name, space, file, seed)
            write(path, done)
            console.print(f"{name}, {space}, seed {seed}")
    return [row for row in done if row.pool in pools and row.space in spaces and row.seed < seeds]


def run(name: str, space: str, file: Path, seed: int) -> list[Row]:
    pool = draw(_load(file), seed).pool
    rng = np.random.default_rng([seed, 4])
    order = rng.permutation(np.flatnonzero(pool.classes >= 0))
    graph = PoolGraph(pool.embeddings, rng, appearance=np.asarray(pool.thumbnails))
    found = []
    for labels in BUDGETS:
        if labels > len(order) // 2:
            break
        some = np.sort(order[:labels])
        view = LabeledView(
            pool.embeddings[some], pool.classes[some], pool.n_classes, make_graph=lambda: graph
        )
        for fitted, seconds in fits(view, seed):
            right = fitted.probabilities(pool.test_embeddings).argmax(axis=1) == pool.test_classes
            found.append(
                Row(
                    pool=name,
                    space=space,
                    embeddings=file.stem,
                    seed=seed,
                    labels=labels,
                    head=fitted.name,
                    accuracy=float(right.mean()),
                    balanced_accuracy=balanced_accuracy(right, pool.test_classes),
                    loss=fitted.held_out_loss or 0.0,
                    seconds=seconds,
                )
            )
    return found


def fits(view: LabeledView, seed: int) -> Iterator[tuple[FittedHead, float]]:
    """Each candidate of `auto`, from the same random numbers as there, and its seconds."""
    for head in CANDIDATES.values():
        begun = time.perf_counter()
        fitted = head.fit(view, np.random.default_rng(seed))
        yield fitted, time.perf_counter() - begun


def with_auto(rows: list[Row]) -> list[Row]:
    """And the rows of `auto`: of each group of candidates the one with the lowest loss."""
    groups = defaultdict(list)
    for row in rows:
        groups[row.pool, row.space, row.seed, row.labels].append(row)
    chosen = []
    for group in groups.values():
        best = min(group, key=lambda row: row.loss)
        chosen.append(Row(**asdict(best) | {"head": "auto", "seconds": sum(row.seconds for row in group)}))
    return rows + chosen


def markdown(rows: list[Row], command: str, where: str) -> str:
    """The accuracy of `linear` on each pool and space, and what the others have more, paired by seed."""
    heads = [name for name in dict.fromkeys(row.head for row in rows) if name != "linear"]
    seeds = len({row.seed for row in rows})
    lines = [
        "# Heads on random labels",
        "",
        f"Accuracy in % (on long tails the mean over classes) of head `linear`, and the points that others have "
        f"more on the same labels, with half their 95 % intervals; {seeds} sub-pools. `{command}`, {where}.",
        "",
        f"| pool | space | labels | `linear` | {' | '.join(f'`{name}`' for name in heads)} |",
        "|---|---|---|---|" + "---|" * len(heads),
    ]
    by_key: dict[tuple[str, str, int], dict[str, dict[int, float]]] = defaultdict(lambda: defaultdict(dict))
    for row in rows:
        value = row.balanced_accuracy if KINDS[row.pool].balanced else row.accuracy
        by_key[row.pool, row.space, row.labels][row.head][row.seed] = 100 * value
    gains = defaultdict(list)
    for (pool, space, labels), by_head in by_key.items():
        linear = by_head["linear"]
        cells = [f"{fmean(linear.values()):.1f}"]
        for name in heads:
            gain = Mean.of([by_head[name][seed] - linear[seed] for seed in linear])
            gains[name].append(gain)
            cells.append(f"{gain.value:+.1f} ± {(gain.high - gain.low) / 2:.1f}")
        lines.append(f"| {pool} | {space} | {labels:,} | {' | '.join(cells)} |")
    means = [f"{fmean(gain.value for gain in gains[name]):+.1f}" for name in heads]
    lines.append(f"| mean | | | | {' | '.join(means)} |")
    worst = [f"{sum(gain.high < 0 for gain in gains[name])} of {len(gains[name])}" for name in heads]
    lines.append(f"| surely worse than `linear` | | | | {' | '.join(worst)} |")
    return "\n".join(lines) + "\n"


def speed() -> dict[str, Figure]:
    """Median seconds of a fit on 500 labels; the first pays for the neighbours of the pool, and stands alone."""
    figures: dict[str, Figure] = {}
    for items in _SIZES:
        pool, classes = _clusters(items)
        some = np.random.default_rng(1).permutation(items)[:_LABELS]
        graph = PoolGraph(pool, np.random.default_rng(2))
        view = LabeledView(pool[some], classes[some], _CLASSES, make_graph=lambda graph=graph: graph)  # type: ignore[misc]
        for name, head in CANDIDATES.items():
            seconds = [_timed(head, view) for _ in range(_REPEATS)]
            figures[f"{name}_first_fit_s_{items // 1_000}k"] = seconds[0]
            figures[f"{name}_fit_s_{items // 1_000}k"] = median(seconds[1:])
            figures[f"{name}_fit_s_std_{items // 1_000}k"] = stdev(seconds[1:])
    return figures | {"labels": _LABELS, "dimensions": _DIMENSIONS, "threads": torch.get_num_threads()}


def _timed(head: Head, view: LabeledView) -> float:
    begun = time.perf_counter()
    head.fit(view, np.random.default_rng(0))
    return time.perf_counter() - begun


def _clusters(items: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    classes = rng.integers(_CLASSES, size=items)
    centers = rng.normal(size=(_CLASSES, _DIMENSIONS)) * 0.3
    return (centers[classes] + rng.normal(size=(items, _DIMENSIONS))).astype(np.float16), classes


def read(path: Path) -> list[Row]:
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return [_ROW.validate_python(values) for values in csv.DictReader(file)]


def write(path: Path, rows: list[Row]) -> None:
    unfinished = path.with_suffix(".tmp")
    with unfinished.open("w", newline="") as file:
        writer = csv.DictWriter(file, _COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows({name: _rounded(value) for name, value in asdict(row).items()} for row in rows)
    unfinished.replace(path)


def _rounded(value: object) -> object:
    return round(value, 5) if isinstance(value, float) else value


@lru_cache(maxsize=1)
def _load(path: Path) -> Embedded:
    return load(path)


if __name__ == "__main__":
    main()

"""The command: `make bench-tasks`, or `python -m benchmarks.tasks` with options. What was measured is not again."""

import argparse
import csv
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, fields
from pathlib import Path

import numpy as np
import torch
from pydantic import TypeAdapter
from rich.console import Console

from benchmarks.labels.embeddings import CACHE
from benchmarks.labels.pools import Missing, Pool, Split, cifar10, clean, fashion_mnist
from benchmarks.report import RESULTS, machine
from benchmarks.tasks.measure import REFERENCES, Row, key, measure, measure_raw, measure_untrained, tasks
from benchmarks.tasks.page import Setting, print_table, write_page
from benchmarks.tasks.supervised import supervised_losses
from worker.device import use_threads
from worker.pretraining.recipe import Recipe

_READERS: dict[str, Callable[[], tuple[Split, Split]]] = {"fashion-mnist": fashion_mnist, "cifar10": cifar10}
_DOCS = Path(__file__).parents[2] / "docs"
_ROW = TypeAdapter(Row)
_BATCH = 64  # that of a project on a CPU


def main(arguments: Sequence[str] | None = None) -> None:
    options = _options(arguments)
    use_threads(options.threads)
    console = Console(stderr=True)
    results, docs = (CACHE, CACHE) if options.no_write else (RESULTS, _DOCS)
    recipe = Recipe(epochs=options.epochs, batch_size=_BATCH, seed=0)
    rows = Rows(results / "tasks.csv")
    found: dict[str, list[Row]] = {}
    accuracies: dict[str, float] = {}
    for name in options.pools:
        try:
            pool = _pool(name, options.items, options.test_items)
        except Missing as error:
            console.print(str(error))
            continue
        console.print(f"{name}: supervised networks")
        others, accuracies[name] = supervised_losses(pool, options.supervised_epochs, CACHE)
        found[name] = []
        for label in (*REFERENCES, *options.tasks):
            task = tasks().get(label)
            key_ = key(pool, task, recipe, options.supervised_epochs)
            row = rows.get(name, label, key_)
            if row is None:
                console.print(f"{name}: {label}")
                if task is not None:
                    row = measure(name, pool, label, task, recipe, others, key_)
                elif label == REFERENCES[0]:
                    row = measure_raw(name, pool, key_)
                else:
                    row = measure_untrained(name, pool, key_, recipe.seed)
                rows.put(row)
            found[name].append(row)
    if not found:
        sys.exit("None of the pools is on this machine.")
    print_table(found)
    setting = Setting(
        items=options.items,
        epochs=options.epochs,
        batch_size=_BATCH,
        supervised_epochs=options.supervised_epochs,
        supervised_accuracy=accuracies,
        threads=torch.get_num_threads(),
        command=" ".join(["python -m benchmarks.tasks", *(sys.argv[1:] if arguments is None else arguments)]),
        machine=machine(),
    )
    write_page(found, setting, docs)


class Rows:
    """The rows of all runs, in one CSV file; every change is on the disk at once."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._rows: dict[tuple[str, str], Row] = {}
        if path.exists():
            with path.open(newline="") as file:
                for values in csv.DictReader(file):
                    row = _ROW.validate_python(values)
                    self._rows[row.pool, row.task] = row

    def get(self, pool: str, task: str, key_: str) -> Row | None:
        row = self._rows.get((pool, task))
        return row if row is not None and row.key == key_ else None

    def put(self, row: Row) -> None:
        """In the place of an older one of the same task on the same pool."""
        self._rows[row.pool, row.task] = row
        self._path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = self._path.with_suffix(".tmp")
        with unfinished.open("w", newline="") as file:
            writer = csv.DictWriter(file, [field.name for field in fields(Row)], lineterminator="\n")
            writer.writeheader()
            for place in sorted(self._rows):
                values = asdict(self._rows[place])
                writer.writerows([{k: round(v, 5) if isinstance(v, float) else v for k, v in values.items()}])
        unfinished.replace(self._path)


def _pool(name: str, items: int, test_items: int) -> Pool:
    """The same every time. Raises `Missing`."""
    train, test = _READERS[name]()
    some = np.random.default_rng(1).permutation(len(test.classes))[:test_items]
    return clean(train, test.keep(some), np.random.default_rng(0), items)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tasks", description=__doc__)
    parser.add_argument("--pools", type=_list, default=list(_READERS), help=", ".join(_READERS))
    parser.add_argument("--tasks", type=_list, default=list(tasks()), help=", ".join(tasks()))
    parser.add_argument("--items", type=int, default=20_000)
    parser.add_argument("--test-items", type=int, default=10_000)
    parser.add_argument("--epochs", type=int, default=10, help="of each pretext training, on all the items")
    parser.add_argument("--supervised-epochs", type=int, default=20)
    parser.add_argument("--threads", type=int, help="default: the cores this process may use")
    parser.add_argument(
        "--no-write", action="store_true", help="leave the results and docs as they are; write to the cache"
    )
    options = parser.parse_args(arguments)
    for given, known in ((options.pools, _READERS), (options.tasks, tasks())):
        for name in given:
            if name not in known:
                parser.error(f"there is no {name!r}; there are {', '.join(known)}")
    return options


def _list(text: str) -> list[str]:
    return text.split(",")


if __name__ == "__main__":
    main()

"""The command: `make bench-labels`, `make bench-labels-quick`, or `python -m benchmarks.labels` with options."""

import argparse
import sys
from pathlib import Path

from benchmarks.labels.bench import Bench
from benchmarks.labels.embeddings import CACHE
from benchmarks.labels.pools import POOLS
from benchmarks.labels.simulation import make_strategy
from benchmarks.labels.tables import print_tables
from benchmarks.report import RESULTS
from worker.device import available_cores
from worker.strategies import strategies

BUDGETS = (10, 20, 30, 50, 75, 100, 150, 200, 300, 400, 500, 700, 1_000, 1_400, 2_000)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.labels", description=__doc__)
    parser.add_argument(
        "--strategies", type=_list, default=list(strategies()), help="NAME[:PARAMETER=VALUE…],…"
    )
    parser.add_argument("--pools", type=_list, default=list(POOLS), help=", ".join(POOLS))
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--budgets", type=_numbers, default=BUDGETS, help="rising; each is a round")
    parser.add_argument("--epochs", type=int, default=2, help="of the pretext training")
    parser.add_argument("--processes", type=int, default=available_cores())
    parser.add_argument(
        "--again", type=_list, default=[], help="strategies to run again though they were run"
    )
    parser.add_argument(
        "--no-write", action="store_true", help="print only, leave benchmarks/results as it is"
    )
    options = parser.parse_args()
    for name in options.pools:
        if name not in POOLS:
            parser.error(f"there is no pool {name!r}; there are {', '.join(POOLS)}")
    for text in options.strategies:
        try:
            make_strategy(text)
        except ValueError as error:
            parser.error(str(error))
    folder: Path = CACHE if options.no_write else RESULTS
    bench = Bench(folder / "labels.csv", options.budgets, options.epochs, options.processes)
    bench.records.forget(options.again)
    compared = bench.run(options.pools, options.strategies, options.seeds)
    if not compared:
        sys.exit("None of the pools is on this machine.")
    print_tables(compared, options.budgets)


def _list(text: str) -> list[str]:
    return text.split(",")


def _numbers(text: str) -> tuple[int, ...]:
    numbers = tuple(int(number) for number in text.split(","))
    if list(numbers) != sorted(set(numbers)) or numbers[0] < 1:
        raise argparse.ArgumentTypeError("budgets must rise, from 1 on")
    return numbers


if __name__ == "__main__":
    main()

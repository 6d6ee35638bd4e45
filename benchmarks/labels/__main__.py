"""The command: `make bench-labels`, `make bench-labels-quick`, or `python -m benchmarks.labels` with options."""

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.labels.bench import Bench
from benchmarks.labels.catalogue import DEVELOPMENT, POOLS
from benchmarks.labels.comparison import Compared
from benchmarks.labels.embeddings import CACHE
from benchmarks.labels.figures import figures
from benchmarks.labels.judges import JUDGES
from benchmarks.labels.plot import save_plot
from benchmarks.labels.simulation import make_strategy
from benchmarks.labels.spaces import SPACES
from benchmarks.labels.tables import markdown, print_tables
from benchmarks.report import RESULTS, Figure, machine, write_report
from benchmarks.select import PICKS, alone, make_pool, select
from worker.device import available_cores
from worker.strategies import strategies


@dataclass(frozen=True)
class Mode:
    """The defaults of the options. fresh: also what was run before; epochs: of the pretext task, None: as a project"""

    name: str
    strategies: Sequence[str]
    pools: Sequence[str]
    judges: Sequence[str]
    seeds: int
    budgets: Sequence[int]
    epochs: int | None
    fresh: bool


_BUDGETS = (10, 20, 30, 50, 75, 100, 150, 200, 300, 500, 700, 1_000, 1_400, 2_000)
FULL = Mode("labels", tuple(strategies()), POOLS, JUDGES, 10, _BUDGETS, epochs=None, fresh=False)
QUICK = Mode(
    "labels-quick",
    ("random", "shortlist", "margin", "maxherding", "uherding"),
    DEVELOPMENT,
    ("own", "hog", "pretrained"),
    seeds=3,
    budgets=(10, 20, 50, 100, 200, 500),
    epochs=1,
    fresh=True,
)


def main(arguments: Sequence[str] | None = None) -> None:
    options = _options(arguments)
    mode: Mode = QUICK if options.quick else FULL
    pools, budgets = options.pools or mode.pools, options.budgets or mode.budgets
    seeds = options.seeds or mode.seeds
    begun = time.perf_counter()
    folder: Path = CACHE if options.no_write else RESULTS
    written = mode.name if options.space == "trained" else f"{mode.name}-{options.space}"
    table = folder / f"{written}.csv"
    if mode.fresh:
        table.unlink(missing_ok=True)
    bench = Bench(table, budgets, options.epochs or mode.epochs, options.processes, space=options.space)
    if options.again:
        bench.records.forget(options.again)
    found = bench.run(pools, options.strategies or mode.strategies, seeds, options.judges or mode.judges)
    compared = {name: found[name] for name in POOLS if name in found}
    if not compared:
        sys.exit("None of the pools is on this machine.")
    print_tables(compared)
    if options.no_write:
        return
    command = " ".join(["python -m benchmarks.labels", *(sys.argv[1:] if arguments is None else arguments)])
    (folder / f"{written}.md").write_text(markdown(compared, command, machine()))
    save_plot(compared, folder / f"{written}.png")
    _report(written, compared, seeds, command, begun)


def _report(name: str, compared: Compared, seeds: int, command: str, begun: float) -> None:
    found: dict[str, Figure] = figures(compared)
    with tempfile.TemporaryDirectory(prefix="shortlist-bench-") as folder:
        for size, items in (("50k", 50_000), ("1m", 1_000_000)):
            pool = Path(folder) / size
            alone(make_pool, pool, items)
            cost = alone(select, pool, "shortlist", PICKS)
            found[f"selection_s_{size}"] = round(cost.seconds, 2)
            found[f"selection_peak_gb_{size}"] = round(cost.peak_gb, 2)
    found |= {"seeds": seeds, "bench_s": round(time.perf_counter() - begun)}
    write_report(name, found, command)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.labels", description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="a few strategies and pools, in less than 10 minutes"
    )
    parser.add_argument("--strategies", type=_list, help="NAME[:PARAMETER=VALUE…],… (random always runs)")
    parser.add_argument("--pools", type=_list, help=", ".join(POOLS))
    parser.add_argument("--judges", type=_list, help=f"{', '.join(JUDGES)} (own always judges)")
    parser.add_argument("--space", choices=SPACES, default="trained", help="of the embeddings")
    parser.add_argument("--seeds", type=int)
    parser.add_argument("--budgets", type=_numbers, help="rising; each is a round")
    parser.add_argument("--epochs", type=int, help="of the pretext training, else those of a project")
    parser.add_argument("--processes", type=int, default=available_cores())
    parser.add_argument(
        "--again", type=_list, default=[], help="strategies to run again though they were run"
    )
    parser.add_argument(
        "--no-write", action="store_true", help="print only, leave benchmarks/results as it is"
    )
    options = parser.parse_args(arguments)
    for name in options.pools or ():
        if name not in POOLS:
            parser.error(f"there is no pool {name!r}; there are {', '.join(POOLS)}")
    for name in options.judges or ():
        if name not in JUDGES:
            parser.error(f"there is no judge {name!r}; there are {', '.join(JUDGES)}")
    for text in options.strategies or ():
        try:
            make_strategy(text)
        except ValueError as error:
            parser.error(str(error))
    reported = options.strategies or (QUICK if options.quick else FULL).strategies
    if not options.no_write and "shortlist" not in reported:
        parser.error("the report is on `shortlist`, so it must be among the strategies, or say --no-write")
    return options


def _list(text: str) -> list[str]:
    return text.split(",")


def _numbers(text: str) -> tuple[int, ...]:
    numbers = tuple(int(number) for number in text.split(","))
    if list(numbers) != sorted(set(numbers)) or numbers[0] < 1:
        raise argparse.ArgumentTypeError("budgets must rise, from 1 on")
    return numbers


if __name__ == "__main__":
    main()

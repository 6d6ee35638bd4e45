"""The time that annotators wait for a batch, however many they are and however large the pool.

A service runs as a process on SQLite or PostgreSQL; annotators are threads of two other processes. Each takes a
batch of ten, thinks, and posts its labels; in between it asks an empty FastAPI endpoint, served as Shortlist is by a
process of its own: that is what any answer costs on this machine at that moment. An annotator thinks for 8 s over a
batch, which is quick for a person (`--think-s`); few of them think less, so that 8 batches a second are asked for
(`--batches-per-s`) and there is something to measure. 32 annotators then think for 4 s: 0.4 s a label.

`make bench-serve`, or `python -m benchmarks.serve --items 20000 --annotators 8 32 --seconds 10` for a short look.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from rich.console import Console

from benchmarks.report import RESULTS, Figure, write_report
from benchmarks.serve import site as sites
from benchmarks.serve.load import BATCH, TURNS, Seconds, compared, described, extend, kept, line, load, short
from benchmarks.serve.site import Site

console = Console(stderr=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--databases", nargs="+", default=["sqlite", "postgresql"])
    parser.add_argument("--items", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--annotators", type=int, nargs="+", default=[1, 8, 32, 128])
    parser.add_argument("--seconds", type=float, default=40, help="of each measurement")
    parser.add_argument("--think-s", type=float, default=8, help="over a batch of ten, on average, at most")
    parser.add_argument(
        "--batches-per-s", type=float, default=8, help="asked for by all annotators together, at least"
    )
    parser.add_argument("--no-write", action="store_true", help="leave benchmarks/results as it is")
    options = parser.parse_args()
    command = f"python -m benchmarks.serve {' '.join(sys.argv[1:])}".strip()
    with (
        tempfile.TemporaryDirectory() as elsewhere,
        sites.started([sys.executable, "-m", "benchmarks.serve.empty"], {}) as (_, empty),
    ):
        for database in options.databases:
            with sites.running(database) as site:
                figures = kept(but=database, after_labels=False) | measure(site, empty, database, options)
            folder = Path(elsewhere) if options.no_write else RESULTS
            write_report("serve", figures, command, folder, run=f"_{database}")


def measure(site: Site, empty: str, database: str, options: argparse.Namespace) -> dict[str, Figure]:
    figures: dict[str, Figure] = {
        f"batches_per_s_{database}": options.batches_per_s,
        f"think_s_{database}": options.think_s,
        f"batch_{database}": BATCH,
        f"seconds_{database}": options.seconds,
    }
    projects = {}
    for items in sorted(options.items):
        projects[items], seconds = sites.register(site, items)
        figures[f"register_{short(items)}_s_{database}"] = seconds
        figures[f"service_memory_mb_{database}"] = site.memory_mb()
        console.print(f"{database}: {items} items registered in {seconds:.1f} s; {site.memory_mb():.0f} MB")
        sites.score_and_rank(site, projects[items])
    sites.settle(site)

    def thinks(annotators: int) -> float:
        return float(min(options.think_s, annotators / options.batches_per_s))

    largest, smallest = max(projects), min(projects)
    most = 32 if 32 in options.annotators else max(options.annotators)

    def pool_of(items: int, needed: float) -> str:
        if sites.available(site, projects[items]) < needed:  # a small one is labeled soon
            projects[items], _ = sites.register(site, items)
        sites.score_and_rank(site, projects[items])
        return projects[items]

    def measured(annotators: int, items: int, seconds: float) -> Seconds:
        think_s = thinks(annotators)
        pool = pool_of(items, BATCH * annotators * (2 + 1.5 * seconds / think_s))
        return load(site, empty, pool, annotators, think_s, seconds)

    for annotators in options.annotators:
        # The pools take turns, so that they share what else the machine does.
        of: dict[int, Seconds] = {items: {} for items in projects}
        for _ in range(TURNS):
            for items in projects:
                extend(of[items], measured(annotators, items, options.seconds / TURNS))
        for items in projects:
            name = f"{database}_{annotators}_{short(items)}"
            figures |= described(of[items], name)
            console.print(line(name, of[items]))
        if annotators == most:
            name = f"{short(largest)}_over_{short(smallest)}_{database}"
            figures |= compared(of[largest], of[smallest], name)

    at_once = load(site, empty, pool_of(largest, 1000 * options.seconds), most, 0, options.seconds)
    figures[f"labels_per_s_{database}"] = BATCH * len(at_once["labels"]) / options.seconds
    console.print(line(f"{database}, {most} who think not at all", at_once))
    return figures


if __name__ == "__main__":
    main()

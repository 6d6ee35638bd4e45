"""How long do annotators wait for a batch, however many they are and however large the pool?

A service runs as a process on SQLite or PostgreSQL; annotators are threads of two other processes. Each takes a
batch of ten, thinks, and posts its labels; in between it asks an empty FastAPI endpoint, served as Shortlist is by a
process of its own: that is what any answer costs on this machine at that moment. An annotator thinks for 8 s over a
batch, which is quick for a person (`--think-s`); few of them think less, so that 8 batches a second are asked for
(`--batches-per-s`) and there is something to measure. 32 annotators then think for 4 s: 0.4 s a label.

`make bench-serve`, or `python -m benchmarks.serve --items 20000 --annotators 8 32 --seconds 10 --labels 2000` for a
short look.
"""

import argparse
import gc
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from rich.console import Console

from benchmarks.report import RESULTS, Figure, write_report
from benchmarks.serve import site as sites
from benchmarks.serve.annotators import Task
from benchmarks.serve.site import Site

PROCESSES = 2
BATCH = 10
TURNS = 4  # of each pool
MANY = 1_000  # a batch of whoever only makes labels, to see what is left after them
Seconds = dict[str, list[float]]

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
    parser.add_argument(
        "--labels", type=int, default=500_000, help="made before the last measurement, 0: none"
    )
    parser.add_argument(
        "--labels-seconds", type=float, default=120,
        help="of the measurements before and after these labels: what differs little takes more requests to be seen",
    )  # fmt: skip
    parser.add_argument("--no-write", action="store_true", help="leave benchmarks/results as it is")
    options = parser.parse_args()
    command = f"python -m benchmarks.serve {' '.join(sys.argv[1:])}".strip()
    with (
        tempfile.TemporaryDirectory() as elsewhere,
        sites.started([sys.executable, "-m", "benchmarks.serve.empty"], {}) as (_, empty),
    ):
        for database in options.databases:
            with sites.running(database) as site:
                figures = _kept(but=database) | measure(site, empty, database, options)
            folder = Path(elsewhere) if options.no_write else RESULTS
            write_report("serve", figures, command, folder, run=f"_{database}")


def _kept(*, but: str) -> dict[str, Figure]:
    """Figures of earlier runs on the other database, with their command and date."""
    path = RESULTS / "serve.json"
    before: dict[str, Figure] = json.loads(path.read_text()) if path.exists() else {}
    return {name: value for name, value in before.items() if but not in name.split("_")}


def measure(site: Site, empty: str, database: str, options: argparse.Namespace) -> dict[str, Figure]:
    figures: dict[str, Figure] = {
        f"batches_per_s_{database}": options.batches_per_s, f"think_s_{database}": options.think_s,
        f"batch_{database}": BATCH, f"seconds_{database}": options.seconds,
    }  # fmt: skip
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
    if options.labels:
        before = measured(most, largest, options.labels_seconds)
        console.print(line(f"{database} before {options.labels} labels", before))
        pool = pool_of(largest, options.labels + 4 * MANY)
        load(site, empty, pool, 2, 0, 7200, labels=options.labels // 2, batch=MANY)
        after = measured(most, largest, options.labels_seconds)
        console.print(line(f"{database} after them", after))
        figures |= compared(after, before, f"after_{short(options.labels)}_labels_over_start_{database}")
    figures[f"database_mb_{database}"] = sites.database_mb(site)
    return figures


def load(
    site: Site,
    empty: str,
    project: str,
    annotators: int,
    think_s: float,
    seconds: float,
    labels: int | None = None,
    batch: int = BATCH,
) -> Seconds:
    """Seconds of each request, by kind; labels: each annotator stops after so many."""
    names = [f"annotator {number}" for number in range(annotators)]
    shares = [tuple(names[start::PROCESSES]) for start in range(min(PROCESSES, annotators))]
    gc.collect()
    processes = [
        subprocess.Popen(
            [
                sys.executable,
                "-m",
                "benchmarks.serve.annotators",
                json.dumps(
                    Task(
                        site.address, empty, site.key, project, share, batch, think_s, seconds, labels
                    ).__dict__
                ),
            ],
            stdout=subprocess.PIPE,
        )
        for share in shares
    ]
    outputs = [process.communicate()[0] for process in processes]
    if any(process.returncode for process in processes):
        sys.exit("An annotator failed; see above.")
    parts: list[Seconds] = [json.loads(output) for output in outputs]
    return {what: [second for part in parts for second in part[what]] for what in parts[0]}


def described(seconds: Seconds, name: str) -> dict[str, Figure]:
    figures: dict[str, Figure] = {f"batches_{name}": len(seconds["next_batch"])}
    for what, values in seconds.items():
        for percent in (50, 95, 99):
            figures[f"{what}_p{percent}_ms_{name}"] = 1000 * percentile(values, percent)
    figures[f"next_batch_p99_over_empty_{name}"] = percentile(seconds["next_batch"], 99) / percentile(
        seconds["empty"], 99
    )
    return figures


def extend(all_of: Seconds, more: Seconds) -> None:
    for what, values in more.items():
        all_of.setdefault(what, []).extend(values)


def compared(seconds: Seconds, start: Seconds, name: str) -> dict[str, Figure]:
    """How many times as long a batch takes; a p99 is that of very few requests, so the median stands beside it."""
    return {
        f"p{percent}_{name}": percentile(seconds["next_batch"], percent)
        / percentile(start["next_batch"], percent)
        for percent in (50, 99)
    }


def percentile(values: list[float], percent: float) -> float:
    return float(np.percentile(values, percent)) if values else float("nan")


def line(name: str, seconds: Seconds) -> str:
    parts = [
        f"{what} {' / '.join(f'{1000 * percentile(values, percent):.1f}' for percent in (50, 95, 99))}"
        for what, values in seconds.items()
    ]
    ratio = percentile(seconds["next_batch"], 99) / percentile(seconds["empty"], 99)
    return f"{name}: {len(seconds['next_batch'])} batches; ms {', '.join(parts)}; p99 over empty {ratio:.1f}"


def short(items: int) -> str:
    """10000 -> 10k"""
    return f"{items // 1_000_000}m" if items >= 1_000_000 else f"{items // 1000}k"


if __name__ == "__main__":
    main()

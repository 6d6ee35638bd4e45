"""Does a batch take longer once there are very many labels? In tables and indexes, what was written stays.

Two services on databases of their own have pools of the same size. One of them gets its labels; then annotators work
on both in turns, so that both share what else the machine does: two moments some minutes apart differ by more than
what is looked for. Nothing is vacuumed after the labels but what PostgreSQL does by itself.

`python -m benchmarks.serve.after_labels`, or with `--items 20000 --labels 5000 --seconds 10 --think-s 1` for a short
look.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from rich.console import Console

from benchmarks.report import RESULTS, Figure, write_report
from benchmarks.serve import site as sites
from benchmarks.serve.load import TURNS, Seconds, compared, described, extend, kept, line, load, short
from benchmarks.serve.site import Site

MANY = 1_000  # a batch of whoever only makes labels

console = Console(stderr=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--databases", nargs="+", default=["sqlite", "postgresql"])
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--labels", type=int, default=500_000)
    parser.add_argument("--annotators", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=160, help="of each of the two measurements")
    parser.add_argument("--think-s", type=float, default=4, help="over a batch of ten, on average")
    parser.add_argument("--no-write", action="store_true", help="leave benchmarks/results as it is")
    options = parser.parse_args()
    command = f"python -m benchmarks.serve.after_labels {' '.join(sys.argv[1:])}".strip()
    with (
        tempfile.TemporaryDirectory() as elsewhere,
        sites.started([sys.executable, "-m", "benchmarks.serve.empty"], {}) as (_, empty),
    ):
        for database in options.databases:
            with sites.running(database) as aged, sites.running(database) as young:
                figures = measure(aged, young, empty, database, options)
            folder = Path(elsewhere) if options.no_write else RESULTS
            figures = kept(but=database, after_labels=True) | figures
            write_report("serve", figures, command, folder, run=f"_after_labels_{database}")


def measure(
    aged: Site, young: Site, empty: str, database: str, options: argparse.Namespace
) -> dict[str, Figure]:
    projects = {}
    for site in (aged, young):
        projects[site], seconds = sites.register(site, options.items)
        sites.score_and_rank(site, projects[site])
        sites.settle(site)
        console.print(f"{database}: {options.items} items registered in {seconds:.1f} s")
    load(aged, empty, projects[aged], 2, 0, 7200, labels=options.labels // 2, batch=MANY)
    console.print(f"{database}: {options.labels} labels")

    found: dict[Site, Seconds] = {aged: {}, young: {}}
    for _ in range(TURNS):
        for site, project in projects.items():
            sites.score_and_rank(site, project)
            seconds = options.seconds / TURNS
            extend(found[site], load(site, empty, project, options.annotators, options.think_s, seconds))
    after = f"after_{short(options.labels)}_labels"
    figures: dict[str, Figure] = {}
    for site, name in ((young, f"{after}_twin_{database}"), (aged, f"{after}_{database}")):
        figures |= described(found[site], name)
        figures[f"database_mb_{name}"] = sites.database_mb(site)
        console.print(line(name, found[site]))
    return figures | compared(found[aged], found[young], f"{after}_over_start_{database}")


if __name__ == "__main__":
    main()

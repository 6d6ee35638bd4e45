"""The command: `make bench-system`, or `python -m benchmarks.system` with options. About 16 minutes on two quiet cores,
two of them for the pretext model, which is kept; stopped anywhere, it goes on with the runs that are missing.
"""

import argparse
import csv
import hashlib
import sys
from collections.abc import Sequence
from concurrent.futures import as_completed
from dataclasses import asdict, fields
from pathlib import Path
from statistics import fmean

from pydantic import TypeAdapter
from rich.console import Console
from rich.progress import Progress

import worker
from benchmarks.labels.bench import processes
from benchmarks.labels.embeddings import CACHE
from benchmarks.labels.pools import Missing
from benchmarks.report import RESULTS, machine, write_report
from benchmarks.system import arms
from benchmarks.system.arms import FINETUNED, TODAY, Row, prepare, run, tasks
from benchmarks.system.needed import curves
from benchmarks.system.page import figures, markdown, save_plot
from worker.device import available_cores

_ROW = TypeAdapter(Row)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.system", description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--processes", type=int, default=available_cores())
    parser.add_argument("--no-write", action="store_true", help="leave benchmarks/results as it is")
    options = parser.parse_args(arguments)
    try:
        path = prepare(CACHE)
    except Missing as error:
        sys.exit(str(error))
    rows = _run(path, range(options.seeds), options.processes)
    found = curves(rows)
    folder = CACHE if options.no_write else RESULTS
    command = f"python -m benchmarks.system --seeds {options.seeds}"
    seconds = {
        f"{arm} ({labels:,} labels)": fmean(
            row.seconds for row in rows if (row.arm, row.labels) == (arm, labels)
        )
        for arm, labels in (
            ("today", 300),
            ("today", TODAY[-1]),
            ("propagate", 300),
            ("finetune", FINETUNED[-1]),
        )
    }
    (folder / "system.md").write_text(markdown(found, command, machine(), seconds))
    save_plot(found, folder / "system.png")
    write_report("system", figures(found), command, folder)


def _run(path: Path, seeds: Sequence[int], count: int) -> list[Row]:
    """The rows of all runs. What is done is in a file beside the pretext model, so it goes on where it was."""
    records = path.with_name(f"{path.stem}-{_code()}.csv")
    rows: list[Row] = []
    if records.exists():
        with records.open(newline="") as file:
            rows = [_ROW.validate_python(values) for values in csv.DictReader(file)]
    done = {(row.arm, row.seed, row.labels if row.arm == "today" else None) for row in rows}
    todo = [task for task in tasks(seeds) if task not in done]
    with processes(count) as executor, Progress(console=Console(stderr=True)) as progress:
        shown = progress.add_task("runs", total=len(todo))
        for one in as_completed([executor.submit(run, *task, path) for task in todo]):
            rows += one.result()
            _write(records, rows)
            progress.advance(shown)
    return sorted((row for row in rows if row.seed in seeds), key=lambda row: (row.arm, row.seed, row.labels))


def _write(records: Path, rows: list[Row]) -> None:
    unfinished = records.with_suffix(".tmp")
    with unfinished.open("w", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Row)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)
    unfinished.replace(records)


def _code() -> str:
    """A hash of all the code that a run depends on, 8 hex digits: rows of other code are not mixed in."""
    found = hashlib.sha256()
    package = Path(worker.__file__).parent
    files = [Path(arms.__file__)]
    for folder in ("", "heads", "strategies", "modalities"):
        files += sorted((package / folder).glob("*.py"))
    for file in files:
        found.update(file.read_bytes())
    return found.hexdigest()[:8]


if __name__ == "__main__":
    main()

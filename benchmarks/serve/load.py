"""Annotators at work on a service, in processes of their own, and what their seconds say."""

import gc
import json
import subprocess
import sys

import numpy as np

from benchmarks.report import RESULTS, Figure
from benchmarks.serve.annotators import Task
from benchmarks.serve.site import Site

PROCESSES = 2
BATCH = 10
TURNS = 4  # of each pool
Seconds = dict[str, list[float]]


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
    """Ratios of a batch's time to the start's; a p99 is that of very few requests, so the median stands beside it."""
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


def kept(*, but: str, after_labels: bool) -> dict[str, Figure]:
    """The figures of all runs but this one, with their commands and dates."""
    path = RESULTS / "serve.json"
    before: dict[str, Figure] = json.loads(path.read_text()) if path.exists() else {}
    return {
        name: value
        for name, value in before.items()
        if but not in (parts := name.split("_")) or ("after" in parts) != after_labels
    }

"""Reports of a benchmark's figures: `results/NAME.json`, a flat object, and the same as a table on the screen."""

import json
import os
import platform
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.table import Table

Figure = float | int | str | None
RESULTS = Path(__file__).parent / "results"


def write_report(
    name: str, figures: dict[str, Figure], command: str, folder: Path = RESULTS, *, run: str = ""
) -> Path:
    """Units stand in the names of the figures (`label_to_ranking_s`). Returns the file's path.

    run: ends the names of command, machine and date, where one file holds the figures of several runs
    """
    today = datetime.now(UTC).date().isoformat()
    everything = figures | {f"command{run}": command, f"machine{run}": machine(), f"date{run}": today}
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    path.write_text(json.dumps(everything, indent=2, ensure_ascii=False) + "\n")
    table = Table(title=name)
    table.add_column("figure")
    table.add_column("value", justify="right")
    for key, value in everything.items():
        table.add_row(key, f"{value:.4g}" if isinstance(value, float) else str(value))
    Console().print(table)
    return path


def machine() -> str:
    """Cores this process may use and the processor's name; nothing that says whose machine it is."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{cores} cores, {_processor()}"


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()

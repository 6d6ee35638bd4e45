"""The rows of all runs in one CSV file, so that what was run is not run again."""

import csv
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict, fields
from pathlib import Path
from typing import NamedTuple

from pydantic import TypeAdapter

from benchmarks.labels.simulation import Row

_ROW = TypeAdapter(Row)


class RunKey(NamedTuple):
    pool: str
    embeddings: str
    strategy: str
    seed: int


class Records:
    """Runs by their key; every change is on the disk at once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.runs: dict[RunKey, list[Row]] = defaultdict(list)
        if path.exists():
            with path.open(newline="") as file:
                for values in csv.DictReader(file):
                    row = _ROW.validate_python(values)
                    self.runs[_key(row)].append(row)

    def has(self, key: RunKey, budgets: Iterable[int]) -> bool:
        """A run over other budgets is another run: its rounds had other sizes."""
        return [row.budget for row in self.runs.get(key, [])] == list(budgets)

    def put(self, rows: list[Row]) -> None:
        """All rows of one run; what stood there of the same run goes."""
        self.runs[_key(rows[0])] = rows
        self._write()

    def forget(self, strategies: Iterable[str]) -> None:
        for key in [key for key in self.runs if key.strategy in set(strategies)]:
            del self.runs[key]
        self._write()

    def _write(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = self.path.with_suffix(".tmp")
        with unfinished.open("w", newline="") as file:
            writer = csv.DictWriter(file, [field.name for field in fields(Row)], lineterminator="\n")
            writer.writeheader()
            for key in sorted(self.runs):
                writer.writerows(_rounded(row) for row in self.runs[key])
        unfinished.replace(self.path)


def _key(row: Row) -> RunKey:
    return RunKey(row.pool, row.embeddings, row.strategy, row.seed)


def _rounded(row: Row) -> dict[str, str | int | float]:
    return {
        name: round(value, 6) if isinstance(value, float) else value for name, value in asdict(row).items()
    }

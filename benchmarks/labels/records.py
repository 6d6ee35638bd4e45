"""The rows of all runs in one CSV file, so that what was run is not run again."""

import csv
import io
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict, fields
from pathlib import Path
from typing import NamedTuple

from pydantic import TypeAdapter

from benchmarks.labels.simulation import Row

_ROW = TypeAdapter(Row)
_COLUMNS = [field.name for field in fields(Row)]


class RunKey(NamedTuple):
    pool: str
    embeddings: str
    strategy: str
    seed: int
    judge: str


class Records:
    """Runs by their key; every change is on the disk at once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.runs: dict[RunKey, list[Row]] = defaultdict(list)
        self._texts: dict[RunKey, tuple[list[Row], str]] = {}
        if path.exists():
            with path.open(newline="") as file:
                reader = csv.DictReader(file)
                if reader.fieldnames != _COLUMNS:
                    raise ValueError(f"{path} has other columns than this bench writes: move it away.")
                for values in reader:
                    row = _ROW.validate_python(values)
                    self.runs[_key(row)].append(row)

    def has(self, key: RunKey, budgets: Iterable[int]) -> bool:
        """A run over other budgets is another run: its rounds had other sizes."""
        return [row.budget for row in self.runs.get(key, [])] == list(budgets)

    def put(self, *runs: list[Row]) -> None:
        """All rows of one run by one judge; what stood there of the same goes."""
        for rows in runs:
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
            file.write(_lines([dict(zip(_COLUMNS, _COLUMNS, strict=True))]))
            file.writelines(self._text(key) for key in sorted(self.runs))
        unfinished.replace(self.path)

    def _text(self, key: RunKey) -> str:
        """Kept, since the file is written anew after each of thousands of runs."""
        rows, text = self._texts.get(key, (None, ""))
        if rows is not self.runs[key]:
            rows, text = self._texts[key] = self.runs[key], _lines(map(_rounded, self.runs[key]))
        return text


def _lines(rows: Iterable[dict[str, str | int | float]]) -> str:
    text = io.StringIO()
    csv.DictWriter(text, _COLUMNS, lineterminator="\n").writerows(rows)
    return text.getvalue()


def _key(row: Row) -> RunKey:
    return RunKey(row.pool, row.embeddings, row.strategy, row.seed, row.judge)


def _rounded(row: Row) -> dict[str, str | int | float]:
    return {
        name: round(value, 6) if isinstance(value, float) else value for name, value in asdict(row).items()
    }

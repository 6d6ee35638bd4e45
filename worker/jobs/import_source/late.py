"""Candidates that are decided once all of a source was seen: their bytes are those of an item that may be gone."""

import json
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path
from typing import IO

from service.content.listing import Candidate
from worker.jobs.import_source.looks import Look


class Late:
    """On the disk, in a file without a name: a folder that was renamed has as many as it has files."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file: IO[str] | None = None

    def add(self, found: Candidate, look: Look) -> None:
        if self._file is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._file = tempfile.TemporaryFile("w+", encoding="utf-8", dir=self._folder)  # noqa: SIM115
        candidate = asdict(replace(found, data=None))
        self._file.write(json.dumps([candidate, asdict(look)]) + "\n")

    def chunks(self, size: int) -> Iterator[list[tuple[Candidate, Look]]]:
        """In the order they came; once."""
        if self._file is None:
            return
        with self._file as file:
            file.seek(0)
            pairs = ((Candidate(**found), Look(**look)) for found, look in map(json.loads, file))
            while chunk := list(islice(pairs, size)):
                yield chunk

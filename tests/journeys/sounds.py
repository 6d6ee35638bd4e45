"""Recordings for journeys: tones that rise or fall; a key tells which."""

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile

RATE = 8_000


def recording(kind: str, seed: int, seconds: float = 0.6, *, form: str = "WAV", rate: int = RATE) -> bytes:
    """kind: `rise` or `fall`."""
    rng = np.random.default_rng(seed)
    time = np.arange(round(seconds * rate)) / rate
    low, high = rng.uniform(200, 400), rng.uniform(1_200, 1_800)
    begin, end = (low, high) if kind == "rise" else (high, low)
    pitch = begin + (end - begin) * time / seconds
    sound = 0.3 * np.sin(2 * np.pi * np.cumsum(pitch) / rate) + 0.02 * rng.standard_normal(len(time))
    buffer = io.BytesIO()
    soundfile.write(buffer, sound.astype(np.float32), rate, format=form)
    return buffer.getvalue()


def write_recordings(path: Path, count: int) -> Path:
    """A Parquet file; each has its own bytes, and a cover picture beside it that is no item."""
    kinds = [("rise", "fall")[number % 2] for number in range(count)]
    table = {
        "key": [f"{kind}-{number}" for number, kind in enumerate(kinds)],
        "cover": [b"no picture"] * count,
        "audio": [recording(kind, number) for number, kind in enumerate(kinds)],
    }
    pq.write_table(pa.table(table), path)
    return path

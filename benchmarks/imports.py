"""An import of 1,000,000 rows, by the job itself, into SQLite: how long it takes, how much memory, and the same again.

`python -m benchmarks.imports` imports texts that stand in a JSONL file, small images in a Parquet file, and a JSONL
manifest that names files; each in a process of its own, whose peak memory is its own. Writes
`benchmarks/results/imports.json`.
"""

import argparse
import io
import json
import multiprocessing
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from rich.console import Console

from benchmarks.report import RESULTS, Figure, write_report
from service.content import contents
from service.settings import Settings
from service.store import jobs, migrate, pipeline
from service.store.artifacts import Artifacts
from service.store.session import make_engine, write_session
from service.store.tables import Project, Source
from worker.evaluation.diagnostics import peak_memory_gb
from worker.jobs import import_source
from worker.jobs.context import JobContext

SIDE = 8
_PART = 8_192


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--kinds", default=",".join(_MAKERS), help="of sources: text, image, files")
    parser.add_argument(
        "--files", type=int, default=10_000, help="that the rows of `files` name, over and over"
    )
    parser.add_argument("--no-write", action="store_true", help="leave benchmarks/results as it is")
    options = parser.parse_args()
    figures: dict[str, Figure] = {"rows": options.rows}
    with tempfile.TemporaryDirectory() as folder:
        for kind in options.kinds.split(","):
            with multiprocessing.get_context("spawn").Pool(1) as process:
                figures |= process.apply(_measure, (kind, Path(folder) / kind, options.rows, options.files))
        command = f"python -m benchmarks.imports --rows {options.rows} --kinds {options.kinds}"
        write_report("imports", figures, command, Path(folder) if options.no_write else RESULTS)


def _measure(kind: str, folder: Path, rows: int, files: int) -> dict[str, Figure]:
    folder.mkdir()
    place = _MAKERS[kind](folder, rows, files)
    settings = Settings(data_dir=folder / "data", source_roots=(str(folder),))
    settings.data_dir.mkdir()
    engine = make_engine(settings.database)
    migrate.upgrade(engine)
    figures: dict[str, Figure] = {f"{kind}_before_gb": peak_memory_gb(torch.device("cpu"))}
    with write_session(engine) as session:
        session.add(Project(name="pool", classes=["a", "b"], settings={}))
    for again in ("", "_again"):
        with write_session(engine) as session:
            source = Source(project_id=1, uri=str(place), split="pool")
            session.add(source)
            session.flush()
            source.job_id = pipeline.queue_import(session, source)
        has = {"kind:import_source", *(f"modality:{name}" for name in contents())}
        job = jobs.claim(engine, "bench", ("short",), lease_s=7_200, has=has)
        assert job is not None
        context = JobContext(
            job=job,
            settings=settings,
            engine=engine,
            artifacts=Artifacts(settings.artifacts, folder / "cache"),
            report=lambda fraction, message: None,
        )
        start, used = time.monotonic(), time.process_time()
        result = import_source.run(context)
        took, used = time.monotonic() - start, time.process_time() - used
        assert result["known" if again else "added"] == rows, result
        figures |= {f"{kind}{again}_s": took, f"{kind}{again}_cpu_s": used}
        figures[f"{kind}{again}_peak_gb"] = peak_memory_gb(torch.device("cpu"))
        Console(stderr=True).print(f"{kind}{again}: {took:.1f} s, {used:.1f} s of CPU")
    engine.dispose()
    return figures


def _picture(number: int) -> bytes:
    """A BMP file whose pixels say the number."""
    pixels = np.zeros((SIDE, SIDE, 3), np.uint8)
    pixels.reshape(-1)[:8] = np.frombuffer(number.to_bytes(8, "little"), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "BMP")
    return buffer.getvalue()


def _texts(folder: Path, rows: int, files: int) -> Path:
    place = folder / "texts.jsonl"
    with place.open("w") as file:
        for number in range(rows):
            file.write(json.dumps({"text": f"A sentence of a few words, and the number {number}."}) + "\n")
    return place


def _images(folder: Path, rows: int, files: int) -> Path:
    place, schema = folder / "images.parquet", pa.schema({"image": pa.binary()})
    with pq.ParquetWriter(place, schema) as writer:
        for first in range(0, rows, _PART):
            part = [_picture(number) for number in range(first, min(first + _PART, rows))]
            writer.write_table(pa.table({"image": part}, schema))
    return place


def _named_files(folder: Path, rows: int, files: int) -> Path:
    (folder / "files").mkdir()
    for number in range(min(files, rows)):
        (folder / "files" / f"{number}.bmp").write_bytes(_picture(number))
    place = folder / "files.jsonl"
    with place.open("w") as file:
        for number in range(rows):
            file.write(json.dumps({"key": f"item {number}", "path": f"files/{number % files}.bmp"}) + "\n")
    return place


_MAKERS: dict[str, Callable[[Path, int, int], Path]] = {
    "text": _texts,
    "image": _images,
    "files": _named_files,
}


if __name__ == "__main__":
    main()

"""Embeddings of a user's own model: read from an upload, stored, and given to the pool in place of a pretext model's.

They stand as a pretext model of the project, of task `OWN`, whose artifact holds them by item:

    <artifact>/ids.npy          (n,) int64
    <artifact>/embeddings.npy   (n, d) float16
    <artifact>/losses.npy       (n,) float32, where they came with pretext losses

So all that follows a pretext model follows them: job score_own makes a score run of them, heads and rankings follow.
"""

import uuid
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import sqlalchemy as sa
from sqlalchemy.orm import Session

from service.errors import Invalid
from service.models.uploaded_items import SCORED, ids_of, is_text, not_here, refuse_twice
from service.projects import projects
from service.store import pipeline
from service.store.artifacts import Artifacts
from service.store.names import composed
from service.store.own_embeddings import FOLDER, OWN
from service.store.session import read_session
from service.store.tables import Item, Job, PretextModel, Project, utc_now

MOST_DIMENSIONS = 4_096
_ROWS = 4_096  # in memory at a time
_LEAST_SHARE = 0.5  # of the pool: what has no embedding is served at random only
_WANTED = (
    "Send Parquet with the columns `key` (string) and `embedding` (list of numbers), or a NumPy .npz with the arrays "
    "`keys` (n,) and `embeddings` (n, d)."
)

Block = tuple[list[str], npt.NDArray[np.float32], npt.NDArray[np.float32] | None]  # keys, embeddings, losses


@dataclass(frozen=True)
class Stored:
    """An upload's contents, as they are stored under `artifact`. missing: items of the pool without an embedding"""

    artifact: str
    items: int
    dimensions: int
    has_losses: bool
    unknown: int
    missing: int


def store(
    engine: sa.Engine,
    artifacts: Artifacts,
    project_id: int,
    upload: Path,
    *,
    ignore_unknown: bool,
    partial: bool,
) -> Stored:
    """Check an upload and store it by item. Raises `Invalid` with the field and what to do; then nothing is stored."""
    artifact = f"{FOLDER}/{uuid.uuid4().hex}"
    try:
        return _store(engine, artifacts, artifact, project_id, upload, ignore_unknown, partial)
    except BaseException:
        artifacts.delete(artifact)
        raise


def use(session: Session, project: Project, stored: Stored) -> Job:
    """They are the next version of the project's pretext model, and a score run of them is queued."""
    projects.lock_open(session, project)
    newest = sa.select(sa.func.max(PretextModel.version)).where(PretextModel.project_id == project.id)
    model = PretextModel(
        project_id=project.id,
        version=(session.scalar(newest) or 0) + 1,
        state="ready",
        task={"name": OWN, "params": {}},
        backbone="yours",
        config={"seed": 0, "dimensions": stored.dimensions, "has_losses": stored.has_losses},
        artifact=stored.artifact,
        diagnostics={},
        finished_at=utc_now(),
    )
    session.add(model)
    session.flush()
    return session.get_one(Job, pipeline.queue_score_pool(session, project, model.id))


def _store(
    engine: sa.Engine,
    artifacts: Artifacts,
    artifact: str,
    project_id: int,
    upload: Path,
    ignore_unknown: bool,
    partial: bool,
) -> Stored:
    ids, losses, unknown = list[int](), list[npt.NDArray[np.float32]](), list[str]()
    dimensions, row = 0, 0
    with artifacts.writing(f"{artifact}/raw") as file:  # the header of an .npy says how many rows there are
        for keys, embeddings, some_losses in blocks(upload):
            if row == 0:
                dimensions = _checked_dimensions(embeddings.shape[1])
            known = ids_of(engine, project_id, keys)
            at = [place for place, key in enumerate(keys) if key in known]
            unknown += [key for key in keys if key not in known]
            halves = _halves(embeddings, keys, row)
            file.write(halves[at].tobytes())
            ids += [known[keys[place]] for place in at]
            if some_losses is not None:
                losses.append(some_losses[at])
            row += len(keys)
    if unknown and not ignore_unknown:
        raise Invalid(
            field="key",
            message=f"{not_here(unknown)} Import the items first, or say `?ignore_unknown=true`.",
        )
    every = np.array(ids, np.int64)
    refuse_twice(every)
    missing = _missing(engine, project_id, every, partial)
    arrays: dict[str, npt.NDArray[Any]] = {"ids": every}
    if losses:
        arrays["losses"] = np.concatenate(losses)
    for name, array in arrays.items():
        with artifacts.writing(f"{artifact}/{name}.npy") as file:
            np.save(file, array, allow_pickle=False)
    with artifacts.open(f"{artifact}/raw") as raw, artifacts.writing(f"{artifact}/embeddings.npy") as file:
        header = {"descr": "<f2", "fortran_order": False, "shape": (len(every), dimensions)}
        np.lib.format.write_array_header_1_0(file, header)
        while piece := raw.read(2**20):
            file.write(piece)
    artifacts.delete(f"{artifact}/raw")
    return Stored(artifact, len(every), dimensions, bool(losses), len(unknown), missing)


def blocks(path: Path) -> Iterator[Block]:
    """Raises `Invalid`."""
    with path.open("rb") as file:
        start = file.read(4)
    try:
        if start == b"PAR1":
            yield from _of_parquet(path)
        elif start.startswith(b"PK"):
            yield from _of_npz(path)
        else:
            raise Invalid(field="body", message=f"it is neither Parquet nor .npz. {_WANTED}")
    except (pa.ArrowException, zipfile.BadZipFile, OSError, ValueError, EOFError) as error:
        reason = " ".join(str(error).split())[:200]
        raise Invalid(field="body", message=f"it cannot be read: {reason}. {_WANTED}") from error


def _of_parquet(path: Path) -> Iterator[Block]:
    with pq.ParquetFile(path) as table:
        schema = table.schema_arrow
        there = ", ".join(f"{field.name} ({field.type})" for field in schema) or "none"
        for name, fits, wanted in (
            ("key", is_text, "strings"),
            ("embedding", _is_list, "lists of numbers"),
        ):
            if name not in schema.names or not fits(schema.field(name).type):
                message = f"the file has no such column of {wanted}. Its columns are {there}. {_WANTED}"
                raise Invalid(field=name, message=message)
        columns = ["key", "embedding", *(["pretext_loss"] if "pretext_loss" in schema.names else [])]
        width, row = 0, 0
        for batch in table.iter_batches(_ROWS, columns=columns):
            for name in columns:
                if batch.column(name).null_count:
                    place = row + pc.index(pc.is_null(batch.column(name)), True).as_py() + 1
                    raise Invalid(field=name, message=f"it is null in row {place}.")
            lists = batch.column("embedding")
            lengths = pc.list_value_length(lists).to_numpy(zero_copy_only=False)
            width = width or int(lengths[0])
            _refuse_uneven(lengths, width, row)
            values = lists.flatten()
            if values.null_count:
                raise Invalid(field="embedding", message=f"a number is null in row {row + 1} or below.")
            numbers = values.to_numpy(zero_copy_only=False).astype(np.float32).reshape(len(batch), width)
            losses = None
            if "pretext_loss" in columns:
                losses = _finite(
                    batch.column("pretext_loss").to_numpy(zero_copy_only=False), "pretext_loss", row
                )
            yield [composed(key) for key in batch.column("key").to_pylist()], numbers, losses
            row += len(batch)
        if row == 0:
            raise Invalid(field="body", message=f"it has no rows. {_WANTED}")


def _of_npz(path: Path) -> Iterator[Block]:
    with ExitStack() as stack:
        archive = stack.enter_context(zipfile.ZipFile(path))
        names = {Path(name).stem: name for name in archive.namelist()}
        for name in ("keys", "embeddings"):
            if name not in names:
                there = ", ".join(names) or "none"
                raise Invalid(field=name, message=f"no array has this name. There are {there}. {_WANTED}")
        keys = np.load(stack.enter_context(archive.open(names["keys"])), allow_pickle=False)
        if keys.ndim != 1 or keys.dtype.kind not in "US":
            raise Invalid(field="keys", message=f"it must be (n,) strings, not {keys.shape} {keys.dtype}.")
        losses = None
        if "pretext_losses" in names:
            losses = np.load(stack.enter_context(archive.open(names["pretext_losses"])), allow_pickle=False)
            if losses.shape != keys.shape or losses.dtype.kind not in "fiu":
                message = f"it must be ({len(keys)},) numbers, one a key, not {losses.shape} {losses.dtype}."
                raise Invalid(field="pretext_losses", message=message)
        file = stack.enter_context(archive.open(names["embeddings"]))
        shape, dtype = _header(file)
        if len(shape) != 2 or shape[0] != len(keys) or dtype.kind not in "fiu":
            message = f"it must be ({len(keys)}, d) numbers, a row a key, not {shape} {dtype}."
            raise Invalid(field="embeddings", message=message)
        if len(keys) == 0:
            raise Invalid(field="body", message=f"it has no rows. {_WANTED}")
        _checked_dimensions(shape[1])
        for start in range(0, len(keys), _ROWS):
            some = [
                composed(key.decode() if isinstance(key, bytes) else key)
                for key in keys[start : start + _ROWS].tolist()
            ]
            data = file.read(len(some) * shape[1] * dtype.itemsize)
            numbers = np.frombuffer(data, dtype).reshape(len(some), shape[1]).astype(np.float32)
            part = None
            if losses is not None:
                part = _finite(losses[start : start + _ROWS], "pretext_losses", start)
            yield some, numbers, part


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    version = np.lib.format.read_magic(file)
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in read:
        raise Invalid(field="embeddings", message="its .npy has a version that is not known: save it again.")
    shape, fortran, dtype = read[version](file)
    if fortran:
        message = "it is stored column by column: save `numpy.ascontiguousarray` of it."
        raise Invalid(field="embeddings", message=message)
    return shape, dtype


def _checked_dimensions(found: int) -> int:
    if not 2 <= found <= MOST_DIMENSIONS:
        message = f"it has {found:,} dimensions. From 2 to {MOST_DIMENSIONS:,} can be used."
        raise Invalid(field="embedding", message=message)
    return found


def _refuse_uneven(lengths: npt.NDArray[Any], width: int, before: int) -> None:
    other = np.flatnonzero(lengths != width)
    if len(other):
        row, found = before + int(other[0]) + 1, int(lengths[other[0]])
        message = f"it has {found:,} dimensions in row {row:,} and {width:,} in row 1. All need the same."
        raise Invalid(field="embedding", message=message)


def _halves(embeddings: npt.NDArray[np.float32], keys: list[str], before: int) -> npt.NDArray[np.float16]:
    """As they are stored; what is not finite in 16 bits is refused."""
    with np.errstate(over="ignore"):
        halves = embeddings.astype(np.float16)
    bad = np.flatnonzero(~np.isfinite(halves).all(axis=1))
    if len(bad):
        row = int(bad[0])
        why = "too large for 16 bits: scale them" if np.isfinite(embeddings[row]).all() else "no number"
        message = f"row {before + row + 1:,}, of {keys[row]!r}, holds a value that is {why}."
        raise Invalid(field="embedding", message=message)
    return halves


def _finite(values: npt.NDArray[Any], field: str, before: int) -> npt.NDArray[np.float32]:
    found = values.astype(np.float32)
    bad = np.flatnonzero(~np.isfinite(found))
    if len(bad):
        raise Invalid(field=field, message=f"it is no number in row {before + int(bad[0]) + 1:,}.")
    return found


def _missing(engine: sa.Engine, project_id: int, ids: npt.NDArray[np.int64], partial: bool) -> int:
    query = sa.select(Item.id).where(
        Item.project_id == project_id, Item.split == "pool", Item.state.in_(SCORED)
    )
    with read_session(engine) as session:
        pool = np.fromiter(session.scalars(query), np.int64)
    missing = int((~np.isin(pool, ids)).sum())
    if len(pool) - missing < _LEAST_SHARE * len(pool) and not partial:
        message = (
            f"{len(pool) - missing:,} of the {len(pool):,} items of the pool have an embedding, and the others would "
            "be served at random only. Send more, or say `?partial=true`."
        )
        raise Invalid(field="key", message=message)
    return missing


def _is_list(kind: pa.DataType) -> bool:
    lists = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    return bool(lists and (pa.types.is_floating(kind.value_type) or pa.types.is_integer(kind.value_type)))

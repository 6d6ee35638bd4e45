"""Predictions of a user's own model: the probabilities that strategies use in place of the head's.

One set a project, until another is sent or it is deleted. An artifact holds them by item, whatever score run is served:

    own-predictions/<project>/<name>.npz    ids (n,) int64, ascending; probabilities (n, c) float32, of sum 1, or
                                            each for itself where an item may have several classes

Classes are those of the row in table `own_predictions`.
"""

import uuid
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import sqlalchemy as sa
from sqlalchemy.orm import Session

from service.errors import Invalid, NoPredictions, PredictionsOlder
from service.models.uploaded_items import ids_of, is_text, not_here, refuse_twice
from service.projects import projects
from service.store import pipeline
from service.store.artifacts import Artifacts
from service.store.class_names import ClassNames
from service.store.ids import public_id
from service.store.names import composed
from service.store.own_predictions import folder_of
from service.store.session import read_session
from service.store.tables import Head, Item, Job, OwnPredictions, Project

_ROWS = 4_096  # in memory at a time
_OFF = 0.01  # of a sum of 1, by rounding
_NAMED = 5  # classes in a sentence
_WANTED = (
    "Send Parquet with the column `key` (string) and a column of probabilities for each class, by its name."
)

Probabilities = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Stored:
    """An upload's contents, as they are stored. missing: items of the pool without a prediction"""

    artifact: str
    classes: list[str]
    items: int
    unknown: int
    missing: int


def store(
    engine: sa.Engine, artifacts: Artifacts, project: Project, upload: Path, *, ignore_unknown: bool
) -> Stored:
    """Check an upload and store it by item. Raises `Invalid` with the field and what to do; then nothing is stored."""
    ids, unknown, parts = list[int](), list[str](), list[Probabilities]()
    for keys, probabilities in _blocks(upload, project):
        known = ids_of(engine, project.id, keys)
        at = [place for place, key in enumerate(keys) if key in known]
        unknown += [key for key in keys if key not in known]
        ids += [known[keys[place]] for place in at]
        parts.append(probabilities[at])
    if unknown and not ignore_unknown:
        message = f"{not_here(unknown)} Import the items first, or say `?ignore_unknown=true`."
        raise Invalid(field="key", message=message)
    every = np.array(ids, np.int64)
    refuse_twice(every)
    order = np.argsort(every)
    artifact = f"{folder_of(project.id)}/{uuid.uuid4().hex}.npz"
    with artifacts.writing(artifact) as file:
        np.savez(file, allow_pickle=False, ids=every[order], probabilities=np.concatenate(parts)[order])
    missing = _missing(engine, project.id, every)
    return Stored(artifact, list(project.classes), len(every), len(unknown), missing)


def use(
    session: Session, project: Project, stored: Stored, *, labels: int | None, older: bool
) -> tuple[OwnPredictions, Job]:
    """They are the project's from now on, and a ranking by them is queued.

    labels: how many the model had learned from, where it is told. Raises `PredictionsOlder` where the served head has
    learned from more, unless `older`.
    """
    projects.lock_open(session, project)
    if list(project.classes) != stored.classes:
        raise Invalid(field="classes", message="they were changed meanwhile. Send the predictions again.")
    head = session.get(Head, project.head_id) if project.head_id is not None else None
    if labels is not None and head is not None and labels < head.labels_used and not older:
        raise PredictionsOlder(labels=labels, by_head=head.labels_used)
    delete(session, project, missing_ok=True)
    row = OwnPredictions(
        project_id=project.id,
        artifact=stored.artifact,
        classes=stored.classes,
        items=stored.items,
        labels=labels,
    )
    session.add(row)
    session.flush()
    return row, session.get_one(Job, pipeline.queue_rank(session, project))


def find(session: Session, project: Project) -> OwnPredictions:
    """Raises `NoPredictions`."""
    found = session.get(OwnPredictions, project.id)
    if found is None:
        raise NoPredictions(project=public_id("p", project.id))
    return found


def withdraw(session: Session, project: Project) -> None:
    """The head's probabilities count again, and a ranking by them is queued. Raises `NoPredictions`."""
    projects.lock_open(session, project)
    delete(session, project)
    pipeline.queue_rank(session, project)


def delete(session: Session, project: Project, *, missing_ok: bool = False) -> None:
    row = session.get(OwnPredictions, project.id)
    if row is None:
        if missing_ok:
            return
        raise NoPredictions(project=public_id("p", project.id))
    pipeline.queue_delete_artifacts(session, [row.artifact], later=True)
    session.delete(row)
    session.flush()


def _blocks(path: Path, project: Project) -> list[tuple[list[str], Probabilities]]:
    """Keys and probabilities (n, c) in the order of the project's classes. Raises `Invalid`."""
    try:
        with pq.ParquetFile(path) as table:
            columns = _columns(table.schema_arrow, project)
            found, row = [], 0
            for batch in table.iter_batches(_ROWS, columns=["key", *columns]):
                for name in ("key", *columns):
                    if batch.column(name).null_count:
                        raise Invalid(
                            field=name, message=f"it is null in row {row + 1:,} or one of the next."
                        )
                keys = [composed(key) for key in batch.column("key").to_pylist()]
                values = [batch.column(name).to_numpy(zero_copy_only=False) for name in columns]
                several = project.label_kind == "multi"
                read = np.stack(values, axis=1).astype(np.float64)
                found.append((keys, _checked(read, keys, row, several)))
                row += len(keys)
    except (pa.ArrowException, OSError, ValueError, EOFError) as error:
        reason = " ".join(str(error).split())[:200]
        raise Invalid(field="body", message=f"it cannot be read: {reason}. {_WANTED}") from error
    if not found:
        raise Invalid(field="body", message=f"it has no rows. {_WANTED}")
    return found


def _columns(schema: pa.Schema, project: Project) -> list[str]:
    """The columns of the classes, in the project's order, by any name that a class goes by."""
    if "key" not in schema.names or not is_text(schema.field("key").type):
        there = ", ".join(f"{field.name} ({field.type})" for field in schema) or "none"
        message = f"the file has no such column of strings. Its columns are {there}. {_WANTED}"
        raise Invalid(field="key", message=message)
    names, column_of, unknown = ClassNames(project), dict[str, str](), list[str]()
    for field in schema:
        if field.name == "key":
            continue
        now = names.now(field.name)
        if now is None:
            unknown.append(field.name)
        elif now in column_of:
            raise Invalid(field=field.name, message=f"two columns are of class {now!r}.")
        elif not (pa.types.is_floating(field.type) or pa.types.is_integer(field.type)):
            raise Invalid(field=field.name, message=f"its column holds {field.type} and not probabilities.")
        else:
            column_of[now] = field.name
    if unknown:
        classes = _named("Its classes are", project.classes)
        message = f"the project has no such class. Leave the column out, or add the class. {classes}"
        raise Invalid(field=unknown[0], message=message)
    lacking = [name for name in project.classes if name not in column_of]
    if lacking:
        columns = _named("the file has no column for", lacking)
        message = f"{columns} One of zeros will do for what your model does not know."
        raise Invalid(field=lacking[0], message=message)
    return [column_of[name] for name in project.classes]


def _checked(values: npt.NDArray[np.float64], keys: list[str], before: int, several: bool) -> Probabilities:
    """Probabilities (n, c), of sum 1; several: each for itself, at most 1. Raises `Invalid`."""
    sums = values.sum(axis=1)
    adds_up = (values <= 1).all(axis=1) if several else np.abs(sums - 1) <= _OFF
    wrong = np.flatnonzero(~(np.isfinite(values).all(axis=1) & (values >= 0).all(axis=1) & adds_up))
    if len(wrong):
        row = int(wrong[0])
        why = f"they sum to {sums[row]:.4g}" if np.isfinite(values[row]).all() else "one is no number"
        if several and (values[row] > 1).any():
            why = f"one is {values[row].max():.4g}"
        if (values[row] < 0).any():
            why = f"one is {values[row].min():.4g}"
        how = "a sigmoid of each class" if several else "softmax"
        message = f"row {before + row + 1:,}, of {keys[row]!r}, holds no probabilities: {why}. Send them after {how}."
        raise Invalid(field="body", message=message)
    return np.asarray(values if several else values / sums[:, None], np.float32)


def _named(sentence: str, classes: list[str]) -> str:
    named = ", ".join(repr(name) for name in classes[:_NAMED])
    more = f" and {len(classes) - _NAMED:,} more" if len(classes) > _NAMED else ""
    return f"{sentence} {named}{more}."


def _missing(engine: sa.Engine, project_id: int, ids: npt.NDArray[np.int64]) -> int:
    query = sa.select(Item.id).where(
        Item.project_id == project_id, Item.split == "pool", Item.state == "available"
    )
    with read_session(engine) as session:
        pool = np.fromiter(session.scalars(query), np.int64)
    return int((~np.isin(pool, ids)).sum())

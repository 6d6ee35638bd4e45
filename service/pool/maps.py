"""The map of a project's items: where each lies, and what is known of it, as arrays."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import sqlalchemy as sa
from sqlalchemy.orm import Session

from service.errors import EmptyPool, GoneMeanwhile, Invalid, MapMissing, NoScoreRun, UnknownClass
from service.projects import projects
from service.store import class_sets, item_map, pipeline, similarity_index
from service.store.artifacts import Artifacts
from service.store.ids import public_id
from service.store.item_map import Guesses, Ints, ItemMap
from service.store.tables import Head, Item, Job, Label, Project, ScoreRun

ARMS = ("", "selected", "control", "queued", "gold", "imported")
STATES = ("available", "done", "aside", "test")
_MOST_CORNERS = 200
# Each is read by an index of its own, whatever the pool's size.
_NOT_WAITING = (
    "items.state = 'done' AND items.split = 'pool'",
    "items.state NOT IN ('available', 'done')",
    "items.split = 'test'",
)


@dataclass(frozen=True)
class MapOfItems:
    """Columns aligned by row, one an item, as `docs/map.md` describes them; names: what `class` and `guess` number."""

    score_run: int
    head: int | None  # version of the head whose guesses these are
    names: list[str]
    columns: dict[str, npt.NDArray[Any]]


def read(
    session: Session, project: Project, artifacts: Artifacts, class_name: str | None = None
) -> MapOfItems:
    """class_name: items are told apart by whether they have it; without one by their class, which they have where an
    item has one. Raises `NoScoreRun`, `MapMissing`, `UnknownClass`.
    """
    if class_name is not None and class_name not in project.classes:
        known_ones, number = ", ".join(project.classes), public_id("p", project.id)
        raise UnknownClass(field="class", name=class_name, classes=known_ones, project=number)
    score_run, found = _open(session, project, artifacts)
    known = _known(session, project, found.items, class_name)
    head = session.get(Head, project.head_id) if project.head_id is not None else None
    guesses = Guesses.load(artifacts, str(score_run.artifact), head.version) if head is not None else None
    guessed = np.full(len(found.items), -1, np.int16)
    doubts = np.full(len(found.items), item_map.UNKNOWN, np.uint8)
    if guesses is not None:
        rows = guesses.rows_of(found.items)
        guessed[rows >= 0] = _guessed(project, guesses, class_name)[rows[rows >= 0]]
        doubts[rows >= 0] = guesses.doubts[rows[rows >= 0]]
    columns: dict[str, npt.NDArray[Any]] = {
        "item": found.items.astype(np.float64),
        "x": found.places[:, 0],
        "y": found.places[:, 1],
        "loss": found.losses,
        "guess": guessed,
        "doubt": doubts,
        **known,
    }
    names = project.classes if class_name is None else [f"without {class_name}", class_name]
    return MapOfItems(score_run.id, head.version if head and guesses else None, names, columns)


def _guessed(project: Project, guesses: Guesses, class_name: str | None) -> npt.NDArray[np.int16]:
    """(m,) Numbers of the guesses, as the map has them. Of a class that is gone, or has another name by now, nothing is
    said.
    """
    if class_name is not None:
        return guesses.have(class_name)
    if guesses.classes.ndim == 2:
        return np.full(len(guesses.ids), -1, np.int16)
    number = {name: index for index, name in enumerate(project.classes)}
    now = np.array([*(number.get(name, -1) for name in guesses.names), -1], np.int16)
    return np.asarray(now[guesses.classes])


def inside(session: Session, project: Project, artifacts: Artifacts, outline: Sequence[float]) -> Ints:
    """The items (m,) within an outline x, y, x, y, … on the map, by rising number. Raises `Invalid` for one of less
    than three corners, or more than 200, or of what is no number; `NoScoreRun`, `MapMissing`.
    """
    right = len(outline) % 2 == 0 and 6 <= len(outline) <= 2 * _MOST_CORNERS and np.isfinite(outline).all()
    if not right:
        raise Invalid(field="outline", message=f"give x,y,x,y,… of 3 to {_MOST_CORNERS} corners.")
    _, found = _open(session, project, artifacts)
    return found.inside(np.array(outline, np.float64).reshape(-1, 2))


def draw(session: Session, project: Project, artifacts: Artifacts) -> Job:
    """Queue the map of the served score run. Raises `NoScoreRun`, `EmptyPool`."""
    projects.lock_open(session, project)
    score_run = _served(session, project)
    if not score_run.items:
        raise EmptyPool(project=public_id("p", project.id))
    indexed = similarity_index.is_there(artifacts, str(score_run.artifact))
    if indexed:
        return session.get_one(Job, pipeline.queue_map_items(session, project))
    return session.get_one(Job, pipeline.queue_index_items(session, project, then_map=True))


def _served(session: Session, project: Project) -> ScoreRun:
    if project.score_run_id is None:
        raise NoScoreRun(project=public_id("p", project.id))
    return session.get_one(ScoreRun, project.score_run_id)


def _open(session: Session, project: Project, artifacts: Artifacts) -> tuple[ScoreRun, ItemMap]:
    score_run = _served(session, project)
    if not item_map.is_there(artifacts, str(score_run.artifact)):
        raise MapMissing(project=public_id("p", project.id))
    try:
        return score_run, ItemMap.open(artifacts, str(score_run.artifact))
    except FileNotFoundError:  # another score run is served by now, and this one was removed
        raise GoneMeanwhile from None


def _known(
    session: Session, project: Project, items: Ints, class_name: str | None
) -> dict[str, npt.NDArray[Any]]:
    """State, class, arm and round of the items (m,) that are not just waiting to be labeled."""
    columns: dict[str, npt.NDArray[Any]] = {
        "state": np.zeros(len(items), np.uint8),
        "class": np.full(len(items), -1, np.int16),
        "arm": np.zeros(len(items), np.uint8),
        "round": np.zeros(len(items), np.uint16),
    }
    query = (
        sa.select(Item.id, Item.state, Item.split, Item.class_name, Label.arm, Label.round_number)
        .outerjoin(Label, Label.id == Item.decided_by)
        .where(Item.project_id == project.id)
    )
    rows = [row for which in _NOT_WAITING for row in session.execute(query.where(sa.text(which)))]
    if not rows or not len(items):
        return columns
    numbers = np.array([row.id for row in rows], np.int64)
    at = np.minimum(np.searchsorted(items, numbers), len(items) - 1)
    if class_name is None:
        classes = {name: index for index, name in enumerate(project.classes)}
    else:
        texts = {row.class_name for row in rows if row.class_name is not None}
        classes = {text: int(class_name in class_sets.classes_in(text)) for text in texts}
    for row, place in zip(rows, np.where(items[at] == numbers, at, -1).tolist(), strict=True):
        if place < 0:
            continue
        state = "test" if row.split == "test" else row.state if row.state == "done" else "aside"
        columns["state"][place] = STATES.index(state)
        columns["class"][place] = classes.get(row.class_name, -1)
        columns["arm"][place] = ARMS.index(row.arm or "")
        columns["round"][place] = min(row.round_number or 0, 65_535)
    return columns

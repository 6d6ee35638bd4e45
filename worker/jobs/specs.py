"""The pool of a project as its jobs see it: what a score run left, beside what the database knows."""

from dataclasses import dataclass
from hashlib import blake2b
from typing import Literal

import numpy as np
import sqlalchemy as sa
from sqlalchemy.orm import Session

from service.store.artifacts import Artifacts
from service.store.control_arm import TESTED
from service.store.project_settings import Choice
from service.store.tables import Head, Item, ScoreRun
from worker.arrays import Bools, Floats, Halves, Ints
from worker.heads import heads
from worker.jobs.plug_in_from import chosen
from worker.modalities.image.sketches import Thumbnails

# Constants in the statements, not parameters, so that both databases use the partial indexes.
_WHICH = {
    "done": sa.text("items.state = 'done' AND items.split = 'pool'"),
    "aside": sa.text("items.state NOT IN ('available', 'done')"),  # broken, quarantined, withdrawn
    "broken": sa.text("items.state NOT IN ('available', 'done') AND items.state = 'broken'"),
    "test": sa.text("items.split = 'test'"),
    "tested": TESTED,
}
Which = Literal["done", "aside", "broken", "test", "tested"]


@dataclass(frozen=True)
class ScoredItems:
    """Arrays aligned by row: ids (n,) int64 ascending, losses (n,) float32, embeddings (n, d) float16,
    mapped.
    """

    ids: Ints
    losses: Floats
    embeddings: Halves

    @staticmethod
    def open(artifacts: Artifacts, run: ScoreRun) -> "ScoredItems":
        """All items of a complete score run, of both splits."""
        ids, losses, embeddings = (
            np.load(artifacts.local_path(f"{run.artifact}/{name}.npy"), mmap_mode="r")
            for name in ("ids", "losses", "embeddings")
        )
        return ScoredItems(np.asarray(ids), np.asarray(losses), np.asarray(embeddings))

    def where(self, ids: Ints) -> Ints:
        """(m,) item ids -> rows (m,); -1 for an item that was not scored."""
        if not len(self.ids):
            return np.full(len(ids), -1)
        rows = np.minimum(np.searchsorted(self.ids, ids), len(self.ids) - 1)
        return np.where(self.ids[rows] == ids, rows, -1)

    def embeddings_of(self, ids: Ints) -> Floats:
        """(m, d) float32 of scored items (m,)."""
        return self.embeddings[self.where(ids)].astype(np.float32)

    def among(self, ids: Ints) -> Bools:
        """(n,) whether a row's item is one of `ids` (m,)."""
        found = np.zeros(len(self.ids), np.bool_)
        rows = self.where(ids)
        found[rows[rows >= 0]] = True
        return found

    def keep(self, mask: Bools) -> "ScoredItems":
        """The rows where `mask` (n,) holds; copied only where it leaves any out."""
        if mask.all():
            return self
        return ScoredItems(self.ids[mask], self.losses[mask], self.embeddings[mask])


def open_spreads(artifacts: Artifacts, artifact: str) -> Floats:
    """(n,) float32, aligned with the other arrays of a score run: how far the losses of an item's views differ."""
    return np.asarray(np.load(artifacts.local_path(f"{artifact}/spreads.npy"), mmap_mode="r"))


def open_thumbnails(artifacts: Artifacts, artifact: str) -> Thumbnails:
    """(n, f) uint8, aligned with the other arrays of a score run, mapped."""
    return np.asarray(np.load(artifacts.local_path(f"{artifact}/thumbnails.npy"), mmap_mode="r"))


@dataclass(frozen=True)
class KnownItems:
    """Items whose class is known, by rising id: ids (m,), classes (m,) as indices, and decided_by (m,), the
    label that decided it, 0 where none did.
    """

    ids: Ints
    classes: Ints
    decided_by: Ints

    def __len__(self) -> int:
        return len(self.ids)

    def digest(self) -> str:
        """Equal where the items and their classes are."""
        return blake2b(self.ids.tobytes() + self.classes.tobytes(), digest_size=16).hexdigest()

    def keep(self, mask: Bools) -> "KnownItems":
        return KnownItems(self.ids[mask], self.classes[mask], self.decided_by[mask])


def labeled_items(session: Session, project_id: int, classes: list[str]) -> KnownItems:
    """The pool items that are done."""
    return _known_items(session, project_id, classes, "done")


def test_items(session: Session, project_id: int, classes: list[str]) -> KnownItems:
    """Those of the test split that heads are measured on: not what was withdrawn."""
    return _known_items(session, project_id, classes, "tested")


def _known_items(session: Session, project_id: int, classes: list[str], which: Which) -> KnownItems:
    """Without those whose class the project does not have."""
    index = {name: number for number, name in enumerate(classes)}
    query = sa.select(Item.id, Item.class_name, Item.decided_by)
    found = session.execute(query.where(Item.project_id == project_id, _WHICH[which])).all()
    rows = sorted((number, index[name], label or 0) for number, name, label in found if name in index)
    columns = np.array(rows, np.int64).reshape(-1, 3)
    return KnownItems(columns[:, 0], columns[:, 1], columns[:, 2])


def item_ids(session: Session, project_id: int | None, which: Which) -> Ints:
    query = sa.select(Item.id).where(Item.project_id == project_id, _WHICH[which])
    return np.fromiter(session.scalars(query), np.int64)


def store_probabilities(artifacts: Artifacts, head_artifact: str, ids: Ints, probabilities: Floats) -> None:
    """Beside the head's artifact: probabilities (n, c) of items (n,), where working them out takes their images."""
    with artifacts.writing(_probabilities_of(head_artifact)) as file:
        np.savez(file, allow_pickle=False, ids=ids, probabilities=probabilities)


def probabilities_by(artifacts: Artifacts, head: Head, classes: list[str], scored: ScoredItems) -> Floats:
    """(n, c) of the scored items by a stored head of the same score run, in the order of `classes`; 0 for a class
    that came after the head.
    """
    found = _probabilities_by(artifacts, head, scored)
    if head.classes == classes:
        return found
    aligned = np.zeros((len(found), len(classes)), np.float32)
    for column, name in enumerate(classes):
        if name in head.classes:
            aligned[:, column] = found[:, head.classes.index(name)]
    return aligned


def _probabilities_by(artifacts: Artifacts, head: Head, scored: ScoredItems) -> Floats:
    stored = _probabilities_of(head.artifact)
    if artifacts.exists(stored):
        with np.load(artifacts.local_path(stored), allow_pickle=False) as arrays:
            rows = np.searchsorted(arrays["ids"], scored.ids)
            return np.asarray(arrays["probabilities"][rows])
    with np.load(artifacts.local_path(head.artifact), allow_pickle=False) as arrays:
        fitted = chosen(heads(), Choice.model_validate(head.kind), "head").load(dict(arrays))
    return fitted.probabilities(scored.embeddings)


def _probabilities_of(head_artifact: str) -> str:
    return f"{head_artifact.removesuffix('.npz')}-probabilities.npz"

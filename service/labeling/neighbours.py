"""Labeled items like one that somebody holds, to compare it with."""

from collections.abc import Sequence

import sqlalchemy as sa
from sqlalchemy.orm import Session

from service.errors import BoundToAnnotator, NoHints, NotFound
from service.pool import items, similar
from service.pool.similar import SimilarItem
from service.store.artifacts import Artifacts
from service.store.tables import Batch, Project, Reservation

_MOST = 3


def of_held(
    session: Session, artifacts: Artifacts, batch: Batch, public: str, *, annotator: str | None
) -> tuple[Project, Sequence[SimilarItem]]:
    """The project, and the three labeled items most like an item that the batch still holds; annotator: whom the
    caller is bound to. Raises `NotFound`, `BoundToAnnotator`, `NoHints`, and what `similar.find` raises.
    """
    if annotator not in (None, batch.annotator):
        raise BoundToAnnotator(field="batch", bound=annotator, name=batch.annotator)
    project = session.get_one(Project, batch.project_id)
    item = items.find(session, project, public)
    held = sa.select(Reservation.arm).where(
        Reservation.batch_id == batch.id, Reservation.item_id == item.id, Reservation.state == "open"
    )
    arm = session.scalar(held)
    if arm is None:
        raise NotFound(what="item", id=public)
    if arm in ("control", "gold"):
        raise NoHints(id=public)
    found = similar.find(session, project, artifacts, [item], state="done", split="pool", limit=_MOST)
    return project, found

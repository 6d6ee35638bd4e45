"""Open items that have labels enough, as what decides them has changed."""

import sqlalchemy as sa
from sqlalchemy.orm import Session

from service.labeling import batches
from service.labeling.picks import AVAILABLE, CURRENT
from service.models import training
from service.pool import queues
from service.store import item_decisions
from service.store.tables import Item, Label, Project

_CHUNK = 1_000  # items and their labels in memory


def settle_open(session: Session, project: Project, overlap: int) -> None:
    """Decide what has labels enough as if the last of them had just come: fewer annotators need agree now, or labels
    agree that did not. overlap: annotators who must agree.
    """
    votes = sa.func.count()
    enough = (
        sa.select(Item.id)
        .join(Label, Label.item_id == Item.id)
        .where(Label.project_id == project.id, CURRENT, Label.used, Label.class_name.is_not(None), AVAILABLE)
        .group_by(Item.id)
        .having(votes >= overlap + Item.asked_again)
    )
    numbers = session.scalars(enough).all()
    any_done = False
    for first in range(0, len(numbers), _CHUNK):
        chunk = session.scalars(sa.select(Item).where(Item.id.in_(numbers[first : first + _CHUNK]))).all()
        for found in item_decisions.load(session, chunk).values():
            found.settle(overlap)
        session.flush()  # written, they need not be kept in memory
        done = [item.id for item in chunk if item.state != "available"]
        batches.release_items(session, project, done)
        queues.clear(session, project, done, by=())
        any_done = any_done or bool(done)
    if any_done and project.state != "archived":
        training.retrain_if_due(session, project)

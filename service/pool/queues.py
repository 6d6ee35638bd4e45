"""Queues: items that are served before the ranking, to one annotator or to whoever asks next.

An item leaves its queue when it is done or out of the pool, or when the annotator it was kept for has labeled it.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.orm import Session

from service.errors import ItemNotServable, LabeledAlready
from service.labeling import picks
from service.models import training
from service.pool import items
from service.projects import projects
from service.store import item_decisions
from service.store.item_decisions import ItemLabels
from service.store.project_settings import ProjectSettings
from service.store.tables import Item, Label, Project, QueuedItem


@dataclass(frozen=True)
class Queued:
    added: int  # now in the queue, in the order given
    reopened: int  # … of them items that were done


def add(session: Session, project: Project, wanted: Sequence[str], annotator: str | None) -> Queued:
    """Put items, by public id, at the end of a queue; one that stands in another leaves that.

    An item that is done is opened again, until one more annotator agrees; one that labels which came too late confirm
    stays done. Raises `UnknownItem`, `ItemNotServable`, `LabeledAlready`.
    """
    projects.lock_open(session, project)
    found = _servable(session, project, wanted, annotator)
    overlap = ProjectSettings.model_validate(project.settings).overlap
    reopened = 0
    for labels in found:
        if labels.item.state == "done":
            votes_before = len(labels.votes())
            reopened += labels.ask_again(overlap)
            project.labels_used += len(labels.votes()) - votes_before
    open_items = [labels.item.id for labels in found if labels.item.state == "available"]
    session.execute(sa.delete(QueuedItem).where(QueuedItem.item_id.in_([labels.item.id for labels in found])))
    last = session.scalar(
        sa.select(sa.func.max(QueuedItem.number)).where(QueuedItem.project_id == project.id)
    )
    rows = [
        {"item_id": item_id, "project_id": project.id, "number": number, "annotator": annotator}
        for number, item_id in enumerate(open_items, start=(last or 0) + 1)
    ]
    if rows:
        session.execute(sa.insert(QueuedItem), rows)
    picks.open_again(session, project, open_items)
    if reopened:
        training.retrain_if_due(session, project)
    return Queued(len(rows), reopened)


def _servable(
    session: Session, project: Project, wanted: Sequence[str], annotator: str | None
) -> list[ItemLabels]:
    """In the order given; what cannot be labeled, or not by that annotator, is refused by its place in the call."""
    found = items.find_each(session, project, wanted)
    for index, item in enumerate(found):
        if item.split != "pool" or item.gold or item.state not in ("available", "done"):
            raise ItemNotServable(field=f"items[{index}]", id=wanted[index], state=_state(item))
    by_number = item_decisions.load(session, dict.fromkeys(found))
    for index, item in enumerate(found):
        if annotator is not None and any(label.current for label in by_number[item.id].of(annotator)):
            raise LabeledAlready(field=f"items[{index}]", id=wanted[index], annotator=annotator)
    return list(by_number.values())


def _state(item: Item) -> str:
    if item.split == "test":
        return "of the test split"
    return "gold" if item.gold else item.state


def clear(session: Session, project: Project, gone: Collection[int], by: Sequence[Label]) -> None:
    """Take out items that left the pool, and those that the annotator they were kept for labeled just now."""
    done_by = [(label.item_id, label.annotator) for label in by if label.current]
    if not gone and not done_by:
        return
    labeled = sa.tuple_(QueuedItem.item_id, QueuedItem.annotator).in_(done_by)
    session.execute(
        sa.delete(QueuedItem)
        .where(QueuedItem.project_id == project.id, sa.or_(QueuedItem.item_id.in_(gone), labeled))
        .execution_options(synchronize_session=False)
    )


def remove(session: Session, project: Project, annotator: str | None) -> int:
    """Empty the queue of an annotator, or that of everybody; the items stay in the pool."""
    projects.lock_open(session, project)
    mine = QueuedItem.annotator.is_(None) if annotator is None else QueuedItem.annotator == annotator
    removed = session.execute(
        sa.delete(QueuedItem).where(QueuedItem.project_id == project.id, mine).returning(QueuedItem.item_id)
    )
    return len(removed.all())


def page(
    session: Session, project: Project, annotator: str | None, after: int, limit: int
) -> list[tuple[QueuedItem, str]]:
    """Queued items with their keys, in the order they are served; all queues, or that of `annotator`."""
    query = (
        sa.select(QueuedItem, Item.key)
        .join(Item, Item.id == QueuedItem.item_id)
        .where(QueuedItem.project_id == project.id, QueuedItem.number > after)
        .order_by(QueuedItem.number)
        .limit(limit)
    )
    if annotator is not None:
        query = query.where(QueuedItem.annotator == annotator)
    return [(queued, key) for queued, key in session.execute(query)]

"""Queues: items that are served before the ranking, to one annotator or to whoever asks next.

An item leaves its queue when it is done or out of the pool, or when the annotator it was kept for has labeled it.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.orm import Session

from service import decisions, picks, projects, training
from service.errors import ItemNotServable, UnknownItem
from service.store.ids import row_number
from service.store.project_settings import ProjectSettings
from service.store.tables import Item, Label, Project, QueuedItem


@dataclass(frozen=True)
class Queued:
    added: int  # now in the queue, in the order given
    reopened: int  # … of them items that were done


def add(session: Session, project: Project, items: Sequence[str], annotator: str | None) -> Queued:
    """Put items, by public id, at the end of a queue; one that stands in another leaves that.

    An item that is done is opened again, until one more annotator agrees; one that labels which came too late confirm
    stays done. Raises `UnknownItem`, `ItemNotServable`.
    """
    projects.lock_open(session, project)
    found = decisions.load(session, _items(session, project, items))
    overlap = ProjectSettings.model_validate(project.settings).overlap
    reopened = 0
    for labels in found.values():
        if labels.item.state == "done":
            votes_before = len(labels.votes())
            reopened += labels.ask_again(overlap)
            project.labels_used += len(labels.votes()) - votes_before
    wanted = [item_id for item_id, labels in found.items() if labels.item.state == "available"]
    session.execute(sa.delete(QueuedItem).where(QueuedItem.item_id.in_(found)))
    last = session.scalar(
        sa.select(sa.func.max(QueuedItem.number)).where(QueuedItem.project_id == project.id)
    )
    rows = [
        {"item_id": item_id, "project_id": project.id, "number": number, "annotator": annotator}
        for number, item_id in enumerate(wanted, start=(last or 0) + 1)
    ]
    if rows:
        session.execute(sa.insert(QueuedItem), rows)
    picks.open_again(session, project, wanted)
    if reopened:
        training.retrain_if_due(session, project)
    return Queued(len(rows), reopened)


def _items(session: Session, project: Project, items: Sequence[str]) -> list[Item]:
    """In the order given; what cannot be labeled is refused by its place in the call."""
    numbers = {row_number("i", public): index for index, public in enumerate(items)}
    query = sa.select(Item).where(Item.project_id == project.id, Item.id.in_(numbers))
    found = {item.id: item for item in session.scalars(query)}
    for number, index in numbers.items():
        item = found.get(number)
        if item is None:
            raise UnknownItem(field=f"items[{index}]", id=items[index])
        if item.split != "pool" or item.gold or item.state not in ("available", "done"):
            raise ItemNotServable(field=f"items[{index}]", id=items[index], state=_state(item))
    return [found[number] for number in numbers]


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

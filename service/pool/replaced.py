"""Labels of items whose keys have other bytes now, given to what has the keys, where an operator says they hold."""

from collections.abc import Sequence
from datetime import datetime
from typing import cast

import sqlalchemy as sa
from sqlalchemy.orm import Session

from service.errors import ItemNotReplaced
from service.labeling import labels
from service.labeling.labels import NewLabel, Skip
from service.pool import items
from service.projects import projects
from service.store import item_decisions
from service.store.ids import public_id
from service.store.tables import Item, Label, Project


def keep_labels(session: Session, project: Project, wanted: Sequence[str], now: datetime) -> int:
    """The current labels of `changed` items, by public id, become labels of their successors, too, as imported ones;
    how many successors got any. Raises `UnknownItem`, `ItemNotReplaced`.

    A label counts once against the budget: for the successor.
    """
    projects.lock_open(session, project)
    successors: dict[int, int] = {}  # by the item that was replaced
    found = items.find_each(session, project, wanted)
    for index, item in enumerate(found):
        successor = _successor(session, item) if item.state == "changed" else None
        if successor is None:
            raise ItemNotReplaced(field=f"items[{index}]", id=wanted[index])
        successors[item.id] = successor
    labeled = sa.select(Label.item_id, Label.annotator).where(
        Label.item_id.in_(successors.values()), Label.current
    )
    taken = {(number, annotator) for number, annotator in session.execute(labeled)}
    entries: list[NewLabel] = []
    given: set[int] = set()
    for before in item_decisions.load(session, dict.fromkeys(found), annotations=True).values():
        successor = successors[before.item.id]
        for label in before.labels:
            if not label.current or (successor, label.annotator) in taken:
                continue
            if label.used and label.class_name is not None:
                project.labels_used -= 1
            label.used = False
            taken.add((successor, label.annotator))
            given.add(successor)
            entries.append(
                NewLabel(
                    item=public_id("i", successor),
                    annotator=label.annotator,
                    class_name=label.class_name,
                    skip=cast(Skip | None, label.skip),
                    duration_ms=label.duration_ms,
                    annotation=label.annotation,
                )
            )
    if entries:
        session.flush()
        labels.store(session, project, entries, now)
    return len(given)


def _successor(session: Session, item: Item) -> int | None:
    """The item that has its key now: the newest in a row of items that replaced each other."""
    number, seen = item.id, {item.id}
    while True:
        newer = session.execute(
            sa.select(Item.id, Item.state).where(Item.replaces_id == number).order_by(Item.id.desc()).limit(1)
        ).one_or_none()
        if newer is None or newer.id in seen:
            return None
        if newer.state != "changed":
            return int(newer.id)
        seen.add(newer.id)
        number = newer.id

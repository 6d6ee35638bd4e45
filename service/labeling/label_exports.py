"""Export of labels: every label, and the class that an unlabeled duplicate would get."""

from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session, aliased, undefer

from service.store.tables import Duplicate, Item, Label, Project


@dataclass(frozen=True)
class ExportedLabel:
    """A label as it is exported, with the key of its item and the hash of the bytes that it was given for; aside: the
    key has other bytes now, and the label is none of the current ones.
    """

    label: Label
    key: str
    content_hash: str | None
    aside: bool


def newest(session: Session, project_id: int) -> int:
    """The number of the project's last label, 0 without any."""
    return session.scalar(sa.select(sa.func.max(Label.id)).where(Label.project_id == project_id)) or 0


def page(
    session: Session, project_id: int, *, history: bool, last: int, after: int, limit: int
) -> list[ExportedLabel]:
    """In the order they came, after label number `after`; `history`: with replaced and stale revisions.

    All is as it was when label number `last` had come, so that what is revised between two pages is neither missed
    nor told twice.
    """
    query = (
        sa.select(Label, Item.key, Item.content_hash, Item.state == "changed")
        .join(Item, Item.id == Label.item_id)
        .where(Label.project_id == project_id, Label.id > after, Label.id <= last)
        .order_by(Label.id)
        .limit(limit)
        .options(undefer(Label.annotation))
    )
    if not history:
        later = aliased(Label)
        replaced = sa.exists().where(
            later.item_id == Label.item_id,
            later.annotator == Label.annotator,
            later.revision > Label.revision,
            later.id <= last,
        )
        query = query.where(~replaced, sa.or_(Label.class_name.is_not(None), Label.skip.is_not(None)))
        query = query.where(Item.state != "changed")
    return [ExportedLabel(*row) for row in session.execute(query)]


def decided(
    session: Session, project_id: int, *, after: int, limit: int
) -> list[tuple[Item, dict[str, Any] | list[Any] | None]]:
    """Items that labels decided, after item number `after`, each with what the label carries that decided it."""
    query = (
        sa.select(Item, Label.annotation)
        .outerjoin(Label, Label.id == Item.decided_by)
        .where(Item.project_id == project_id, Item.state == "done", Item.id > after)
        .where(Item.class_name.is_not(None), Item.split == "pool")
        .order_by(Item.id)
        .limit(limit)
    )
    return [(item, annotation) for item, annotation in session.execute(query)]


@dataclass(frozen=True)
class Suggestion:
    """An unlabeled duplicate, and the class of the item that stands for it."""

    item_id: int
    key: str
    duplicate_of_id: int
    class_name: str


def suggestions(session: Session, project: Project, *, after: int, limit: int) -> list[Suggestion]:
    """By item number, after item `after`. Where the representative has no class, that of another duplicate of it
    does.
    """
    representative, twin, pair = aliased(Item), aliased(Item), aliased(Duplicate)
    # Once for each group: asked for each duplicate, a pool of a thousand blank frames would look at a million pairs.
    of_twins = (
        sa.select(pair.duplicate_of_id, sa.func.min(twin.class_name).label("class_name"))
        .join(twin, twin.id == pair.item_id)
        .where(pair.score_run_id == project.score_run_id, twin.state == "done")
        .group_by(pair.duplicate_of_id)
        .subquery()
    )
    class_name = sa.func.coalesce(representative.class_name, of_twins.c.class_name)
    query = (
        sa.select(Item.id, Item.key, Duplicate.duplicate_of_id, class_name)
        .join(Duplicate, Duplicate.item_id == Item.id)
        .join(representative, representative.id == Duplicate.duplicate_of_id)
        .outerjoin(of_twins, of_twins.c.duplicate_of_id == Duplicate.duplicate_of_id)
        .where(Duplicate.score_run_id == project.score_run_id, Item.id > after)
        .where(Item.state == "available", class_name.is_not(None))
        .order_by(Item.id)
        .limit(limit)
    )
    return [Suggestion(*row) for row in session.execute(query)]

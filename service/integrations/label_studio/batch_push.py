"""Batch push: a small project of the tool is kept filled with just the next items, in the order of the ranking.

They are reserved as for any annotator, one that is called `HOLDER`, so that nobody else gets them meanwhile, and
control items come in their share. An open reservation whose item is no task yet is one to be made: what is planned is
stored before the tool hears of it. A task says in its data which item it is, so one that was made without our hearing
of it is found, and not made again.
"""

import base64
import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session, aliased

from service.access.keys import derived
from service.content.contract import Limits
from service.content.reader import ItemBytes
from service.errors import NotFound
from service.integrations.label_studio.client import Task
from service.integrations.label_studio.labeling_config import LabelingConfig
from service.integrations.label_studio.pre_annotations import PreAnnotations
from service.labeling import batches
from service.pool import previews
from service.store.ids import public_id, row_number
from service.store.tables import (
    Item,
    Project,
    RankedItem,
    Reservation,
    ToolAnnotation,
    ToolConnection,
    ToolTask,
    utc_now,
)

HOLDER = "label-studio"
SAMPLING = "Sequential sampling"  # tasks are made in their order
MODEL_VERSION = "shortlist"
CALL_BYTES = 8 * 2**20  # of tasks
_ITEM = "shortlist_item"
_LARGEST = 4 * 2**20  # bytes of a picture; a larger one is shown smaller
_SMALLER = 2_048  # pixels


@dataclass(frozen=True)
class Entry:
    """An item that is to be a task; predicted: as its ranking keeps it, by the head that this was made with."""

    item: Item
    predicted: str | None
    probability: float | None


def planned(session: Session, project: Project, connection: ToolConnection) -> list[Entry]:
    """The entries to be made now, in order. Where fewer open tasks than `low_water`, or than two for each who
    annotates, are left, as many are reserved that there are twice as many. The project is locked.
    """
    now = utc_now()
    batches.expire(session, project, now)
    batches.hold_on(session, project, HOLDER, now)
    connection.pushed_ranking_id = project.ranking_id
    people = sa.select(sa.func.count(ToolAnnotation.annotator.distinct()))
    annotators = session.scalar(people.where(ToolAnnotation.connection_id == connection.id)) or 0
    wanted = max(connection.low_water, 2 * annotators)
    there = open_tasks(session, connection.id) + len(to_be_made(session, project, connection, now))
    if there < wanted:
        batches.next_batch(
            session,
            project,
            annotator=HOLDER,
            size=2 * wanted - there,
            new=True,
            now=now,
            connection=connection.id,
        )
    return to_be_made(session, project, connection, now)


def to_be_made(session: Session, project: Project, connection: ToolConnection, now: datetime) -> list[Entry]:
    made = sa.exists().where(
        ToolTask.item_id == Item.id, ToolTask.connection_id == connection.id, ToolTask.gone.is_(False)
    )
    query = (
        sa.select(Item, RankedItem.predicted_class, RankedItem.predicted_probability)
        .join(Reservation, Reservation.item_id == Item.id)
        .outerjoin(
            RankedItem,
            (RankedItem.ranking_id == Reservation.ranking_id) & (RankedItem.rank == Reservation.rank),
        )
        .where(Reservation.project_id == project.id, Reservation.annotator == HOLDER)
        .where(Reservation.state == "open", Reservation.expires_at > now, Item.state == "available", ~made)
        .order_by(Reservation.batch_id, Reservation.position)
    )
    return [Entry(*row) for row in session.execute(query)]


def open_tasks(session: Session, connection_id: int) -> int:
    """Tasks that nobody has annotated or skipped, as far as is known."""
    query = sa.select(sa.func.count()).select_from(ToolTask).join(Item, Item.id == ToolTask.item_id)
    return session.scalar(query.where(*_untouched(connection_id), Item.state == "available")) or 0


def surplus(session: Session, connection_id: int) -> list[int]:
    """Tasks made here that are no work any more: the item was labeled elsewhere, or left the pool; or they were made
    twice, as the tool stored them long after it was asked.
    """
    earlier = aliased(ToolTask)
    twice = sa.exists().where(
        earlier.connection_id == connection_id,
        earlier.item_id == ToolTask.item_id,
        earlier.task_id < ToolTask.task_id,
        earlier.gone.is_(False),
    )
    query = sa.select(ToolTask.task_id).join(Item, Item.id == ToolTask.item_id)
    found = query.where(*_untouched(connection_id), ToolTask.pushed, sa.or_(Item.state != "available", twice))
    return list(session.scalars(found.order_by(ToolTask.task_id)))


def _untouched(connection_id: int) -> tuple[sa.ColumnElement[bool], ...]:
    annotated = sa.exists().where(
        ToolAnnotation.connection_id == connection_id, ToolAnnotation.task_id == ToolTask.task_id
    )
    return ToolTask.connection_id == connection_id, ToolTask.gone.is_(False), ~annotated


def note_gone(session: Session, connection: ToolConnection, numbers: Sequence[int]) -> None:
    mine = sa.update(ToolTask).where(ToolTask.connection_id == connection.id)
    session.execute(mine.where(ToolTask.task_id.in_(numbers)).values(gone=True))


def note_arms(session: Session, project: Project, connection: ToolConnection, tasks: Sequence[int]) -> None:
    """Why the tasks are there, which labels then say."""
    query = sa.select(ToolTask).where(
        ToolTask.connection_id == connection.id, ToolTask.task_id.in_(tasks), ToolTask.pushed
    )
    rows = session.scalars(query.where(ToolTask.arm.is_(None))).all()
    held = sa.select(Reservation.item_id, Reservation.arm, Reservation.ranking_id).where(
        Reservation.project_id == project.id,
        Reservation.annotator == HOLDER,
        Reservation.item_id.in_([row.item_id for row in rows]),
    )
    found = {
        number: (arm, ranking) for number, arm, ranking in session.execute(held.order_by(Reservation.id))
    }
    for row in rows:
        if row.item_id in found:
            row.arm, row.ranking_id = found[row.item_id]


def task_of(
    entry: Entry, shown: str, project: Project, config: LabelingConfig, secret: bytes, pre_annotate: bool
) -> dict[str, Any]:
    """As the tool's import takes it."""
    said = f"{public_id('i', entry.item.id)}.{_mark(secret, project.id, entry.item.id)}"
    task: dict[str, Any] = {"data": {"key": entry.item.key, config.data_key: shown, _ITEM: said}}
    if pre_annotate and entry.predicted is not None:
        result = PreAnnotations(project, config).result_of(entry.predicted)
        if result:
            task["predictions"] = [
                {"result": result, "score": entry.probability, "model_version": MODEL_VERSION}
            ]
    return task


def shown(
    session: Session,
    project: Project,
    item: Item,
    config: LabelingConfig,
    item_bytes: ItemBytes,
    limits: Limits,
) -> str:
    """The text that the task holds, or the item itself as a `data:` URI, so that whoever opens the tool sees it,
    whether they reach this service or not. Raises `NoPreview`.
    """
    content, settings = previews.content_of(project.modality), previews.settings_for(session, project, item)
    found = previews.preview(item_bytes, item, content, limits, None, settings)
    if config.kind == "text" and not config.text_at_url:
        return found.data.decode(errors="replace")
    if config.kind == "image" and len(found.data) > _LARGEST:
        found = previews.preview(item_bytes, item, content, limits, _SMALLER, settings)
    return f"data:{found.media_type};base64,{base64.b64encode(found.data).decode()}"


def made_for(session: Session, secret: bytes, project_id: int, tasks: Sequence[Task]) -> dict[int, int]:
    """The items that tasks were made for, by task; without those that people brought, or that are of other projects."""
    found = {task.id: number for task in tasks if (number := _item_of(secret, project_id, task)) is not None}
    query = sa.select(Item.id).where(Item.project_id == project_id, Item.id.in_(found.values()))
    there = set(session.scalars(query)) if found else set()
    return {task: number for task, number in found.items() if number in there}


def _item_of(secret: bytes, project_id: int, task: Task) -> int | None:
    said = task.data.get(_ITEM)
    name, _, mark = said.partition(".") if isinstance(said, str) else ("", "", "")
    try:
        number = row_number("i", name)
    except NotFound:
        return None
    return number if hmac.compare_digest(mark.encode(), _mark(secret, project_id, number).encode()) else None


def _mark(secret: bytes, project_id: int, item_id: int) -> str:
    return derived(secret, f"label studio task {project_id} {item_id}")[:8].hex()

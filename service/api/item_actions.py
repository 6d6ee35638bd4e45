"""An admin's actions on chosen items: queue them, withdraw and restore them, make them gold."""

from datetime import datetime
from typing import Annotated, Self

from fastapi import APIRouter, Query
from pydantic import Field, model_validator

from service.http.dependencies import Admin, Reader, ReadSession, WriteSession
from service.http.etag import ETagRoute
from service.http.schemas import (
    CLASSES,
    Answer,
    Body,
    Cursor,
    Limit,
    Name,
    Page,
    Text,
    decode_cursor,
    with_example,
)
from service.pool import gold, queues, replaced, withdrawals
from service.projects import projects
from service.store.ids import public_id
from service.store.tables import QueuedItem, utc_now

router = APIRouter(prefix="/projects/{project_id}", tags=["items"], route_class=ETagRoute)

ItemId = Annotated[Text, Field(max_length=100)]


class ItemIds(Body):
    model_config = with_example({"items": ["i_2k", "i_2m"]})

    items: list[ItemId] = Field(min_length=1, max_length=1000)


class ToQueue(ItemIds):
    model_config = with_example({"items": ["i_2k", "i_2m"], "annotator": "ann"})

    annotator: Name | None = Field(None, description="kept for them; without one, for whoever asks next")


class QueuedAnswer(Answer):
    model_config = with_example({"added": 2, "reopened": 1})

    added: int
    reopened: int = Field(description="of them, items that were done: one more annotator has to agree")


class QueuedItemAnswer(Answer):
    model_config = with_example(
        {"item": "i_2k", "key": "shirts/0012.png", "annotator": "ann", "created_at": "2026-01-01T12:00:00Z"}
    )

    item: str
    key: str
    annotator: str | None
    created_at: datetime

    @classmethod
    def of(cls, row: tuple[QueuedItem, str]) -> Self:
        queued, key = row
        return cls(
            item=public_id("i", queued.item_id),
            key=key,
            annotator=queued.annotator,
            created_at=queued.created_at,
        )


class Changed(Answer):
    model_config = with_example({"changed": 2})

    changed: int = Field(description="items; the others were so already")


class GoldItem(Body):
    item: ItemId
    class_name: Text | None = Field(None, alias="class", max_length=200)
    classes: list[Text] | None = Field(None, max_length=projects.MOST_CLASSES, description=CLASSES)

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.class_name is None) == (self.classes is None):
            raise ValueError("send `class`; `classes` where an item has several")
        return self


class GoldItems(Body):
    model_config = with_example({"items": [{"item": "i_2k", "class": "coat"}]})

    items: list[GoldItem] = Field(min_length=1, max_length=1000)


OfAnnotator = Annotated[Name | None, Query(description="the queue kept for them")]


@router.post("/queue")
def queue_items(project_id: str, body: ToQueue, session: WriteSession, caller: Admin) -> QueuedAnswer:
    """Have items labeled before those of the ranking, by one annotator or by whoever asks next.

    Items that are done are asked again: somebody who has not labeled them yet gets them, until one more agrees.
    """
    project = projects.find(session, project_id, caller.project_id)
    queued = queues.add(session, project, body.items, body.annotator)
    return QueuedAnswer(added=queued.added, reopened=queued.reopened)


@router.get("/queue")
def list_queue(
    project_id: str,
    session: ReadSession,
    caller: Reader,
    annotator: OfAnnotator = None,
    cursor: Cursor = None,
    limit: Limit = 100,
) -> Page[QueuedItemAnswer]:
    """The queued items, in the order they are served; all queues, or that of one annotator."""
    project = projects.find(session, project_id, caller.project_id)
    (after,) = decode_cursor(cursor, int) or (0,)
    found = queues.page(session, project, annotator, after, limit)
    return Page.of(found, limit, QueuedItemAnswer.of, lambda last: (last[0].number,))


@router.delete("/queue")
def empty_queue(
    project_id: str, session: WriteSession, caller: Admin, annotator: OfAnnotator = None
) -> Changed:
    """Empty the queue of an annotator, or that of everybody. The items stay in the pool."""
    project = projects.find(session, project_id, caller.project_id)
    return Changed(changed=queues.remove(session, project, annotator))


@router.post("/items/withdraw")
def withdraw_items(project_id: str, body: ItemIds, session: WriteSession, caller: Admin) -> Changed:
    """Take items out: nobody is asked for them, no head trains or is measured on them. Their labels stay stored."""
    project = projects.find(session, project_id, caller.project_id)
    return Changed(changed=withdrawals.withdraw(session, project, body.items))


@router.post("/items/restore")
def restore_items(project_id: str, body: ItemIds, session: WriteSession, caller: Admin) -> Changed:
    """Put back items that were withdrawn, that annotators rejected as broken (these rejects count no more), or that
    were quarantined: these are read and scored anew."""
    project = projects.find(session, project_id, caller.project_id)
    return Changed(changed=withdrawals.restore(session, project, body.items))


@router.post("/items/keep-labels")
def keep_labels(project_id: str, body: ItemIds, session: WriteSession, caller: Admin) -> Changed:
    """Say that the labels of `changed` items still hold for what has their keys now: they are given to those items, but
    for annotators who have labeled them already. `GET …/items?state=changed` lists whose labels were set aside."""
    project = projects.find(session, project_id, caller.project_id)
    return Changed(changed=replaced.keep_labels(session, project, body.items, utc_now()))


@router.post("/gold")
def mark_gold(project_id: str, body: GoldItems, session: WriteSession, caller: Admin) -> Changed:
    """Say for certain what items are. They are done, and `gold_fraction` of each batch are gold items that the
    annotator has not seen: see how well they do in `/annotators`. They cost no budget.

    `GET …/items?gold=true` lists them.
    """
    project = projects.find(session, project_id, caller.project_id)
    entries = [(entry.item, entry.class_name or entry.classes or []) for entry in body.items]
    return Changed(changed=gold.mark(session, project, entries))


@router.post("/gold/unmark")
def unmark_gold(project_id: str, body: ItemIds, session: WriteSession, caller: Admin) -> Changed:
    """Items that are gold no more: they are what their labels say, or open again."""
    project = projects.find(session, project_id, caller.project_id)
    return Changed(changed=gold.unmark(session, project, body.items))

"""Items: registered directly, listed, found."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.orm import Session, undefer

from service.content.contract import Facts
from service.content.reader import ItemBytes
from service.content.sources import content_of_most
from service.errors import Invalid, NoScoreRun, NotFound, SourceNotAllowed, UnknownItem
from service.store import modalities
from service.store.ids import public_id, row_number
from service.store.project_settings import ProjectSettings
from service.store.registration import ItemRow, insert_items
from service.store.shuffle import shuffle_position
from service.store.tables import BarredItem, Duplicate, Item, Label, Project, Score

Split = Literal["pool", "test"]
State = Literal["available", "done", "broken", "quarantined", "withdrawn", "changed", "missing"]
Sort = Literal["key", "-key", "pretext_loss", "-pretext_loss"]
Refusal = Literal[
    "malformed", "uri_not_allowed", "unknown_class", "class_missing", "class_not_taken", "text_not_taken",
    "text_too_large", "text_unusable",
]  # fmt: skip


@dataclass(frozen=True)
class NewItem:
    """`class_name` goes with the test split; a pool item's class is what annotators say.

    uri    empty for an item that comes inline, until its text is kept
    text   of such an item; facts and content_hash then, too
    """

    key: str
    uri: str
    split: Split = "pool"
    class_name: str | None = None
    meta: dict[str, Any] | None = None
    text: str | None = None
    facts: Facts | None = None
    content_hash: str | None = None


@dataclass(frozen=True)
class ListedItem:
    """An item with what the project's score run and ranking say of it, if there are any."""

    item: Item
    pretext_loss: float | None
    percentile: float | None
    spread: float | None
    duplicate_of_id: int | None  # the representative of its group
    broken_probability: float | None  # why the ranking barred it


def refusal(project: Project, item_bytes: ItemBytes, entry: NewItem) -> Refusal | None:
    """Why the item cannot be registered, if so."""
    if entry.text is None:
        try:
            item_bytes.check_root(entry.uri)
        except SourceNotAllowed:
            return "uri_not_allowed"
    if entry.split == "pool":
        return None if entry.class_name is None else "class_not_taken"
    if entry.class_name is None:
        return "class_missing"
    return None if entry.class_name in project.classes else "unknown_class"


def register(session: Session, project: Project, entries: Sequence[NewItem]) -> int:
    """Insert what is new by key; returns how many were. What is known stays as it is. The first items of a project
    tell its modality; raises `TaskForAnotherModality` where its pretext task does not fit, `Invalid` for texts where
    others have told another one meanwhile.
    """
    if project.modality is None and entries:
        inline = any(entry.text is not None for entry in entries)
        most = None if inline else content_of_most(entry.uri for entry in entries)
        wanted = "text" if inline else most.name if most else "image"
        if modalities.tell(session, project.id, wanted) != wanted and inline:
            raise Invalid(
                field="text", message=f"this project's items are {project.modality}s, given by `uri`."
            )
    seed = ProjectSettings.model_validate(project.settings).seed
    rows = [
        ItemRow(
            entry.key,
            entry.uri,
            entry.split,
            shuffle_position(seed, entry.key),
            entry.class_name,
            entry.meta,
            entry.content_hash,
            entry.facts,
        )
        for entry in entries
    ]
    return insert_items(session, project.id, rows)


def find(session: Session, project: Project, public: str) -> Item:
    item = session.get(Item, row_number("i", public))
    if item is None or item.project_id != project.id:
        raise NotFound(what="item", id=public)
    return item


def find_each(session: Session, project: Project, items: Sequence[str], field: str = "items") -> list[Item]:
    """One for each public id. Raises `UnknownItem`, which says by its place in the call's `field` which one is not
    there.
    """
    numbers = [_number(public, f"{field}[{index}]") for index, public in enumerate(items)]
    query = sa.select(Item).where(Item.project_id == project.id, Item.id.in_(numbers))
    found = {item.id: item for item in session.scalars(query)}
    for index, number in enumerate(numbers):
        if number not in found:
            raise UnknownItem(field=f"{field}[{index}]", id=items[index])
    return [found[number] for number in numbers]


def _number(public: str, field: str) -> int:
    try:
        return row_number("i", public)
    except NotFound:
        raise UnknownItem(field=field, id=public) from None


def listed(session: Session, project: Project, public: str) -> ListedItem:
    item = find(session, project, public)
    return ListedItem(*session.execute(_listed(project).where(Item.id == item.id)).one())


def listed_each(session: Session, project: Project, numbers: Sequence[int]) -> list[ListedItem]:
    """Items by number, in the order given, less those that are gone."""
    query = _listed(project).where(Item.id.in_(numbers))
    found = {row[0].id: ListedItem(*row) for row in session.execute(query)}
    return [found[number] for number in numbers if number in found]


def _listed(
    project: Project, scored: bool = False, duplicate: bool = False, barred: bool = False
) -> sa.Select[Item, float, float, float | None, int, float]:
    """Columns of `ListedItem`; only items that are scored, duplicates or barred where that is asked for."""
    score_columns = Score.pretext_loss, Score.percentile, Score.spread
    columns = Item, *score_columns, Duplicate.duplicate_of_id, BarredItem.probability
    score = (Score.item_id == Item.id) & (Score.score_run_id == project.score_run_id)
    copy = (Duplicate.item_id == Item.id) & (Duplicate.score_run_id == project.score_run_id)
    bar = (BarredItem.item_id == Item.id) & (BarredItem.project_id == project.id)
    bar &= Item.state == "available"  # since the ranking it may have been labeled
    return (
        sa.select(*columns)
        .join(Score, score, isouter=not scored)
        .join(Duplicate, copy, isouter=not duplicate)
        .join(BarredItem, bar, isouter=not barred)
        .where(Item.project_id == project.id)
    )


def labels_of(session: Session, item: Item) -> list[Label]:
    """All revisions, oldest first."""
    query = sa.select(Label).where(Label.item_id == item.id).order_by(Label.id)
    return list(session.scalars(query.options(undefer(Label.annotation))))


@dataclass(frozen=True)
class Filters:
    state: State | None = None
    split: Split | None = None
    class_name: str | None = None
    percentile_from: float | None = None
    percentile_to: float | None = None
    duplicate_of: str | None = None  # public id of the representative
    barred: bool | None = None
    gold: bool | None = None

    @property
    def by_percentile(self) -> bool:
        return self.percentile_from is not None or self.percentile_to is not None


def page(
    session: Session,
    project: Project,
    filters: Filters,
    *,
    sort: Sort,
    after: tuple[Any, int] | None,
    limit: int,
) -> list[ListedItem]:
    """Sorted by key or pretext loss, after the position `after` = (value sorted by, item number).

    Raises `NoScoreRun` where losses are asked for and there are none.
    """
    by_loss = sort.endswith("pretext_loss")
    if (by_loss or filters.by_percentile) and project.score_run_id is None:
        raise NoScoreRun(project=public_id("p", project.id))
    query = _listed(
        project,
        scored=by_loss or filters.by_percentile,
        duplicate=filters.duplicate_of is not None,
        barred=filters.barred is True,
    )
    if filters.state is not None:
        query = query.where(Item.state == filters.state)
    if filters.split is not None:
        query = query.where(Item.split == filters.split)
    if filters.gold is not None:
        query = query.where(sa.text("items.gold") if filters.gold else sa.text("NOT items.gold"))
    if filters.class_name is not None:
        query = query.where(Item.class_name == filters.class_name)
    if filters.percentile_from is not None:
        query = query.where(Score.percentile >= filters.percentile_from)
    if filters.percentile_to is not None:
        query = query.where(Score.percentile <= filters.percentile_to)

    if filters.duplicate_of is not None:
        query = query.where(Duplicate.duplicate_of_id == find(session, project, filters.duplicate_of).id)
    if filters.barred is False:
        query = query.where(BarredItem.item_id.is_(None))

    value = Score.pretext_loss if by_loss else Item.key
    number = Score.item_id if by_loss else Item.id
    position = sa.tuple_(value, number)
    if sort.startswith("-"):
        query = query.order_by(value.desc(), number.desc())
        query = query if after is None else query.where(position < sa.tuple_(*after))
    else:
        query = query.order_by(value, number)
        query = query if after is None else query.where(position > sa.tuple_(*after))
    return [ListedItem(*row) for row in session.execute(query.limit(limit))]

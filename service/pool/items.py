"""Items: registered directly, listed, found."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.orm import Session, undefer

from service.content.contract import Facts
from service.content.pair import IMAGE_AND_TEXT, Kinds, is_inline, is_place
from service.content.reader import ItemBytes
from service.content.sources import content_of_most
from service.errors import (
    Invalid,
    LabelKindDiffers,
    NoScoreRun,
    NotFound,
    SourceNotAllowed,
    UnknownClass,
    UnknownItem,
)
from service.labeling.class_texts import ClassTexts
from service.projects import projects
from service.store import class_sets, modalities
from service.store.class_names import ClassNames
from service.store.ids import public_id, row_number
from service.store.project_settings import ProjectSettings
from service.store.registration import ItemRow, insert_items
from service.store.shuffle import shuffle_position
from service.store.tables import BarredItem, Duplicate, Item, Label, Project, RankedItem, Score

Split = Literal["pool", "test"]
State = Literal["available", "done", "broken", "quarantined", "withdrawn", "changed", "missing"]
Sort = Literal["key", "-key", "pretext_loss", "-pretext_loss", "rank", "predicted_probability"]
Refusal = Literal[
    "malformed",
    "uri_not_allowed",
    "unknown_class",
    "class_missing",
    "class_not_taken",
    "text_not_taken",
    "text_too_large",
    "text_unusable",
    "half_missing",
    "half_unusable",
    "half_too_large",
    "pair_not_taken",
    "label_kind_differs",
]


@dataclass(frozen=True)
class NewItem:
    """`class_name` goes with the test split; a pool item's class is what annotators say.

    uri     empty for an item that comes inline, until it is kept
    text    of such an item; facts and content_hash then, too
    halves  of a pair, each as text, as a `data:` URL or by its place; kinds: of these
    """

    key: str
    uri: str
    split: Split = "pool"
    class_name: str | None = None
    classes: Sequence[str] | None = None  # where an item has several
    meta: dict[str, Any] | None = None
    text: str | None = None
    halves: tuple[str, str] | None = None
    kinds: Kinds = IMAGE_AND_TEXT
    facts: Facts | None = None
    content_hash: str | None = None

    @property
    def is_inline(self) -> bool:
        return self.text is not None or self.halves is not None

    @property
    def places(self) -> list[str]:
        """The places of its bytes, as far as they did not come with it."""
        if self.halves is not None:
            both = zip(self.kinds, self.halves, strict=True)
            return [half for kind, half in both if is_place(kind) and not is_inline(half)]
        return [] if self.text is not None else [self.uri]


@dataclass(frozen=True)
class ListedItem:
    """An item with what the project's score run and ranking say of it, if there are any."""

    item: Item
    pretext_loss: float | None
    percentile: float | None
    spread: float | None
    duplicate_of_id: int | None  # the representative of its group
    broken_probability: float | None  # why the ranking barred it
    rank: int | None
    predicted_class: str | None  # by the head, when the ranking was made
    predicted_probability: float | None


def refusal(project: Project, item_bytes: ItemBytes, entry: NewItem) -> Refusal | None:
    """Why the item cannot be registered, if so."""
    try:
        for place in entry.places:
            projects.check_upload(project, place)
            item_bytes.check_root(place)
    except SourceNotAllowed:
        return "uri_not_allowed"
    given = entry.class_name is not None or entry.classes is not None
    if entry.split == "pool":
        return "class_not_taken" if given else None
    if not given:
        return "class_missing"
    if project.label_kind == "single" and entry.class_name in project.classes:
        return None
    try:
        ClassTexts(project).of(entry.class_name, entry.classes)
    except UnknownClass:
        return "unknown_class"
    except LabelKindDiffers:
        return "label_kind_differs"
    return None


def register(session: Session, project: Project, entries: Sequence[NewItem]) -> int:
    """Insert what is new by key; returns how many were. What is known stays as it is. The first items of a project
    tell its modality; raises `TaskForAnotherModality` where its pretext task does not fit, `Invalid` for texts where
    others have told another one meanwhile.
    """
    if project.modality is None and entries:
        inline = any(entry.is_inline for entry in entries)
        most = None if inline else content_of_most(entry.uri for entry in entries)
        wanted = "text" if inline else most.name if most else "image"
        if modalities.tell(session, project.id, wanted) != wanted and inline:
            raise Invalid(
                field="text", message=f"this project's items are {project.modality}s, given by `uri`."
            )
    seed = ProjectSettings.model_validate(project.settings).seed
    texts = ClassTexts(project)
    rows = [
        ItemRow(
            entry.key,
            entry.uri,
            entry.split,
            shuffle_position(seed, entry.key),
            texts.of(entry.class_name, entry.classes)[0],
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
    project: Project,
    scored: bool = False,
    duplicate: bool = False,
    barred: bool = False,
    ranked: bool = False,
) -> sa.Select[Item, float, float, float | None, int, float, int, str | None, float | None]:
    """Columns of `ListedItem`; only items that are scored, duplicates, barred or ranked where that is asked for."""
    score_columns = Score.pretext_loss, Score.percentile, Score.spread
    rank_columns = RankedItem.rank, RankedItem.predicted_class, RankedItem.predicted_probability
    columns = Item, *score_columns, Duplicate.duplicate_of_id, BarredItem.probability, *rank_columns
    score = (Score.item_id == Item.id) & (Score.score_run_id == project.score_run_id)
    copy = (Duplicate.item_id == Item.id) & (Duplicate.score_run_id == project.score_run_id)
    bar = (BarredItem.item_id == Item.id) & (BarredItem.project_id == project.id)
    rank = (RankedItem.item_id == Item.id) & (RankedItem.ranking_id == project.ranking_id)
    bar &= Item.state == "available"  # since the ranking it may have been labeled
    rank &= Item.state == "available"
    return (
        sa.select(*columns)
        .join(Score, score, isouter=not scored)
        .join(Duplicate, copy, isouter=not duplicate)
        .join(BarredItem, bar, isouter=not barred)
        .join(RankedItem, rank, isouter=not ranked)
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
    predicted_class: str | None = None  # by the head of the ranking, of items that stand in it
    duplicates: bool | None = None  # for which others stand in rankings
    disagreed: bool | None = None  # annotators gave it several classes

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
    """Sorted by key, pretext loss, rank or the head's sureness (both of items in the newest ranking only), after the
    position `after` = (value sorted by, item number).

    Raises `NoScoreRun` where losses are asked for and there are none.
    """
    by_loss = sort.endswith("pretext_loss")
    if (by_loss or filters.by_percentile) and project.score_run_id is None:
        raise NoScoreRun(project=public_id("p", project.id))
    query = _listed(
        project,
        scored=by_loss or filters.by_percentile,
        duplicate=filters.duplicate_of is not None or filters.duplicates is True,
        barred=filters.barred is True,
        ranked=sort in ("rank", "predicted_probability") or filters.predicted_class is not None,
    )
    if filters.state is not None:
        query = query.where(Item.state == filters.state)
    if filters.split is not None:
        query = query.where(Item.split == filters.split)
    if filters.gold is not None:
        query = query.where(sa.text("items.gold") if filters.gold else sa.text("NOT items.gold"))
    if filters.class_name is not None:
        query = query.where(
            _of_class(project, Item.class_name, ClassNames(project).or_same(filters.class_name))
        )
    if filters.percentile_from is not None:
        query = query.where(Score.percentile >= filters.percentile_from)
    if filters.percentile_to is not None:
        query = query.where(Score.percentile <= filters.percentile_to)

    if filters.duplicate_of is not None:
        query = query.where(Duplicate.duplicate_of_id == find(session, project, filters.duplicate_of).id)
    if filters.duplicates is False:
        query = query.where(Duplicate.item_id.is_(None))
    if filters.predicted_class is not None:
        query = query.where(_of_class(project, RankedItem.predicted_class, filters.predicted_class))
    if sort == "predicted_probability":
        query = query.where(RankedItem.predicted_probability.is_not(None))
    if filters.disagreed is not None:
        several = _disagreed(project)
        query = query.where(Item.id.in_(several) if filters.disagreed else Item.id.not_in(several))
    if filters.barred is False:
        query = query.where(BarredItem.item_id.is_(None))

    value, number = {
        "rank": (RankedItem.rank, RankedItem.item_id),
        "predicted_probability": (RankedItem.predicted_probability, RankedItem.item_id),
    }.get(sort, (Score.pretext_loss, Score.item_id) if by_loss else (Item.key, Item.id))
    position = sa.tuple_(value, number)
    if sort.startswith("-"):
        query = query.order_by(value.desc(), number.desc())
        query = query if after is None else query.where(position < sa.tuple_(*after))
    else:
        query = query.order_by(value, number)
        query = query if after is None else query.where(position > sa.tuple_(*after))
    return [ListedItem(*row) for row in session.execute(query.limit(limit))]


def _of_class(project: Project, column: Any, name: str) -> sa.ColumnElement[bool]:
    """This class, or it among others."""
    if project.label_kind == "multi":
        return class_sets.holds(column, name)
    return sa.and_(column == name)


def _disagreed(project: Project) -> sa.Select[int]:
    """The items that annotators gave several classes."""
    return (
        sa.select(Label.item_id)
        .where(Label.project_id == project.id, sa.text("labels.current"), Label.class_name.is_not(None))
        .group_by(Label.item_id)
        .having(sa.func.count(Label.class_name.distinct()) > 1)
    )

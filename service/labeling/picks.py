"""The picks of an annotator: from the queues, then by the ranking, with control and gold items mixed in.

The control share is exact over time: after each batch, the control items among all that the ranking or chance
chose (and nobody gave back) are the share of them, rounded. Where there is no ranking, or it is used up, uniformly
random items stand in, and they are control items too. Everything here touches a few rows, whatever the pool's size.
"""

import random
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.orm import Session, aliased

from service.store import pipeline
from service.store.control_arm import TESTED
from service.store.project_settings import ProjectSettings
from service.store.tables import (
    Batch,
    Item,
    Label,
    Project,
    QueuedItem,
    RankedItem,
    Ranking,
    Reservation,
    ToolTask,
)

# Constants in the statement, not parameters: only so both databases use the partial indexes; and SQLite, which would
# weigh these anew for each value, reads and plans a statement with such a parameter again each time that it runs.
AVAILABLE = sa.text("items.state = 'available' AND items.split = 'pool'")
CURRENT = sa.text("labels.current")
OPEN = sa.literal_column("'open'", sa.Text)
GOLD = sa.text("items.gold AND items.state = 'done'")  # not one that is aside
LOOKED_AT_AGAIN = 100  # ranks, before the ranking's mark moves on: cheaper than moving it each time
_LOOKED_UP = 1_000  # items whose ranks are asked for; with more the mark goes back to the start
_LOOKED_THROUGH = 2_000  # free ranked items, for those of one predicted class
_ANNOTATOR = sa.bindparam("annotator", type_=sa.Text)


@dataclass(frozen=True)
class Pick:
    item_id: int
    arm: Literal["selected", "control", "queued", "gold"]
    rank: int | None = None
    score: float | None = None
    ranking_id: int | None = None


@dataclass(frozen=True)
class Grid:
    """Items that the head predicted to be of one class, to be looked at together; without one, of the class that most
    of the ranking's next items are predicted to be.
    """

    class_name: str | None


# What `Look` is made of, for a statement that knows `project`, `ranking` and `annotator`.
LOOK = (
    sa.exists()
    .where(
        QueuedItem.project_id == sa.bindparam("project"),
        sa.or_(QueuedItem.annotator.is_(None), QueuedItem.annotator == _ANNOTATOR),
    )
    .label("any_queued"),
    sa.exists().where(Item.project_id == sa.bindparam("project"), TESTED).label("any_test"),
    sa.select(Ranking.low_water)
    .where(Ranking.id == sa.bindparam("ranking", type_=sa.BigInteger))
    .scalar_subquery()
    .label("low_water"),
)


@dataclass(frozen=True)
class Look:
    """The result of one cheap query about the project, which saves others."""

    any_queued: bool  # for the annotator or for everybody
    any_test: bool  # item that heads are measured on
    low_water: int | None  # of the ranking that is served


def pick(
    session: Session,
    project: Project,
    settings: ProjectSettings,
    annotator: str,
    size: int,
    look: Look,
    grid: "Grid | None" = None,
    connection: int | None = None,
) -> list[Pick]:
    """Up to `size` items; none if nothing but gold items is left. For a grid, of those that the ranking chose only
    items of one predicted class; control items take part in their share as ever, so there may be fewer than `size`.

    connection: of a tool that is filled as if it were one annotator. Whoever works there gets what comes: no gold
    items, which are to come to everybody, and none that is a task there already.
    """
    return _Picker(session, project, settings, annotator, look, grid, connection).pick(size)


def open_again(session: Session, project: Project, items: Collection[int]) -> None:
    """Somebody may get these items again, perhaps at ranks that serving has passed already."""
    if project.ranking_id is None or not items:
        return
    ranks = sa.select(sa.func.min(RankedItem.rank)).where(RankedItem.ranking_id == project.ranking_id)
    few = len(items) <= _LOOKED_UP
    lowest = session.scalar(ranks.where(RankedItem.item_id.in_(items))) if few else 1
    if lowest is not None:
        ranking = session.get_one(Ranking, project.ranking_id)
        ranking.low_water = min(ranking.low_water, lowest)


def meant_for(annotator: str | sa.BindParameter[str]) -> sa.ColumnElement[bool]:
    """Items that the annotator has no label on, and that are not kept for somebody else."""
    label, queued = aliased(Label), aliased(QueuedItem)
    mine = sa.exists().where(label.item_id == Item.id, label.annotator == annotator, label.current)
    kept = sa.exists().where(queued.item_id == Item.id, queued.annotator != annotator)
    return sa.and_(~mine, ~kept)


def _held_by(annotator: str | sa.BindParameter[str]) -> sa.ColumnElement[bool]:
    held = aliased(Reservation)
    return sa.exists().where(held.item_id == Item.id, held.annotator == annotator, held.state == OPEN)


def _room(alone: bool) -> sa.ColumnElement[bool]:
    """Items with room for one more annotator.

    An item wants `overlap` labels (alone: that is one), and more where it was sent out again; one that has them and
    is available all the same was disagreed on, and wants one more (see `service.store.item_decisions`).
    """
    label, held = aliased(Label), aliased(Reservation)
    if alone:
        return ~sa.exists().where(held.item_id == Item.id, held.state == OPEN)
    holds = _count(sa.select(sa.func.count()).where(held.item_id == Item.id, held.state == OPEN))
    labels = _count(
        sa.select(sa.func.count()).where(
            label.item_id == Item.id, label.current, label.used, label.class_name.is_not(None)
        )
    )
    wanted = sa.bindparam("overlap", type_=sa.Integer) + Item.asked_again
    return holds < sa.case((labels < wanted, wanted - labels), else_=1)


def _free(alone: bool, tool: bool) -> sa.ColumnElement[bool]:
    """… and meant for `annotator`, not held by them; in a tool, not there already."""
    free = sa.and_(_room(alone), ~_held_by(_ANNOTATOR), meant_for(_ANNOTATOR))
    return sa.and_(free, ~_is_task()) if tool else free


def _is_task() -> sa.ColumnElement[bool]:
    shown, connection = aliased(ToolTask), sa.bindparam("connection", type_=sa.BigInteger)
    return sa.exists().where(
        shown.item_id == Item.id, shown.connection_id == connection, shown.gone.is_(False)
    )


def _count(query: sa.Select[int]) -> sa.ColumnElement[int]:
    return query.correlate(Item).scalar_subquery()


# Statements are kept: making one costs more than running it.
@cache
def _free_queued(alone: bool, tool: bool) -> sa.Select[int]:
    return (
        sa.select(QueuedItem.item_id)
        .join(Item, Item.id == QueuedItem.item_id)
        .where(QueuedItem.project_id == sa.bindparam("project"), AVAILABLE, _free(alone, tool))
        .order_by(QueuedItem.annotator.is_(None), QueuedItem.number)
        .limit(sa.bindparam("limit"))
    )


@cache
def _free_random(alone: bool, tool: bool) -> sa.Select[int]:
    return (
        sa.select(Item.id)
        .where(Item.project_id == sa.bindparam("project"), AVAILABLE, _free(alone, tool))
        .order_by(Item.shuffle, Item.id)
        .limit(sa.bindparam("limit"))
    )


def _ranked(where: sa.ColumnElement[bool]) -> sa.Select[int, int, float]:
    """The ranking from rank `first` on, where its item is as asked for.

    The item is looked up in a subquery of its own: joined, a database without fresh statistics would read all
    available items for each ranked one.
    """
    as_asked = sa.select(where).where(Item.id == RankedItem.item_id).correlate(RankedItem).scalar_subquery()
    return (
        sa.select(RankedItem.rank, RankedItem.item_id, RankedItem.score)
        .where(
            RankedItem.ranking_id == sa.bindparam("ranking"),
            RankedItem.rank >= sa.bindparam("first"),
            as_asked,
        )
        .order_by(RankedItem.rank)
        .limit(sa.bindparam("limit"))
    )


@cache
def _ranked_with_room(alone: bool) -> sa.Select[int, int, float]:
    return _ranked(sa.and_(AVAILABLE, _room(alone)))


@cache
def _free_ranked(alone: bool, tool: bool) -> sa.Select[int, int, float]:
    return _ranked(sa.and_(AVAILABLE, _free(alone, tool)))


@cache
def _free_predicted(alone: bool) -> sa.Select[int, int, float, str, float]:
    query = _free_ranked(alone, False).add_columns(
        RankedItem.predicted_class, RankedItem.predicted_probability
    )
    return query.where(RankedItem.predicted_class.is_not(None))


@dataclass(frozen=True)
class _Picker:
    session: Session
    project: Project
    settings: ProjectSettings
    annotator: str
    look: Look
    grid: Grid | None = None
    connection: int | None = None

    def pick(self, size: int) -> list[Pick]:
        gold = self._gold_items(size) if self.settings.gold_fraction and not self._tool else []
        wanted = size - len(gold)
        picked = self._work(max(wanted, 1))
        return [*picked[:wanted], *gold] if picked else []

    def _work(self, size: int) -> list[Pick]:
        queued = self._from_queues(size) if self.look.any_queued else []
        if len(queued) == size:
            return queued
        size -= len(queued)
        taken = {found.item_id for found in queued}
        if self.grid is not None:
            selected = self._of_one_class(size, taken, self.grid.class_name)
            # No control items in place of what the class is short of: the share of the arms stays as it is.
            size = min(size, len(selected) + self._control_due(len(selected)))
        else:
            selected = self._from_ranking(size, taken)
        due = self._control_due(size)
        # Where one side is short the other fills up: no annotator goes without while items are available.
        wanted = max(due, size - len(selected))
        taken |= {found.item_id for found in selected}
        control = self._random_items(wanted, taken) if wanted else []
        if len(selected) < size - due and self.grid is None:
            self._ask_for_ranking()
        return [*queued, *selected[: size - len(control)], *control]

    @property
    def _alone(self) -> bool:
        return self.settings.overlap == 1

    @property
    def _tool(self) -> bool:
        return self.connection is not None

    def _given(self, **values: Any) -> dict[str, Any]:
        return {
            "annotator": self.annotator,
            "overlap": self.settings.overlap,
            "connection": self.connection,
            **values,
        }

    def _from_queues(self, size: int) -> list[Pick]:
        """Their own queue first, then that of everybody."""
        found = self.session.scalars(
            _free_queued(self._alone, self._tool), self._given(project=self.project.id, limit=size)
        )
        return [Pick(number, "queued") for number in found]

    def _gold_items(self, size: int) -> list[Pick]:
        """Gold items new to the annotator; rounded at random, so that batches of one get their share too."""
        newest = self.session.scalar(sa.select(sa.func.max(Batch.id)))
        rng = random.Random(f"{self.settings.seed}:gold:{newest}")
        wanted = int(self.settings.gold_fraction * size + rng.random())
        new = meant_for(self.annotator)
        query = (
            sa.select(Item.id)
            .where(Item.project_id == self.project.id, GOLD, new, ~_held_by(self.annotator))
            .order_by(Item.shuffle, Item.id)
            .limit(wanted)
        )
        return [Pick(number, "gold") for number in self.session.scalars(query)]

    def _control_due(self, size: int) -> int:
        """Control items in this batch, so that their number over all served items is the share, rounded."""
        share = self.settings.control_share(self.look.any_test)
        return min(size, max(0, round(share * (self.project.served + size)) - self.project.served_control))

    def _from_ranking(self, size: int, taken: Collection[int]) -> list[Pick]:
        number, low_water = self.project.ranking_id, self.look.low_water
        if number is None or low_water is None:
            return []
        given = self._given(ranking=number, first=low_water, limit=size + len(taken))
        free = list(self.session.execute(_free_ranked(self._alone, self._tool), given))
        if not free or free[0].rank >= low_water + LOOKED_AT_AGAIN:
            # What is labeled or held is not looked at for ever; `open_again` lowers the mark.
            lowest = self.session.execute(_ranked_with_room(self._alone), given | {"limit": 1}).first()
            ranking = self.session.get_one(Ranking, number)
            ranking.low_water = ranking.items + 1 if lowest is None else lowest.rank
        free = [row for row in free if row.item_id not in taken][:size]
        return [Pick(row.item_id, "selected", row.rank, row.score, number) for row in free]

    def _of_one_class(self, size: int, taken: Collection[int], class_name: str | None) -> list[Pick]:
        """Items that the ranking asks for, of one predicted class, the surest first: so that a grid can mostly be
        confirmed."""
        number = self.project.ranking_id
        if number is None:
            return []
        given = self._given(ranking=number, first=self.look.low_water or 1, limit=_LOOKED_THROUGH)
        free = [
            row
            for row in self.session.execute(_free_predicted(self._alone), given)
            if row.item_id not in taken
        ]
        if class_name is None and free:
            expected = Counter[str]()  # items of each class
            for row in free:
                expected[row.predicted_class] += row.predicted_probability
            class_name = max(expected, key=lambda name: (expected[name], name))
        found = sorted(
            (row for row in free if row.predicted_class == class_name),
            key=lambda row: (-row.predicted_probability, row.rank),
        )
        return [Pick(row.item_id, "selected", row.rank, row.score, number) for row in found[:size]]

    def _random_items(self, size: int, taken: Collection[int]) -> list[Pick]:
        """The first free items in `shuffle` order: those that no strategy ever sees, as long as there are any."""
        given = self._given(project=self.project.id, limit=size + len(taken))
        found = self.session.scalars(_free_random(self._alone, self._tool), given)
        free = [number for number in found if number not in taken]
        return [Pick(number, "control") for number in free[:size]]

    def _ask_for_ranking(self) -> None:
        """The ranking is used up: have a new one made, unless nothing has changed since this one was made."""
        if self.project.score_run_id is None:
            return
        if self.project.ranking_id is not None:
            ranking = self.session.get_one(Ranking, self.project.ranking_id)
            known = ranking.labels_used, ranking.score_run_id
            if known == (self.project.labels_used, self.project.score_run_id):
                return
        pipeline.queue_rank(self.session, self.project)

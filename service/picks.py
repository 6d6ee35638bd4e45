"""What an annotator gets next: from the queues, then by the ranking, with control and gold items mixed in.

The control share is exact over time: after each batch, the control items among all that the ranking or chance
chose (and nobody gave back) are the share of them, rounded. Where there is no ranking, or it is used up, uniformly
random items stand in, and they are control items too. Everything here touches a few rows, whatever the pool's size.
"""

import random
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

import sqlalchemy as sa
from sqlalchemy.orm import Session, aliased

from service.store import pipeline
from service.store.project_settings import ProjectSettings
from service.store.tables import Batch, Item, Label, Project, QueuedItem, RankedItem, Ranking, Reservation

# Constants in the statement, not parameters: only so both databases use the partial indexes.
AVAILABLE = sa.text("items.state = 'available' AND items.split = 'pool'")
CURRENT = sa.text("labels.current")
OPEN = sa.literal_column("'open'", sa.Text)
_GOLD = sa.text("items.gold")


@dataclass(frozen=True)
class Pick:
    item_id: int
    arm: Literal["selected", "control", "queued", "gold"]
    rank: int | None = None
    score: float | None = None
    ranking_id: int | None = None


def pick(
    session: Session, project: Project, settings: ProjectSettings, annotator: str, size: int
) -> list[Pick]:
    """Up to `size` items; none if nothing but gold items is left."""
    return _Picker(session, project, settings, annotator).pick(size)


def meant_for(annotator: str) -> sa.ColumnElement[bool]:
    """Items that the annotator has no label on, and that are not kept for somebody else."""
    label, queued = aliased(Label), aliased(QueuedItem)
    mine = sa.exists().where(label.item_id == Item.id, label.annotator == annotator, label.current)
    kept = sa.exists().where(queued.item_id == Item.id, queued.annotator != annotator)
    return sa.and_(~mine, ~kept)


def _held_by(annotator: str) -> sa.ColumnElement[bool]:
    held = aliased(Reservation)
    return sa.exists().where(held.item_id == Item.id, held.annotator == annotator, held.state == OPEN)


@dataclass(frozen=True)
class _Picker:
    session: Session
    project: Project
    settings: ProjectSettings
    annotator: str

    def pick(self, size: int) -> list[Pick]:
        gold = self._gold_items(size) if self.settings.gold_fraction else []
        wanted = size - len(gold)
        picked = self._work(max(wanted, 1))
        return [*picked[:wanted], *gold] if picked else []

    def _work(self, size: int) -> list[Pick]:
        queued = self._from_queues(size)
        if len(queued) == size:
            return queued
        size -= len(queued)
        taken = {found.item_id for found in queued}
        selected = self._from_ranking(size, taken)
        due = self._control_due(size)
        # Where one side is short the other fills up: no annotator goes without while items are available.
        wanted = max(due, size - len(selected))
        taken |= {found.item_id for found in selected}
        control = self._random_items(wanted, taken) if wanted else []
        if len(selected) < size - due:
            self._ask_for_ranking()
        return [*queued, *selected[: size - len(control)], *control]

    def _from_queues(self, size: int) -> list[Pick]:
        """Their own queue first, then that of everybody."""
        query = (
            sa.select(QueuedItem.item_id)
            .join(Item, Item.id == QueuedItem.item_id)
            .where(QueuedItem.project_id == self.project.id, AVAILABLE, self._free_for())
            .order_by(QueuedItem.annotator.is_(None), QueuedItem.number)
            .limit(size)
        )
        return [Pick(number, "queued") for number in self.session.scalars(query)]

    def _gold_items(self, size: int) -> list[Pick]:
        """Gold items new to the annotator; rounded at random, so that batches of one get their share too."""
        newest = self.session.scalar(sa.select(sa.func.max(Batch.id)))
        rng = random.Random(f"{self.settings.seed}:gold:{newest}")
        wanted = int(self.settings.gold_fraction * size + rng.random())
        new = meant_for(self.annotator)
        query = (
            sa.select(Item.id)
            .where(Item.project_id == self.project.id, _GOLD, new, ~_held_by(self.annotator))
            .order_by(Item.shuffle, Item.id)
            .limit(wanted)
        )
        return [Pick(number, "gold") for number in self.session.scalars(query)]

    def _control_due(self, size: int) -> int:
        """Control items in this batch, so that their number over all served items is the share, rounded."""
        test = sa.exists().where(
            Item.project_id == self.project.id, Item.split == sa.literal_column("'test'")
        )
        share = self.settings.control_share(bool(self.session.scalar(sa.select(test))))
        return min(size, max(0, round(share * (self.project.served + size)) - self.project.served_control))

    def _from_ranking(self, size: int, taken: Collection[int]) -> list[Pick]:
        if self.project.ranking_id is None:
            return []
        ranking = self.session.get_one(Ranking, self.project.ranking_id)
        ranked = sa.select(RankedItem).join(Item, Item.id == RankedItem.item_id)
        left = ranked.where(
            RankedItem.ranking_id == ranking.id, RankedItem.rank >= ranking.low_water, AVAILABLE
        ).order_by(RankedItem.rank)
        first = self.session.scalar(left.with_only_columns(RankedItem.rank).limit(1))
        # What was labeled is never looked at again; `labels` and `queues` lower the mark when an item opens again.
        ranking.low_water = ranking.items + 1 if first is None else first
        if first is None:
            return []
        query = left.where(self._free_for()).limit(size + len(taken))
        found = [row for row in self.session.scalars(query) if row.item_id not in taken]
        return [Pick(row.item_id, "selected", row.rank, row.score, ranking.id) for row in found[:size]]

    def _random_items(self, size: int, taken: Collection[int]) -> list[Pick]:
        """The first free items in `shuffle` order: those that no strategy ever sees, as long as there are any."""
        query = (
            sa.select(Item.id)
            .where(Item.project_id == self.project.id, AVAILABLE, self._free_for())
            .order_by(Item.shuffle, Item.id)
            .limit(size + len(taken))
        )
        free = [number for number in self.session.scalars(query) if number not in taken]
        return [Pick(number, "control") for number in free[:size]]

    def _free_for(self) -> sa.ColumnElement[bool]:
        """Items meant for this annotator, not held by them, with room for one more.

        An item wants `overlap` labels, and more where it was sent out again; one that has them and is available
        all the same was disagreed on, and wants one more (`service.decisions` decides when it is done).
        """
        label, held = aliased(Label), aliased(Reservation)
        if self.settings.overlap == 1:
            room = ~sa.exists().where(held.item_id == Item.id, held.state == OPEN)
        else:
            holds = _count(sa.select(sa.func.count()).where(held.item_id == Item.id, held.state == OPEN))
            labels = _count(
                sa.select(sa.func.count()).where(
                    label.item_id == Item.id, label.current, label.used, label.class_name.is_not(None)
                )
            )
            wanted = self.settings.overlap + Item.asked_again
            room = holds < sa.case((labels < wanted, wanted - labels), else_=1)
        return sa.and_(room, ~_held_by(self.annotator), meant_for(self.annotator))

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


def _count(query: sa.Select[int]) -> sa.ColumnElement[int]:
    return query.correlate(Item).scalar_subquery()

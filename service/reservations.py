"""Which items an annotator gets next, and for how long they are theirs.

Every function here that changes something runs with the project locked (`projects.lock`), so overlap, budget and
control share are exact. Each touches a few rows, whatever the pool's size.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.orm import Session, aliased

from service import projects
from service.errors import BoundToAnnotator, NotFound, ReservationExpired
from service.store import pipeline
from service.store.ids import public_id, row_number
from service.store.project_settings import ProjectSettings
from service.store.tables import (
    Batch,
    Head,
    Item,
    Job,
    Label,
    Project,
    RankedItem,
    Ranking,
    Reservation,
    Score,
)

Reason = Literal["pool_exhausted", "all_reserved", "budget_spent", "not_your_turn"]

# Constants in the statement, not parameters: only so both databases use the partial indexes.
AVAILABLE = sa.text("items.state = 'available' AND items.split = 'pool'")
_OPEN = sa.literal_column("'open'", sa.Text)
_IMPORT_WAIT_S = 2  # items arrive while a source is being imported


@dataclass(frozen=True)
class Served:
    """A reserved item and what served it; a control item has no ranking, and no prediction to be swayed by."""

    reservation: Reservation
    item: Item
    score: Score | None  # in the project's score run
    ranked: RankedItem | None
    ranking: Ranking | None
    head_version: int | None  # of the head the ranking was made with


@dataclass(frozen=True)
class NextBatch:
    """A batch, or the reason why there is none and when asking again may help."""

    batch: Batch | None
    served: Sequence[Served] = ()
    reason: Reason | None = None
    retry_after_s: int | None = None


@dataclass(frozen=True)
class _Pick:
    item_id: int
    arm: Literal["selected", "control"]
    rank: int | None = None
    score: float | None = None
    ranking_id: int | None = None


def next_batch(
    session: Session, project: Project, *, annotator: str, size: int, new: bool, now: datetime
) -> NextBatch:
    """The annotator's own open batch unless `new`, else up to `size` items reserved for them.

    The control share is exact over time: after each batch, the control items among all that were served (and not
    given back) are the share of them, rounded. The rest come from the ranking, in rank order. Where there is no
    ranking, or it is used up, uniformly random items stand in, and they are control items too.
    """
    projects.lock(session, project)
    expire(session, project, now)
    if not new and (own := _own_open_batch(session, project, annotator)) is not None:
        return NextBatch(own, served_in(session, project, own))

    settings = ProjectSettings.model_validate(project.settings)
    if settings.budget is not None:
        left = settings.budget - project.labels_used - _held(session, project)
        if left <= 0:
            waiting = project.labels_used < settings.budget
            return NextBatch(
                None,
                reason="budget_spent",
                retry_after_s=_next_expiry(session, project, now) if waiting else None,
            )
        size = min(size, left)
    picks = _pick(session, project, settings, annotator, size)
    if not picks:
        return _nothing(session, project, annotator, now)
    batch = _reserve(session, project, settings, annotator, picks, now)
    return NextBatch(batch, served_in(session, project, batch))


def served_in(session: Session, project: Project, batch: Batch) -> list[Served]:
    """What of the batch is still to be labeled, in the order it was handed out."""
    query = (
        sa.select(Reservation, Item, Score, RankedItem, Ranking, Head.version)
        .join(Item, Item.id == Reservation.item_id)
        .outerjoin(Score, (Score.item_id == Item.id) & (Score.score_run_id == project.score_run_id))
        .outerjoin(
            RankedItem,
            (RankedItem.ranking_id == Reservation.ranking_id) & (RankedItem.rank == Reservation.rank),
        )
        .outerjoin(Ranking, Ranking.id == Reservation.ranking_id)
        .outerjoin(Head, Head.id == Ranking.head_id)
        .where(Reservation.batch_id == batch.id, Reservation.state == "open", AVAILABLE)
        .order_by(Reservation.position)
    )
    return [Served(*row) for row in session.execute(query)]


def expire(session: Session, project: Project, now: datetime) -> None:
    """Mark what has run out. Nothing depends on when: whoever looks at reservations does this first."""
    _close(session, project, "expired", Reservation.expires_at <= now)


def release_items(session: Session, project: Project, item_ids: Sequence[int]) -> None:
    """Items that left the pool are nobody's any more."""
    if item_ids:
        _close(session, project, "released", Reservation.item_id.in_(item_ids))


def find_batch(session: Session, public: str, only: int | None) -> Batch:
    """By public id; a key bound to project `only` sees no other project's."""
    batch = session.get(Batch, row_number("b", public))
    if batch is None or only not in (None, batch.project_id):
        raise NotFound(what="batch", id=public)
    return batch


def renew(session: Session, batch: Batch, *, annotator: str | None, now: datetime) -> Batch:
    """Hold the unlabeled rest for another `reservation_ttl_s` from now. Raises `ReservationExpired`."""
    project = _locked_project(session, batch, annotator)
    expire(session, project, now)
    held = sa.exists().where(Reservation.batch_id == batch.id, Reservation.state == "open")
    if not session.scalar(sa.select(held)):
        raise ReservationExpired(batch=public_id("b", batch.id))
    ttl_s = ProjectSettings.model_validate(project.settings).reservation_ttl_s
    batch.expires_at = now + timedelta(seconds=ttl_s)
    session.execute(
        sa.update(Reservation)
        .where(Reservation.batch_id == batch.id, Reservation.state == "open")
        .values(expires_at=batch.expires_at)
    )
    return batch


def give_back(session: Session, batch: Batch, *, annotator: str | None) -> None:
    """The unlabeled rest goes back to the pool; doing it twice is fine."""
    project = _locked_project(session, batch, annotator)
    _close(session, project, "released", Reservation.batch_id == batch.id)


def _locked_project(session: Session, batch: Batch, annotator: str | None) -> Project:
    if annotator not in (None, batch.annotator):
        raise BoundToAnnotator(field="batch", bound=annotator, name=batch.annotator)
    project = session.get_one(Project, batch.project_id)
    projects.lock(session, project)
    return project


def _close(session: Session, project: Project, state: str, which: sa.ColumnElement[bool]) -> None:
    closed = session.execute(
        sa.update(Reservation)
        .where(Reservation.project_id == project.id, Reservation.state == _OPEN, which)
        .values(state=state)
        .returning(Reservation.arm)
        .execution_options(synchronize_session=False)
    ).all()
    project.served -= len(closed)
    project.served_control -= sum(row.arm == "control" for row in closed)


def _own_open_batch(session: Session, project: Project, annotator: str) -> Batch | None:
    """Their oldest one with anything left to label."""
    held = (
        sa.select(sa.func.min(Reservation.batch_id))
        .join(Item, Item.id == Reservation.item_id)
        .where(Reservation.project_id == project.id, Reservation.annotator == annotator)
        .where(Reservation.state == _OPEN, AVAILABLE)
    )
    number = session.scalar(held)
    return None if number is None else session.get_one(Batch, number)


def _held(session: Session, project: Project) -> int:
    query = sa.select(sa.func.count()).where(Reservation.project_id == project.id, Reservation.state == _OPEN)
    return session.scalar(query) or 0


def _next_expiry(session: Session, project: Project, now: datetime) -> int | None:
    """Whole seconds until the next open reservation runs out."""
    query = sa.select(sa.func.min(Reservation.expires_at)).where(
        Reservation.project_id == project.id, Reservation.state == _OPEN
    )
    runs_out = session.scalar(query)
    return None if runs_out is None else max(1, int((runs_out - now).total_seconds()) + 1)


def _pick(
    session: Session, project: Project, settings: ProjectSettings, annotator: str, size: int
) -> list[_Pick]:
    selected = _from_ranking(session, project, settings, annotator, size)
    due = _control_due(session, project, settings, size)
    # Where one side is short the other fills up: no annotator goes without while items are available.
    wanted = max(due, size - len(selected))
    taken = {pick.item_id for pick in selected}
    control = _random_items(session, project, settings, annotator, wanted, taken) if wanted else []
    if len(selected) < size - due:
        _ask_for_ranking(session, project)
    return [*selected[: size - len(control)], *control]


def _control_due(session: Session, project: Project, settings: ProjectSettings, size: int) -> int:
    """Control items in this batch, so that their number over all served items is the share, rounded."""
    test = sa.exists().where(Item.project_id == project.id, Item.split == sa.literal_column("'test'"))
    share = settings.control_share(bool(session.scalar(sa.select(test))))
    return min(size, max(0, round(share * (project.served + size)) - project.served_control))


def _free_for(project: Project, settings: ProjectSettings, annotator: str) -> sa.ColumnElement[bool]:
    """Items with room for one more annotator, never labeled or held by this one.

    An item wants `overlap` labels; one that has them and is available all the same was disagreed on, and wants one
    more (`service.labels` decides when it is done).
    """
    label, held = aliased(Label), aliased(Reservation)
    mine = sa.exists().where(label.item_id == Item.id, label.annotator == annotator, label.current)
    my_hold = sa.exists().where(held.item_id == Item.id, held.annotator == annotator, held.state == _OPEN)
    holds = _count(sa.select(sa.func.count()).where(held.item_id == Item.id, held.state == _OPEN))
    if settings.overlap == 1:
        room = ~sa.exists().where(held.item_id == Item.id, held.state == _OPEN)
    else:
        labels = _count(
            sa.select(sa.func.count()).where(
                label.item_id == Item.id, label.current, label.used, label.class_name.is_not(None)
            )
        )
        room = holds < sa.case((labels < settings.overlap, settings.overlap - labels), else_=1)
    return sa.and_(room, ~mine, ~my_hold)


def _count(query: sa.Select[int]) -> sa.ColumnElement[int]:
    return query.correlate(Item).scalar_subquery()


def _from_ranking(
    session: Session, project: Project, settings: ProjectSettings, annotator: str, size: int
) -> list[_Pick]:
    if project.ranking_id is None:
        return []
    ranking = session.get_one(Ranking, project.ranking_id)
    ranked = sa.select(RankedItem).join(Item, Item.id == RankedItem.item_id)
    left = ranked.where(
        RankedItem.ranking_id == ranking.id, RankedItem.rank >= ranking.low_water, AVAILABLE
    ).order_by(RankedItem.rank)
    first = session.scalar(left.with_only_columns(RankedItem.rank).limit(1))
    # What was labeled is never looked at again; `labels` lowers the mark when a label is taken back.
    ranking.low_water = ranking.items + 1 if first is None else first
    if first is None:
        return []
    query = left.where(_free_for(project, settings, annotator)).limit(size)
    return [_Pick(row.item_id, "selected", row.rank, row.score, ranking.id) for row in session.scalars(query)]


def _random_items(
    session: Session,
    project: Project,
    settings: ProjectSettings,
    annotator: str,
    size: int,
    selected: set[int],
) -> list[_Pick]:
    """The first free items in `shuffle` order: those that no strategy ever sees, as long as there are any."""
    query = (
        sa.select(Item.id)
        .where(Item.project_id == project.id, AVAILABLE, _free_for(project, settings, annotator))
        .order_by(Item.shuffle, Item.id)
        .limit(size + len(selected))
    )
    return [_Pick(number, "control") for number in session.scalars(query) if number not in selected][:size]


def _ask_for_ranking(session: Session, project: Project) -> None:
    """The ranking is used up: have a new one made, unless nothing has changed since this one was made."""
    if project.score_run_id is None:
        return
    if project.ranking_id is not None:
        ranking = session.get_one(Ranking, project.ranking_id)
        if ranking.labels_used == project.labels_used and ranking.score_run_id == project.score_run_id:
            return
    pipeline.queue_rank(session, project)


def _reserve(
    session: Session,
    project: Project,
    settings: ProjectSettings,
    annotator: str,
    picks: Sequence[_Pick],
    now: datetime,
) -> Batch:
    batch = Batch(
        project_id=project.id,
        annotator=annotator,
        created_at=now,
        expires_at=now + timedelta(seconds=settings.reservation_ttl_s),
    )
    session.add(batch)
    session.flush()
    ordered = _mixed(picks, random.Random(f"{settings.seed}:{batch.id}"))
    rows: list[dict[str, Any]] = [
        {
            "project_id": project.id, "batch_id": batch.id, "item_id": pick.item_id, "annotator": annotator,
            "position": position, "arm": pick.arm, "rank": pick.rank, "score": pick.score,
            "ranking_id": pick.ranking_id, "expires_at": batch.expires_at, "state": "open",
        }
        for position, pick in enumerate(ordered, start=1)
    ]  # fmt: skip
    session.execute(sa.insert(Reservation), rows)
    project.served += len(picks)
    project.served_control += sum(pick.arm == "control" for pick in picks)
    return batch


def _mixed(picks: Sequence[_Pick], rng: random.Random) -> list[_Pick]:
    """Control items at random places, so that a batch left half done is not short of one arm; ranks stay in order."""
    control = [pick for pick in picks if pick.arm == "control"]
    selected = [pick for pick in picks if pick.arm == "selected"]
    places = set(rng.sample(range(len(picks)), len(control)))
    next_control, next_selected = iter(control), iter(selected)
    return [next(next_control if place in places else next_selected) for place in range(len(picks))]


def _nothing(session: Session, project: Project, annotator: str, now: datetime) -> NextBatch:
    available = sa.select(Item.id).where(Item.project_id == project.id, AVAILABLE).limit(1)
    if session.scalar(available) is None:
        wait_s = _IMPORT_WAIT_S if _importing(session, project) else None
        return NextBatch(None, reason="pool_exhausted", retry_after_s=wait_s)
    label = aliased(Label)
    mine = sa.exists().where(label.item_id == Item.id, label.annotator == annotator, label.current)
    if session.scalar(available.where(~mine)) is None:
        return NextBatch(None, reason="not_your_turn")
    return NextBatch(None, reason="all_reserved", retry_after_s=_next_expiry(session, project, now))


def _importing(session: Session, project: Project) -> bool:
    imports = sa.exists().where(
        Job.project_id == project.id, Job.kind == "import_source", Job.state.in_(("queued", "running"))
    )
    return bool(session.scalar(sa.select(imports)))

"""Batches: items reserved for an annotator until they expire.

Every function here that changes something runs with the project locked (`projects.lock`), so overlap, budget and
control share are exact. Each touches a few rows, whatever the pool's size.
"""

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.orm import Session

from service.errors import BoundToAnnotator, NotFound, ReservationExpired
from service.labeling import picks
from service.labeling.picks import AVAILABLE, CURRENT, GOLD, OPEN, Grid, Pick
from service.projects import projects
from service.store.bulk import NewRows
from service.store.class_names import ClassNames
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

Reason = Literal[
    "pool_exhausted",
    "all_reserved",
    "budget_spent",
    "not_your_turn",
    "annotator_limit",
    "project_paused",
    "project_archived",
    "none_predicted",
]

_TO_LABEL = sa.or_(AVAILABLE, GOLD)
_IMPORT_WAIT_S = 2  # items arrive while a source is being imported

# What every call of next-batch runs. Made once: making a statement costs more than running it.
_SERVED = (
    sa.select(
        Item.id,
        Item.key,
        Item.uri,
        Item.content_hash,
        Reservation.arm,
        Reservation.rank,
        Reservation.score,
        Ranking.version,
        Ranking.strategy,
        Ranking.seed,
        Ranking.score_run_id,
        Head.version,
        Score.pretext_loss,
        Score.percentile,
        Score.spread,
        RankedItem.predicted_class,
        RankedItem.predicted_probability,
    )
    .join(Item, Item.id == Reservation.item_id)
    .outerjoin(
        Score,
        (Score.item_id == Item.id) & (Score.score_run_id == sa.bindparam("score_run", type_=sa.BigInteger)),
    )
    .outerjoin(
        RankedItem, (RankedItem.ranking_id == Reservation.ranking_id) & (RankedItem.rank == Reservation.rank)
    )
    .outerjoin(Ranking, Ranking.id == Reservation.ranking_id)
    .outerjoin(Head, Head.id == Ranking.head_id)
    .where(Reservation.batch_id == sa.bindparam("batch"), Reservation.state == OPEN, _TO_LABEL)
    .order_by(Reservation.position)
)
_EXPIRE = (
    sa.update(Reservation)
    .where(
        Reservation.project_id == sa.bindparam("of_project"),
        Reservation.state == OPEN,
        Reservation.expires_at <= sa.bindparam("now"),
    )
    .values(state="expired")
    .returning(Reservation.arm, Reservation.item_id)
    .execution_options(synchronize_session=False)
)
_OLDEST_OPEN = (
    sa.select(sa.func.min(Reservation.batch_id))
    .join(Item, Item.id == Reservation.item_id)
    .where(
        Reservation.project_id == sa.bindparam("project"), Reservation.annotator == sa.bindparam("annotator")
    )
    .where(Reservation.state == OPEN, Reservation.expires_at > sa.bindparam("now"), _TO_LABEL)
)
_FIRST_LOOK = sa.select(
    sa.exists()
    .where(
        Reservation.project_id == sa.bindparam("project"),
        Reservation.state == OPEN,
        Reservation.expires_at <= sa.bindparam("now"),
    )
    .label("any_ran_out"),
    _OLDEST_OPEN.scalar_subquery().label("own_batch"),
    *picks.LOOK,
)
_RESERVE = NewRows(
    Reservation,
    ("item_id", "position", "arm", "rank", "score", "ranking_id"),
    ("project_id", "batch_id", "annotator", "expires_at", "state"),
)


@dataclass(frozen=True)
class Served:
    """A reserved item and what served it; a control item has no ranking, and no prediction to be swayed by."""

    item_id: int
    key: str
    uri: str
    content_hash: str | None
    arm: str
    rank: int | None
    score: float | None
    ranking: int | None  # its version; and what it was made with:
    strategy: dict[str, Any] | None
    seed: int | None
    score_run_id: int | None
    head: int | None  # its version
    pretext_loss: float | None  # in the project's score run
    percentile: float | None
    spread: float | None
    predicted_class: str | None  # when the ranking was made
    predicted_probability: float | None


@dataclass(frozen=True)
class NextBatch:
    """A batch, or the reason why there is none and when asking again may help."""

    batch: Batch | None
    served: Sequence[Served] = ()
    reason: Reason | None = None
    retry_after_s: int | None = None


def next_batch(
    session: Session,
    project: Project,
    *,
    annotator: str,
    size: int,
    new: bool,
    now: datetime,
    grid: Grid | None = None,
    connection: int | None = None,
) -> NextBatch:
    """The annotator's own open batch unless `new`, else up to `size` items reserved for them; see `picks`."""
    projects.lock(session, project)
    given = {"project": project.id, "ranking": project.ranking_id, "annotator": annotator, "now": now}
    any_ran_out, own_batch, *look = session.execute(_FIRST_LOOK, given).one()
    if any_ran_out:
        expire(session, project, now)
        _, own_batch, *look = session.execute(_FIRST_LOOK, given).one()
    if project.state != "active":
        return NextBatch(None, reason="project_paused" if project.state == "paused" else "project_archived")
    if not new and own_batch is not None:
        own = session.get_one(Batch, own_batch)
        return NextBatch(own, served_in(session, project, own))

    settings = ProjectSettings.model_validate(project.settings)
    held = _held(session, project, annotator) if new else 0
    size, refused = _allowed(session, project, settings, annotator, held, size, now)
    if refused is not None:
        return refused
    picked = picks.pick(session, project, settings, annotator, size, picks.Look(*look), grid, connection)
    if not picked and grid is not None:
        return NextBatch(None, reason="none_predicted")
    if not picked:
        return _nothing(session, project, annotator, now)
    batch = _reserve(session, project, settings, annotator, picked, now)
    return NextBatch(batch, served_in(session, project, batch))


def _allowed(
    session: Session,
    project: Project,
    settings: ProjectSettings,
    annotator: str,
    held: int,
    size: int,
    now: datetime,
) -> tuple[int, NextBatch | None]:
    """The number of `size` items that budget and limits leave, or the refusal where they leave none."""
    if settings.budget is not None:
        left = settings.budget - project.labels_used - _held(session, project)
        if left <= 0:
            waiting = project.labels_used < settings.budget
            wait_s = _next_expiry(session, project, now) if waiting else None
            return 0, NextBatch(None, reason="budget_spent", retry_after_s=wait_s)
        size = min(size, left)
    if held >= settings.max_held_per_annotator:
        wait_s = _next_expiry(session, project, now, annotator)
        return 0, NextBatch(None, reason="annotator_limit", retry_after_s=wait_s)
    size = min(size, settings.max_held_per_annotator - held)
    if settings.max_labels_per_annotator is not None:
        left = settings.max_labels_per_annotator - held - _labeled_by(session, project, annotator)
        if left <= 0:
            wait_s = _next_expiry(session, project, now, annotator) if left + held > 0 else None
            return 0, NextBatch(None, reason="annotator_limit", retry_after_s=wait_s)
        size = min(size, left)
    return size, None


def served_in(session: Session, project: Project, batch: Batch) -> list[Served]:
    """The items of the batch that are still to be labeled, in the order they were handed out."""
    given = {"batch": batch.id, "score_run": project.score_run_id}
    served = [Served(*tuple(row)) for row in session.execute(_SERVED, given)]
    if not project.aliases:
        return served
    names = ClassNames(project)  # the ranking may be older than what its predictions are called now
    return [
        replace(one, predicted_class=names.text_now(one.predicted_class)) if one.predicted_class else one
        for one in served
    ]


def expire(session: Session, project: Project, now: datetime) -> None:
    """Mark what has run out. Nothing depends on when: whoever looks at reservations does this first."""
    _free_again(session, project, session.execute(_EXPIRE, {"of_project": project.id, "now": now}).all())


def release_items(session: Session, project: Project, item_ids: Sequence[int]) -> None:
    """Items that left the pool are nobody's any more."""
    if item_ids:
        _close(session, project, "released", Reservation.item_id.in_(item_ids))


def give_all_back(session: Session, project: Project, annotator: str) -> None:
    """Whatever the annotator holds goes back to the pool."""
    _close(session, project, "released", Reservation.annotator == annotator)


def hold_on(session: Session, project: Project, annotator: str, now: datetime) -> None:
    """Whatever the annotator holds, they hold for `reservation_ttl_s` from now; written when half of it is over."""
    ttl = timedelta(seconds=ProjectSettings.model_validate(project.settings).reservation_ttl_s)
    mine = sa.update(Reservation).where(
        Reservation.project_id == project.id, Reservation.annotator == annotator, Reservation.state == OPEN
    )
    session.execute(mine.where(Reservation.expires_at < now + ttl / 2).values(expires_at=now + ttl))


def pass_on(session: Session, project: Project, annotator: str, to: Mapping[int, str]) -> None:
    """Items that the annotator holds, or held until they ran out, become those of others, who do the work."""
    held = sa.select(Reservation).where(
        Reservation.project_id == project.id, Reservation.item_id.in_(to), Reservation.state == OPEN
    )
    theirs = {(row.item_id, row.annotator) for row in session.scalars(held)}
    mine = sa.select(Reservation).where(
        Reservation.project_id == project.id,
        Reservation.item_id.in_(to),
        Reservation.annotator == annotator,
        Reservation.state.in_(("open", "expired")),
    )
    newest = {row.item_id: row for row in session.scalars(mine.order_by(Reservation.id))}
    for number, row in newest.items():
        if (number, to[number]) not in theirs:  # else they got it by themselves, too
            row.annotator = to[number]
    session.flush()


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
    held = sa.exists().where(Reservation.batch_id == batch.id, Reservation.state == OPEN)
    if not session.scalar(sa.select(held)):
        raise ReservationExpired(batch=public_id("b", batch.id))
    ttl_s = ProjectSettings.model_validate(project.settings).reservation_ttl_s
    batch.expires_at = now + timedelta(seconds=ttl_s)
    session.execute(
        sa.update(Reservation)
        .where(Reservation.batch_id == batch.id, Reservation.state == OPEN)
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
        .where(Reservation.project_id == project.id, Reservation.state == OPEN, which)
        .values(state=state)
        .returning(Reservation.arm, Reservation.item_id)
        .execution_options(synchronize_session=False)
    ).all()
    _free_again(session, project, closed)


def _free_again(session: Session, project: Project, closed: Sequence[sa.Row[str, int]]) -> None:
    count_served(project, (row.arm for row in closed), -1)
    picks.open_again(session, project, [row.item_id for row in closed])


def count_served(project: Project, arms: Iterable[str], sign: Literal[1, -1] = 1) -> None:
    """Count the items that the control share is a share of: those that the ranking or chance chose."""
    for arm in arms:
        project.served += sign * (arm in ("selected", "control"))
        project.served_control += sign * (arm == "control")


def _held(session: Session, project: Project, annotator: str | None = None) -> int:
    """Open reservations of all, or of one; gold items cost nothing."""
    query = sa.select(sa.func.count()).where(
        Reservation.project_id == project.id, Reservation.state == OPEN, Reservation.arm != "gold"
    )
    return (
        session.scalar(query if annotator is None else query.where(Reservation.annotator == annotator)) or 0
    )


def _labeled_by(session: Session, project: Project, annotator: str) -> int:
    query = sa.select(sa.func.count()).where(
        Label.project_id == project.id, Label.annotator == annotator, CURRENT, Label.arm != "gold"
    )
    return session.scalar(query) or 0


def _next_expiry(
    session: Session, project: Project, now: datetime, annotator: str | None = None
) -> int | None:
    """Whole seconds until the next open reservation, of all or of one annotator, runs out."""
    query = sa.select(sa.func.min(Reservation.expires_at)).where(
        Reservation.project_id == project.id, Reservation.state == OPEN
    )
    runs_out = session.scalar(query if annotator is None else query.where(Reservation.annotator == annotator))
    return None if runs_out is None else max(1, int((runs_out - now).total_seconds()) + 1)


def _reserve(
    session: Session,
    project: Project,
    settings: ProjectSettings,
    annotator: str,
    picked: Sequence[Pick],
    now: datetime,
) -> Batch:
    batch = Batch(
        project_id=project.id,
        annotator=annotator,
        created_at=now,
        expires_at=now + timedelta(seconds=settings.reservation_ttl_s),
    )
    count_served(project, (pick.arm for pick in picked))
    session.add(batch)
    session.flush()  # with the project, which is not written once more then
    ordered = _mixed(picked, random.Random(f"{settings.seed}:{batch.id}"))
    rows: list[dict[str, Any]] = [
        {
            "item_id": pick.item_id,
            "position": position,
            "arm": pick.arm,
            "rank": pick.rank,
            "score": pick.score,
            "ranking_id": pick.ranking_id,
        }
        for position, pick in enumerate(ordered, start=1)
    ]
    _RESERVE.insert(
        session,
        rows,
        project_id=project.id,
        batch_id=batch.id,
        annotator=annotator,
        expires_at=batch.expires_at,
        state="open",
    )
    return batch


def _mixed(picked: Sequence[Pick], rng: random.Random) -> list[Pick]:
    """Control and gold items at random places: nobody can tell them, and a batch left half done is not short of
    one arm. Those of one arm stay in order."""
    arms = [pick.arm for pick in picked if pick.arm in ("control", "gold")]
    places = set(rng.sample(range(len(picked)), len(arms)))
    rng.shuffle(arms)
    scattered = {arm: iter([pick for pick in picked if pick.arm == arm]) for arm in arms}
    in_order = iter([pick for pick in picked if pick.arm not in scattered])
    return [next(scattered[arms.pop()] if place in places else in_order) for place in range(len(picked))]


def _nothing(session: Session, project: Project, annotator: str, now: datetime) -> NextBatch:
    available = sa.select(Item.id).where(Item.project_id == project.id, AVAILABLE).limit(1)
    if session.scalar(available) is None:
        wait_s = _IMPORT_WAIT_S if _importing(session, project) else None
        return NextBatch(None, reason="pool_exhausted", retry_after_s=wait_s)
    if session.scalar(available.where(picks.meant_for(annotator)).limit(1)) is None:
        return NextBatch(None, reason="not_your_turn")
    return NextBatch(None, reason="all_reserved", retry_after_s=_next_expiry(session, project, now))


def _importing(session: Session, project: Project) -> bool:
    imports = sa.exists().where(
        Job.project_id == project.id, Job.kind == "import_source", Job.state.in_(("queued", "running"))
    )
    return bool(session.scalar(sa.select(imports)))

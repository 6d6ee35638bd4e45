"""The job queue: a lease table, the same code on SQLite (BEGIN IMMEDIATE) and PostgreSQL (SKIP LOCKED).

A job has a lane, so that short jobs never wait behind long ones, and needs: a claim takes only jobs whose needs are a
subset of what the worker has.

A worker holds a running job by a lease that it renews with heartbeats. A lease that ran out is taken over
by the next claim. `token` grows by one at each claim and fences off whoever lost the job: every write of a
holder is guarded by (id, token), and every transaction that publishes a job's output goes through `fence`.

All times are seconds of the database's clock, so that machines need not agree on the time.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session, aliased

from service.store import outbox
from service.store.abandoned_jobs import give_up, start_over
from service.store.ids import public_id
from service.store.session import read_session, write_session
from service.store.tables import CatalogueEntry, Job

Lane = Literal["short", "long"]

# Minutes to hours; a head's training may be long, too.
LONG_KINDS = frozenset({"train_pretext", "score_pool", "score_foundation", "score_own", "map_items"})
RETRY_DELAY_S = 2.0  # doubles with each attempt
RETRY_DELAY_MAX_S = 300.0
NOTICED_S = 60.0  # whoever still runs a job that has ended knows by then
ERROR_LENGTH = 4000
REPLACED = "Replaced by the same job, queued while this one ran."
_LANE_OF_HEAD = sa.select(CatalogueEntry.lane).where(
    CatalogueEntry.kind == "head", CatalogueEntry.name == sa.bindparam("head")
)
_CLOCKS: dict[str, sa.ColumnElement[float]] = {
    "postgresql": sa.literal_column("extract(epoch from clock_timestamp())::double precision", sa.Double()),
    "sqlite": sa.literal_column("((julianday('now') - 2440587.5) * 86400.0)", sa.Double()),
}
SILENT = "Its worker fell silent in each attempt it had. Look into the worker's log, then queue it again."


class LeaseLost(Exception):
    """The job is no longer ours: its lease ran out and another worker took it, or it ended."""


class Cancelled(Exception):
    """Somebody asked for the job to be cancelled."""


@dataclass(frozen=True)
class ClaimedJob:
    """A job that a worker holds; `token` proves it."""

    id: int
    project_id: int | None
    kind: str
    lane: str
    payload: dict[str, Any]
    attempts: int  # with this one
    max_attempts: int
    token: int
    coalesce_key: str | None
    serial_key: str | None
    needs: tuple[str, ...] = ()


def clock(session: Session) -> sa.ColumnElement[float]:
    """Now, in seconds of the database's clock."""
    return _CLOCKS[session.get_bind().dialect.name]


def enqueue(
    session: Session,
    kind: str,
    payload: dict[str, Any],
    *,
    project_id: int | None = None,
    lane: Lane | None = None,
    lane_of_head: str | None = None,
    needs: Iterable[str] = (),
    priority: int = 0,
    delay_s: float = 0.0,
    min_interval_s: float = 0.0,
    coalesce_key: str | None = None,
    serial_key: str | None = None,
    max_attempts: int = 3,
) -> int:
    """Queue a job in the caller's transaction and return its id.

    lane            default: by the kind
    lane_of_head    instead: that which workers announced of trainings of this head
    needs           what a worker must have to run it, beside the kind
    priority        higher runs sooner
    delay_s         not before so many seconds from now
    min_interval_s  not before so long after the last start of this project's jobs of this kind
    coalesce_key    merges into the queued job of that key: the sooner start, the newest payload, lane and needs. A
                    running one is left alone, so what arrives during a run causes one more.
    serial_key      at most one job of that key runs at a time
    """
    row = {
        "kind": kind,
        "payload": payload,
        "project_id": project_id,
        "needs": (f"kind:{kind}", *needs),
        "priority": priority,
        "coalesce_key": coalesce_key,
        "serial_key": serial_key,
        "max_attempts": max_attempts,
    }
    row |= {"head": lane_of_head} if lane_of_head is not None else {"lane": lane or lane_of(kind)}
    when: dict[str, Any] = {"delay_s": delay_s}
    if min_interval_s > 0:
        when |= {"min_interval_s": min_interval_s, "of_project": project_id, "of_kind": kind}
    dialect = session.get_bind().dialect.name
    insert = _insert(dialect, coalesce_key is not None, min_interval_s > 0, lane_of_head is not None)
    return int(session.connection().execute(insert, row | when).scalar_one())


def lane_of(kind: str) -> Lane:
    return "long" if kind in LONG_KINDS else "short"


def lane_of_head(session: Session, name: str) -> Lane:
    """A training of the head is as long as the workers announced."""
    return "long" if session.scalar(_LANE_OF_HEAD, {"head": name}) == "long" else "short"


def begin_anew(session: Session, job_id: int) -> None:
    """For a job that was just queued: where it was waiting for another try, it does not go on from the last one."""
    _delete(session, start_over(session, job_id))


@cache
def _insert(dialect: str, coalesces: bool, spaced: bool, as_its_head: bool) -> sa.Executable:
    """Made once: every call with labels queues a retraining, and making the statement cost more than running it."""
    on_postgresql = dialect == "postgresql"
    least, greatest = (sa.func.least, sa.func.greatest) if on_postgresql else (sa.func.min, sa.func.max)
    now = _CLOCKS[dialect]
    run_at = now + sa.bindparam("delay_s", type_=sa.Double())
    if spaced:
        last_start = sa.select(sa.func.max(Job.started_at)).where(
            Job.project_id == sa.bindparam("of_project", type_=sa.BigInteger),
            Job.kind == sa.bindparam("of_kind"),
        )
        interval: sa.ColumnElement[float] = sa.bindparam("min_interval_s", type_=sa.Double())
        run_at = greatest(run_at, sa.func.coalesce(last_start.scalar_subquery() + interval, 0.0))
    insert = (postgresql.insert if on_postgresql else sqlite.insert)(sa.inspect(Job).local_table)  # type: ignore[arg-type]
    insert = insert.values(run_at=run_at, created_at=now)
    if as_its_head:
        insert = insert.values(lane=sa.func.coalesce(_LANE_OF_HEAD.scalar_subquery(), "short"))
    if coalesces:
        new = insert.excluded
        insert = insert.on_conflict_do_update(
            index_elements=["coalesce_key"],
            index_where=sa.text("state = 'queued'"),
            set_={
                "payload": new.payload,
                "lane": new.lane,
                "needs": new.needs,
                "run_at": least(Job.run_at, new.run_at),
                "priority": greatest(Job.priority, new.priority),
                "attempts": 0,  # a new wish, not another try of the old one
                "max_attempts": new.max_attempts,
                "coalesced": Job.coalesced + 1,
            },
        )
    return insert.returning(Job.id)


def claim(
    engine: sa.Engine, worker: str, lanes: Sequence[str], lease_s: float, has: Collection[str] | None = None
) -> ClaimedJob | None:
    """Take a job whose lease ran out, else the best that is ready; None when there is none.

    has: what the worker has of what jobs need; None takes jobs whatever they need
    """
    while True:
        with read_session(engine) as session:  # an idle worker never takes SQLite's write lock
            wanted = _Wanted(lanes, None if has is None else _need_sets_met(session, lanes, has))
            if _next(session, wanted) is None:
                return None
        try:
            with write_session(engine) as session:
                row = _take(session, worker, wanted, lease_s)
        except sa.exc.IntegrityError:
            continue  # two claimers, one serial key: the unique index let the other one through
        if row is None:
            return None
        if row.state == "running":
            return ClaimedJob(
                row.id,
                row.project_id,
                row.kind,
                row.lane,
                row.payload,
                row.attempts,
                row.max_attempts,
                row.token,
                row.coalesce_key,
                row.serial_key,
                row.needs,
            )


@dataclass(frozen=True)
class _Wanted:
    """The jobs that a worker may take; need_sets: only those that need one of these, None for all."""

    lanes: Sequence[str]
    need_sets: list[tuple[str, ...]] | None

    @property
    def given(self) -> dict[str, Any]:
        return {"lanes": self.lanes, "need_sets": self.need_sets or []}


# As constants: with bound values SQLite would not use the partial indexes.
_QUEUED = Job.state == sa.literal_column("'queued'")
_RUNNING = Job.state == sa.literal_column("'running'")
_WORN_OUT = Job.attempts >= Job.max_attempts


def _need_sets_met(session: Session, lanes: Sequence[str], has: Collection[str]) -> list[tuple[str, ...]]:
    """Jobs are many, their different needs are few: found among the unfinished jobs, and compared here."""
    found = {needs for lane in lanes for needs in session.scalars(_need_sets(), {"in_lane": lane})}
    return sorted(needs for needs in found if set(needs).issubset(has))


@cache
def _need_sets() -> sa.Select[tuple[str, ...]]:
    """From one to the next along the index: a DISTINCT would read thousands of queued jobs at every look."""
    in_lane = Job.lane == sa.bindparam("in_lane")
    first = sa.select(sa.func.min(Job.needs).label("needs")).where(_QUEUED, in_lane)
    found = first.cte("found", recursive=True)
    greater = sa.select(sa.func.min(Job.needs)).where(_QUEUED, in_lane, Job.needs > found.c.needs)
    following = sa.select(greater.correlate(found).scalar_subquery()).where(found.c.needs.is_not(None))
    all_queued = found.union_all(following)
    return (
        sa.select(all_queued.c.needs)
        .where(all_queued.c.needs.is_not(None))
        .union(sa.select(Job.needs).where(_RUNNING, in_lane))  # type: ignore[return-value]
    )


def _next(session: Session, wanted: _Wanted, lock: bool = False) -> int | None:
    """The id of the job to take next: lost ones first, then by priority, then by time."""
    for query in _best(session.get_bind().dialect.name, wanted.need_sets is None, lock):
        found: int | None = session.scalar(query, wanted.given)
        if found is not None:
            return found
    return None


@cache
def _best(dialect: str, whatever_they_need: bool, lock: bool) -> tuple[sa.Select[int], sa.Select[int]]:
    """The best of the lost jobs, and of those that are ready. Made once: every worker looks several times a second, and
    making a statement costs more than running it.
    """
    in_lanes, busy, now = Job.lane.in_(sa.bindparam("lanes", expanding=True)), aliased(Job), _CLOCKS[dialect]
    fits = in_lanes & (
        sa.true() if whatever_they_need else Job.needs.in_(sa.bindparam("need_sets", expanding=True))
    )
    # One that only has to be ended is anybody's in its lane, whatever it needs.
    to_end = in_lanes & (Job.cancel_requested | _WORN_OUT)
    lost = sa.select(Job.id).where(_RUNNING, Job.lease_until < now, fits | to_end)
    free = ~sa.exists().where(busy.serial_key == Job.serial_key, busy.state == sa.literal_column("'running'"))
    ready = sa.select(Job.id).where(_QUEUED, fits, Job.run_at <= now, Job.serial_key.is_(None) | free)
    first = (each.order_by(Job.priority.desc(), Job.run_at, Job.id).limit(1) for each in (lost, ready))
    of_lost, of_ready = (each.with_for_update(skip_locked=True, of=Job) if lock else each for each in first)
    return of_lost, of_ready


def _take(session: Session, worker: str, wanted: _Wanted, lease_s: float) -> sa.Row[Any] | None:
    """Start the next job; one that was cancelled or lost too often ends instead (see the returned state)."""
    job_id = _next(session, wanted, lock=True)
    if job_id is None:
        return None
    now = clock(session)
    ends = sa.or_(Job.cancel_requested, _WORN_OUT)
    row = session.execute(
        sa.update(Job)
        .where(Job.id == job_id)
        .values(
            state=sa.case((Job.cancel_requested, "cancelled"), (_WORN_OUT, "failed"), else_="running"),
            error=sa.case((sa.and_(_WORN_OUT, ~Job.cancel_requested), SILENT), else_=Job.error),
            attempts=sa.case((ends, Job.attempts), else_=Job.attempts + 1),
            started_at=sa.case((ends, Job.started_at), else_=now),
            finished_at=sa.case((ends, now), else_=sa.null()),
            lease_until=sa.case((ends, sa.null()), else_=now + lease_s),
            token=Job.token + 1,
            worker=worker,
        )
        .returning(*sa.inspect(Job).columns)
        .execution_options(synchronize_session=False)
    ).one()
    if row.state == "failed":
        _tell_failed(session, row.id, row.project_id, row.kind, row.error)
    if row.state != "running":
        _give_up(session, row.id)
    return row


def heartbeat(
    engine: sa.Engine,
    job: ClaimedJob,
    lease_s: float,
    progress: float | None = None,
    message: str | None = None,
) -> None:
    """Renew the lease. Raises `LeaseLost`, or `Cancelled` when that was asked for."""
    values: dict[str, Any] = {}
    if progress is not None:
        values["progress"] = min(max(progress, 0.0), 1.0)
    if message is not None:
        values["message"] = message
    with write_session(engine) as session:
        row = session.execute(
            _update_own(job)
            .values(lease_until=clock(session) + lease_s, **values)
            .returning(Job.cancel_requested)
        ).one_or_none()
    if row is None:
        raise LeaseLost(job.id)
    if row.cancel_requested:
        raise Cancelled(job.id)


def fence(session: Session, job: ClaimedJob) -> None:
    """Call first in any transaction that publishes output. Locks the job's row; raises `LeaseLost`."""
    held = sa.select(Job.id).where(*_own(job)).with_for_update()
    if session.execute(held).one_or_none() is None:
        raise LeaseLost(job.id)


def progressed(session: Session, job: ClaimedJob) -> None:
    """In the transaction that stores a part of the output to go on from: the attempts count anew, because a job
    that gets on from attempt to attempt is not to be given up.
    """
    session.execute(_update_own(job).values(attempts=1))


def succeed(session: Session, job: ClaimedJob, result: dict[str, Any] | None = None) -> None:
    """In the transaction of the last output. Raises `LeaseLost`."""
    _end(session, job, "succeeded", result=result, progress=1.0, message=None, error=None)


def fail(engine: sa.Engine, job: ClaimedJob, error: str, retry: bool = True) -> None:
    """Queue the job again with a growing delay; after the last attempt, or without `retry`, it has failed."""
    error = error.replace("\0", "")[:ERROR_LENGTH]
    with read_session(engine) as session:
        attempts = session.scalar(sa.select(Job.attempts).where(*_own(job))) or job.attempts
    if retry and attempts < job.max_attempts:
        delay_s = min(RETRY_DELAY_S * 2 ** (attempts - 1), RETRY_DELAY_MAX_S)
        _queue_again(engine, job, delay_s=delay_s, error=error)
    else:
        with write_session(engine) as session:
            _end(session, job, "failed", error=error)
            _tell_failed(session, job.id, job.project_id, job.kind, error)


def release(engine: sa.Engine, job: ClaimedJob) -> None:
    """Hand the job back at once, as a worker that stops or a job that gives way; the attempt is not counted."""
    _queue_again(engine, job, delay_s=0.0, attempts=Job.attempts - 1)


def hand_back(engine: sa.Engine, job: ClaimedJob, needs: Iterable[str], lane: str, reason: str) -> None:
    """Queue the job again for a worker that has what it needs, in the lane where it belongs; the attempt is not
    counted.
    """
    corrected = (f"kind:{job.kind}", *needs)
    _queue_again(
        engine, job, delay_s=0.0, attempts=Job.attempts - 1, needs=corrected, lane=lane, message=reason
    )


def correct(session: Session, job_id: int, needs: Iterable[str], lane: Lane) -> None:
    """Correct the needs and the lane of a queued job; a started one stays as it is."""
    still_queued = sa.update(Job).where(Job.id == job_id, _QUEUED)
    session.execute(still_queued.values(needs=tuple(needs), lane=lane))


def mark_cancelled(engine: sa.Engine, job: ClaimedJob) -> None:
    with write_session(engine) as session:
        _end(session, job, "cancelled")


def request_cancel(session: Session, job_id: int) -> None:
    """A queued job is cancelled at once, a running one at its next heartbeat; an ended one stays as it is."""
    queued = Job.state == "queued"
    session.execute(
        sa.update(Job)
        .where(Job.id == job_id, Job.state.in_(("queued", "running")))
        .values(
            cancel_requested=True,
            state=sa.case((queued, "cancelled"), else_=Job.state),
            finished_at=sa.case((queued, clock(session)), else_=Job.finished_at),
        )
    )
    _give_up(session, job_id)


def unfinished(session: Session, lanes: Sequence[str], has: Collection[str] | None = None) -> bool:
    """True if a job runs, or is queued (also for later), that a worker which has this could take."""
    fits = sa.true() if has is None else Job.needs.in_(_need_sets_met(session, lanes, has))
    runs = sa.and_(_RUNNING, Job.lane.in_(lanes), Job.lease_until >= clock(session))
    waits = sa.and_(sa.or_(_QUEUED, _RUNNING), Job.lane.in_(lanes), fits)
    return bool(session.scalar(sa.select(sa.exists().where(sa.or_(runs, waits)))))


def others_first(session: Session, job: ClaimedJob, has: Collection[str] | None = None) -> bool:
    """True if a claim for the job's lane, by a worker that has this, would now take a job of higher priority."""
    wanted = _Wanted((job.lane,), None if has is None else _need_sets_met(session, (job.lane,), has))
    found = _next(session, wanted)
    if found is None:
        return False
    own = sa.select(Job.priority).where(Job.id == job.id).scalar_subquery()
    return bool(session.scalar(sa.select(Job.priority > own).where(Job.id == found)))


def purge(engine: sa.Engine, older_than_s: float) -> int:
    """Delete jobs that ended so long ago; returns how many."""
    with write_session(engine) as session:
        old = Job.finished_at < clock(session) - older_than_s
        ended = Job.state.in_(("succeeded", "failed", "cancelled"))
        deleted = session.execute(sa.delete(Job).where(ended, old).returning(Job.id))
        return len(deleted.all())


def _give_up(session: Session, job_id: int) -> None:
    """Delete checkpoints and shards that the job would have resumed from."""
    _delete(session, give_up(session, job_id))


def _delete(session: Session, folders: list[str]) -> None:
    if folders:
        enqueue(session, "delete_artifacts", {"folders": folders}, delay_s=NOTICED_S)


def _tell_failed(session: Session, job_id: int, project_id: int | None, kind: str, error: str) -> None:
    if project_id is not None:
        told = {"job": public_id("j", job_id), "kind": kind, "error": error}
        outbox.tell(session, project_id, "job.failed", told)


def _own(job: ClaimedJob) -> tuple[sa.ColumnElement[bool], ...]:
    return (Job.id == job.id, Job.token == job.token, Job.state == "running")


def _update_own(job: ClaimedJob) -> Any:
    return sa.update(Job).where(*_own(job)).execution_options(synchronize_session=False)


def _end(session: Session, job: ClaimedJob, state: str, **values: Any) -> None:
    statement = _update_own(job).values(state=state, finished_at=clock(session), lease_until=None, **values)
    if session.execute(statement.returning(Job.id)).one_or_none() is None:
        raise LeaseLost(job.id)
    if state != "succeeded":
        _give_up(session, job.id)


def _queue_again(engine: sa.Engine, job: ClaimedJob, *, delay_s: float, **values: Any) -> None:
    while True:
        try:
            with write_session(engine) as session:
                _queue_again_or_yield(session, job, delay_s, values)
            return
        except sa.exc.IntegrityError:
            continue  # a job of the same coalesce key was queued in between; look again


def _queue_again_or_yield(session: Session, job: ClaimedJob, delay_s: float, values: dict[str, Any]) -> None:
    if job.coalesce_key is not None:  # "= NULL" would match nothing, "IS NULL" all unkeyed jobs
        same_key = sa.select(Job.id).where(Job.coalesce_key == job.coalesce_key, Job.state == "queued")
        newer = session.scalar(same_key)
        if newer is not None:
            _end(
                session,
                job,
                "cancelled",
                **values | {"message": REPLACED},
            )
            return
    cancelled = Job.cancel_requested
    now = clock(session)
    statement = _update_own(job).values(
        state=sa.case((cancelled, "cancelled"), else_="queued"),
        finished_at=sa.case((cancelled, now), else_=sa.null()),
        run_at=now + delay_s,
        lease_until=None,
        **values,
    )
    if session.execute(statement.returning(Job.id)).one_or_none() is None:
        raise LeaseLost(job.id)
    _give_up(session, job.id)

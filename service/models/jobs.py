"""Jobs as people see them: listed, found, cancelled. What runs them is `service.store.jobs`."""

import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.orm import Session

from service.errors import JobEnded, NotFound
from service.store import jobs
from service.store.catalogue import live_workers
from service.store.ids import row_number
from service.store.tables import Job, Worker


def page(
    session: Session,
    *,
    only: int | None,
    project_id: int | None = None,
    kind: str | None = None,
    state: str | None = None,
    before: int | None = None,
    limit: int = 100,
) -> list[Job]:
    """Newest first; only: the one project a key may see."""
    query = sa.select(Job).order_by(Job.id.desc()).limit(limit)
    for column, value in (
        (Job.project_id, only),
        (Job.project_id, project_id),
        (Job.kind, kind),
        (Job.state, state),
    ):
        if value is not None:
            query = query.where(column == value)
    return list(session.scalars(query if before is None else query.where(Job.id < before)))


def find(session: Session, public: str, only: int | None) -> Job:
    job = session.get(Job, row_number("j", public))
    if job is None or only not in (None, job.project_id):
        raise NotFound(what="job", id=public)
    return job


def cancel(session: Session, job: Job) -> Job:
    """Raises `JobEnded`."""
    jobs.request_cancel(session, job.id)
    session.refresh(job)
    if not job.cancel_requested:
        raise JobEnded(state=job.state)
    return job


def eta_s(job: Job) -> float | None:
    """Seconds left if it goes on at the pace so far; None before there is a pace."""
    if job.state != "running" or job.started_at is None or job.progress < 0.01:
        return None
    return round(max(0.0, time.time() - job.started_at) * (1 / job.progress - 1), 1)


@dataclass(frozen=True)
class Waiting:
    """Jobs of a kind that no live worker can take."""

    kind: str
    waits_for: str


def waits_for(session: Session, found: Iterable[Job]) -> dict[int, str]:
    """By the number of the job, of those that no live worker can take: a sentence that says what must come."""
    waiting = [job for job in found if job.state == "queued" or _lost(job)]
    workers = live_workers(session) if waiting else []
    sentences = {job.id: _missing(job.lane, job.needs, workers) for job in waiting}
    return {number: sentence for number, sentence in sentences.items() if sentence is not None}


def waiting(session: Session, project_id: int | None) -> list[Waiting]:
    """The unmet needs that jobs of the project, or without one of any project, wait for: each once."""
    lost = sa.and_(Job.state == "running", Job.lease_until < jobs.clock(session))
    unfinished = sa.select(Job.kind, Job.lane, Job.needs).where(
        sa.true() if project_id is None else Job.project_id == project_id,
        sa.text("state IN ('queued', 'running')"),
        sa.or_(Job.state == "queued", lost),
    )
    different = session.execute(unfinished.distinct().order_by(Job.kind, Job.lane, Job.needs)).all()
    workers = live_workers(session) if different else []
    sentences = ((kind, _missing(lane, needs, workers)) for kind, lane, needs in different)
    return [Waiting(kind, sentence) for kind, sentence in sentences if sentence is not None]


def _lost(job: Job) -> bool:
    return job.state == "running" and (job.lease_until or 0.0) < time.time()


def _missing(lane: str, needs: Collection[str], workers: Sequence[Worker]) -> str | None:
    """None where one of the workers can take such a job."""
    serving = [worker for worker in workers if lane in worker.lanes]
    if any(set(needs).issubset(worker.has) for worker in serving):
        return None
    if not workers:
        return "a worker; none is alive. Start one with `shortlist worker`."
    if not serving:
        return f"a worker that serves the {lane} lane (SHORTLIST_LANES); {_none_of(workers, '')}."
    lacked_by_all = set(needs).difference(*(worker.has for worker in serving))
    wanted = " and ".join(sorted(lacked_by_all or needs))
    of_lane = f" of the {lane} lane" if len(serving) < len(workers) else ""
    return f"a worker that has {wanted}; {_none_of(serving, of_lane)}."


def _none_of(workers: Sequence[Worker], which: str) -> str:
    if len(workers) == 1:
        return f"the only live worker{which} does not"
    return f"none of the {len(workers)} live workers{which} does"

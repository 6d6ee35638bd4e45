"""Jobs as people see them: listed, found, cancelled. What runs them is `service.store.jobs`."""

import time

import sqlalchemy as sa
from sqlalchemy.orm import Session

from service.errors import JobEnded, NotFound
from service.store import jobs
from service.store.ids import row_number
from service.store.tables import Job


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
        (Job.project_id, only), (Job.project_id, project_id), (Job.kind, kind), (Job.state, state)
    ):  # fmt: skip
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

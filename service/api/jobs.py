from datetime import UTC, datetime
from typing import Any, Literal, Self

from fastapi import APIRouter, Response
from pydantic import Field
from sqlalchemy.orm import object_session

from service.http.dependencies import Admin, Reader, ReadSession, WriteSession
from service.http.etag import ETagRoute
from service.http.schemas import Answer, Cursor, Limit, Page, Text, decode_cursor, with_example
from service.models import jobs
from service.projects import projects
from service.store.ids import public_id
from service.store.tables import Job

router = APIRouter(prefix="/jobs", tags=["jobs"], route_class=ETagRoute)


class JobAnswer(Answer):
    """Long work. Ask again until `state` is succeeded, failed or cancelled."""

    model_config = with_example(
        {
            "id": "j_4",
            "kind": "score_pool",
            "state": "running",
            "progress": 0.4,
            "eta_s": 12.0,
            "message": "3,200 of 8,000 items",
            "waits_for": None,
        }
    )

    id: str
    project: str | None
    kind: str
    state: Literal["queued", "running", "succeeded", "failed", "cancelled"]
    progress: float
    message: str | None
    error: str | None
    result: dict[str, Any] | None
    attempts: int
    cancel_requested: bool
    created_at: datetime
    run_at: datetime  # a queued job starts no sooner
    started_at: datetime | None
    finished_at: datetime | None
    eta_s: float | None  # seconds left, by the progress so far
    waits_for: str | None = Field(description="of a job that no live worker can take: what must come")

    @classmethod
    def of(cls, job: Job, waits_for: dict[int, str]) -> Self:
        return cls(
            id=public_id("j", job.id),
            project=public_id("p", job.project_id) if job.project_id is not None else None,
            kind=job.kind,
            state=job.state,
            progress=job.progress,
            message=job.message,
            error=job.error,
            result=job.result,
            attempts=job.attempts,
            cancel_requested=job.cancel_requested,
            created_at=_time(job.created_at),
            run_at=_time(job.run_at),
            started_at=_time(job.started_at) if job.started_at is not None else None,
            finished_at=_time(job.finished_at) if job.finished_at is not None else None,
            eta_s=jobs.eta_s(job),
            waits_for=waits_for.get(job.id),
        )


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def accepted(job: Job, response: Response) -> JobAnswer:
    """The answer to a request for long work: 202, and where to look."""
    session = object_session(job)
    answer = JobAnswer.of(job, jobs.waits_for(session, [job]) if session is not None else {})
    response.status_code = 202
    response.headers["Location"] = f"/jobs/{answer.id}"
    return answer


@router.get("")
def list_jobs(
    session: ReadSession,
    caller: Reader,
    project: Text | None = None,
    kind: Text | None = None,
    state: Literal["queued", "running", "succeeded", "failed", "cancelled"] | None = None,
    cursor: Cursor = None,
    limit: Limit = 100,
) -> Page[JobAnswer]:
    """Jobs, newest first."""
    (position,) = decode_cursor(cursor, int) or (None,)
    found = jobs.page(
        session,
        only=caller.project_id,
        project_id=projects.find(session, project, caller.project_id).id if project is not None else None,
        kind=kind,
        state=state,
        before=position,
        limit=limit,
    )
    waits_for = jobs.waits_for(session, found)
    return Page.of(found, limit, lambda job: JobAnswer.of(job, waits_for), lambda last: (last.id,))


@router.get("/{job_id}")
def get_job(job_id: str, session: ReadSession, caller: Reader) -> JobAnswer:
    """One job, with its progress."""
    job = jobs.find(session, job_id, caller.project_id)
    return JobAnswer.of(job, jobs.waits_for(session, [job]))


@router.delete("/{job_id}")
def cancel_job(job_id: str, session: WriteSession, caller: Admin) -> JobAnswer:
    """Cancel: a queued job at once, a running one at its next sign of life. What it stored so far stays."""
    job = jobs.cancel(session, jobs.find(session, job_id, caller.project_id))
    return JobAnswer.of(job, jobs.waits_for(session, [job]))

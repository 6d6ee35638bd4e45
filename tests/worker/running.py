"""Jobs run in the test's own process, as the runner does."""

import importlib
from collections.abc import Callable

import sqlalchemy as sa

from service.content import contents
from service.settings import Settings
from service.store import jobs
from service.store.artifacts import Artifacts
from worker.jobs.context import JobContext


def claim(
    engine: sa.Engine,
    settings: Settings,
    artifacts: Artifacts,
    report: Callable[[float, str], None] = lambda fraction, message: None,
    kind: str | None = None,
) -> JobContext:
    """The next job, or the next of a kind."""
    has = None if kind is None else {f"kind:{kind}", *(f"modality:{name}" for name in contents())}
    job = jobs.claim(engine, "test", ("short", "long"), lease_s=600, has=has)
    assert job is not None
    return JobContext(job=job, settings=settings, engine=engine, artifacts=artifacts, report=report)


def run(context: JobContext) -> None:
    """Raises what the job raises; the job then is still running."""
    result = importlib.import_module(f"worker.jobs.{context.job.kind}").run(context)
    if not context.finished:
        with context.finish(result):
            pass


def hand_back(context: JobContext) -> None:
    """As after a crash: queued again, with everything that was stored."""
    jobs.release(context.engine, context.job)

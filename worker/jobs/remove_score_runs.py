"""Job remove_score_runs: the project's score runs that nothing needs any more lose their losses and artifacts.

Each scoring of new items makes a run of the whole pool. Kept are

- the run that is served, and the one before it, which jobs and exports may still be reading,
- the newest run of a pretext model that some project is served with or is being scored by: what it knows is copied,
- a run that a job may have opened that still runs; a later removal finds it.

The row of a removed run stays, for the rankings, heads and rounds that refer to it, and with what the gate said.
Its state changes first and the name of its artifact goes last, so that a removal that was interrupted is found, and
done again, by the next.
"""

from itertools import pairwise
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from service.store import pipeline
from service.store.tables import Duplicate, Job, Project, Score, ScoreRun, ScoreShard
from worker.jobs.context import JobContext

_ROWS_A_TRANSACTION = 20_000
_COMMITTED_S = 5.0  # after a job's end was noted, others see what it has served


def run(context: JobContext) -> dict[str, Any]:
    with context.publish() as session:
        numbers = _removed(session, context.job.project_id, context.job.id)
    for done, number in enumerate(numbers):
        context.report(done / len(numbers), f"removing {done + 1} of {len(numbers)} score runs")
        for table in (Score, Duplicate):
            while _delete_some(context, table, number):
                pass
        context.artifacts.delete(f"scores/{number}")
        with context.publish() as session:
            session.execute(sa.delete(ScoreShard).where(ScoreShard.score_run_id == number))
            session.get_one(ScoreRun, number).artifact = None
    return {"score_runs": len(numbers)}


def _removed(session: Session, project_id: int | None, job_id: int) -> list[int]:
    """The runs to remove, which from now on nobody opens."""
    stored = sa.select(ScoreRun).where(
        ScoreRun.project_id == project_id, ScoreRun.state != "running", ScoreRun.artifact.is_not(None)
    )
    runs = session.scalars(stored.order_by(ScoreRun.id)).all()
    complete = [each for each in runs if each.state == "complete"]
    newest = {each.pretext_model_id: each.id for each in complete}
    kept = {each.id for each in complete[-2:]} | {newest.get(number) for number in _models_in_use(session)}
    oldest_job = _oldest_start(session, project_id, job_id)
    for each, next_one in pairwise(complete):
        if each.id not in kept and _replaced_at(session, next_one) + _COMMITTED_S < oldest_job:
            each.state = "removed"
    return [each.id for each in runs if each.state == "removed"]


def _models_in_use(session: Session) -> set[int | None]:
    served = sa.select(ScoreRun.pretext_model_id).join(Project, Project.score_run_id == ScoreRun.id)
    return {*session.scalars(served), *session.scalars(pipeline.SCORING)}


def _oldest_start(session: Session, project_id: int | None, job_id: int) -> float:
    """The earliest start of the running jobs that may have a score run of the project open, in database seconds.

    A job opens what is served when it starts. The scoring of another project may copy from any; and the pretraining,
    which takes longest, opens none.
    """
    may_read = sa.or_(Job.project_id == project_id, Job.kind.in_(("score_pool", "score_own")))
    started = sa.select(sa.func.min(Job.started_at)).where(
        Job.state == "running", Job.id != job_id, Job.kind != "train_pretext", may_read
    )
    found = session.scalar(started)
    return float("inf") if found is None else found


def _replaced_at(session: Session, next_one: ScoreRun) -> float:
    """When a run was no longer served, because the next one was. Ended jobs are forgotten after some days."""
    found = session.scalar(sa.select(Job.finished_at).where(Job.id == next_one.job_id))
    return 0.0 if found is None else found


def _delete_some(context: JobContext, table: type[Score] | type[Duplicate], number: int) -> bool:
    """False when that were the last."""
    mine = table.score_run_id == number
    with context.publish() as session:
        ids = sa.select(table.item_id).where(mine).order_by(table.item_id)
        last = session.scalar(ids.offset(_ROWS_A_TRANSACTION - 1).limit(1))
        part = mine if last is None else sa.and_(mine, table.item_id <= last)
        session.execute(sa.delete(table).where(part).execution_options(synchronize_session=False))
    return last is not None

"""Clean-up after an aborted job: a pretext model that nobody trains any more says so, a score run that nobody fills any
more goes.
"""

import sqlalchemy as sa
from sqlalchemy.orm import Session

from service.store.tables import Job, PretextModel, ScoreRun


def give_up(session: Session, job_id: int) -> list[str]:
    """The pretext model that the job was training ends as the job did, `cancelled` or `failed`, and the score run that
    it was filling is deleted; nothing happens while the job may go on. Answers the folders of checkpoints and shards
    that nobody will go on from.
    """
    ended = sa.select(Job.state).where(Job.id == job_id, Job.state.in_(("cancelled", "failed")))
    state = session.scalar(ended)
    if state is None:
        return []
    mine = sa.delete(ScoreRun).where(ScoreRun.state == "running", ScoreRun.job_id == job_id)
    unscored = session.scalars(mine.returning(ScoreRun.id)).all()
    return [*_end(session, job_id, state), *(f"scores/{number}" for number in unscored)]


def start_over(session: Session, job_id: int) -> list[str]:
    """A new wish came while the job waited for another try: what it has trained so far was of the old wish, and of
    the settings and items of then. Answers as `give_up` does.
    """
    return _end(session, job_id, "cancelled")


def _end(session: Session, job_id: int, state: str) -> list[str]:
    mine = sa.select(PretextModel).where(
        PretextModel.state == "training", PretextModel.config["job"].as_integer() == job_id
    )
    folders = []
    for model in session.scalars(mine):
        model.state = state
        model.checkpoint = None
        folders.append(f"pretext/{model.id}")  # one may be written this very moment
    return folders

"""What a job leaves behind that ended before its end: a pretext model that nobody trains any more says so."""

import sqlalchemy as sa
from sqlalchemy.orm import Session

from service.store.tables import Job, PretextModel


def give_up(session: Session, job_id: int) -> None:
    """The pretext model that the job was training ends as the job did, `cancelled` or `failed`. Nothing happens
    while the job may go on.
    """
    ended = sa.select(Job.state).where(Job.id == job_id, Job.state.in_(("cancelled", "failed")))
    session.execute(
        sa.update(PretextModel)
        .where(
            PretextModel.state == "training",
            PretextModel.config["job"].as_integer() == job_id,
            ended.exists(),
        )
        .values(state=ended.scalar_subquery())
        .execution_options(synchronize_session=False)
    )

"""Numbers of rows that something outside the database is named by."""

import sqlalchemy as sa

from service.store.session import write_session
from service.store.tables import Job, PretextModel, Project, ScoreRun
from tests import factories


def test_a_number_is_never_given_twice(engine: sa.Engine) -> None:
    """A deleted project's folders are deleted a minute later: they must not be those of a new one by then."""
    found = []
    for name in ("deleted", "new"):
        with write_session(engine) as session:
            project = factories.make_project(session, name=name)
            run = factories.make_score_run(session, project=project)
            job = factories.make_job(session, project_id=project.id)
            found.append((project.id, run.id, run.pretext_model_id or 0, job.id))
        if name == "deleted":
            with write_session(engine) as session:
                for table in (Job, ScoreRun, PretextModel, Project):
                    session.execute(sa.delete(table))

    deleted, new = found
    assert all(after > before for before, after in zip(deleted, new, strict=True))

"""With which pretext model new items are scored."""

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from service.store import pipeline
from service.store.tables import Job, Project
from tests import factories


@pytest.fixture
def project(session: Session) -> Project:
    return factories.make_project(session)


def queued(session: Session) -> list[int]:
    """The pretext models of the scorings that wait."""
    jobs = session.scalars(sa.select(Job).where(Job.kind == "score_pool", Job.state == "queued"))
    return [job.payload["pretext_model_id"] for job in jobs]


def serve(session: Session, project: Project, version: int) -> int:
    model = factories.make_pretext_model(session, project=project, version=version)
    project.score_run_id = factories.make_score_run(session, project=project, pretext_model=model).id
    return model.id


def test_none_before_the_first_scoring(session: Session, project: Project) -> None:
    pipeline.queue_score_new_items(session, project)
    assert queued(session) == []


def test_the_one_that_is_served(session: Session, project: Project) -> None:
    model = serve(session, project, 1)
    pipeline.queue_score_new_items(session, project)
    assert queued(session) == [model]


def test_a_newer_one_that_waits_is_kept(session: Session, project: Project) -> None:
    served = serve(session, project, 1)
    newer = factories.make_pretext_model(session, project=project, version=2).id
    pipeline.queue_score_pool(session, project, newer)
    pipeline.queue_score_new_items(session, project)
    assert queued(session) == [newer] != [served]


@pytest.mark.parametrize("first", [True, False])
def test_a_newer_one_that_runs(session: Session, project: Project, first: bool) -> None:
    if not first:
        serve(session, project, 1)
    newer = factories.make_pretext_model(session, project=project, version=2).id
    pipeline.queue_score_pool(session, project, newer)
    session.execute(sa.update(Job).values(state="running"))
    pipeline.queue_score_new_items(session, project)
    assert queued(session) == [newer]


def test_what_waits_comes_after_what_runs(session: Session, project: Project) -> None:
    older, newer = (factories.make_pretext_model(session, project=project, version=n).id for n in (1, 2))
    pipeline.queue_score_pool(session, project, older)
    session.execute(sa.update(Job).values(state="running"))
    pipeline.queue_score_pool(session, project, newer)
    pipeline.queue_score_new_items(session, project)
    assert queued(session) == [newer]

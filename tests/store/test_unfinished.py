"""However a training ends, its pretext model says so, and its checkpoints go."""

from collections.abc import Callable

import pytest
import sqlalchemy as sa

from service.store import jobs
from service.store.pipeline import queue_train_pretext
from service.store.session import read_session, write_session
from service.store.tables import Job, PretextModel, Project
from tests.factories import make_pretext_model, make_project


def claim(engine: sa.Engine) -> jobs.ClaimedJob | None:
    return jobs.claim(engine, "w1", ("gpu",), lease_s=30)


def ask_to_cancel(engine: sa.Engine, job: jobs.ClaimedJob) -> None:
    with write_session(engine) as session:
        jobs.request_cancel(session, job.id)


def lose_lease(engine: sa.Engine, job: jobs.ClaimedJob, **values: int) -> None:
    with write_session(engine) as session:
        lost = sa.update(Job).where(Job.id == job.id)
        session.execute(lost.values(lease_until=Job.lease_until - 1000, **values))
    claim(engine)


def cancelled_while_it_ran(engine: sa.Engine, job: jobs.ClaimedJob) -> None:
    ask_to_cancel(engine, job)
    jobs.mark_cancelled(engine, job)


def cancelled_while_it_waited(engine: sa.Engine, job: jobs.ClaimedJob) -> None:
    jobs.release(engine, job)
    ask_to_cancel(engine, job)


def cancelled_before_it_was_to_wait(engine: sa.Engine, job: jobs.ClaimedJob) -> None:
    ask_to_cancel(engine, job)
    jobs.fail(engine, job, "no luck")


def cancelled_and_its_worker_lost(engine: sa.Engine, job: jobs.ClaimedJob) -> None:
    ask_to_cancel(engine, job)
    lose_lease(engine, job)


def failed(engine: sa.Engine, job: jobs.ClaimedJob) -> None:
    jobs.fail(engine, job, "no luck", retry=False)


def lost_too_often(engine: sa.Engine, job: jobs.ClaimedJob) -> None:
    lose_lease(engine, job, attempts=job.max_attempts)


def to_be_tried_again(engine: sa.Engine, job: jobs.ClaimedJob) -> None:
    jobs.fail(engine, job, "no luck")


def wish_again(engine: sa.Engine, job: jobs.ClaimedJob) -> int:
    with write_session(engine) as session:
        return queue_train_pretext(session, session.get_one(Project, job.project_id))


def wished_again_before_it_was_tried_again(engine: sa.Engine, job: jobs.ClaimedJob) -> None:
    jobs.fail(engine, job, "no luck")
    assert wish_again(engine, job) == job.id


def wished_again_while_it_ran(engine: sa.Engine, job: jobs.ClaimedJob) -> None:
    assert wish_again(engine, job) != job.id


def asked_to_cancel_only(engine: sa.Engine, job: jobs.ClaimedJob) -> None:
    ask_to_cancel(engine, job)


@pytest.mark.parametrize(
    ("happens", "state"),
    [
        (cancelled_while_it_ran, "cancelled"),
        (cancelled_while_it_waited, "cancelled"),
        (cancelled_before_it_was_to_wait, "cancelled"),
        (cancelled_and_its_worker_lost, "cancelled"),
        (wished_again_before_it_was_tried_again, "cancelled"),
        (failed, "failed"),
        (lost_too_often, "failed"),
        (to_be_tried_again, "training"),
        (wished_again_while_it_ran, "training"),
        (asked_to_cancel_only, "training"),
    ],
)
def test_the_model_ends_as_its_job_did(
    engine: sa.Engine, happens: Callable[[sa.Engine, jobs.ClaimedJob], None], state: str
) -> None:
    """Its folder is deleted when nobody writes to it any more."""
    with write_session(engine) as session:
        project = make_project(session)
        job_id = queue_train_pretext(session, project)
        config = {"image_size": 28, "seed": 0, "job": job_id}
        done = make_pretext_model(session, project=project, config=config)
        going_on = {"state": "training", "checkpoint": "pretext/1/checkpoints/1-1.pt"}
        mine = make_pretext_model(session, project=project, config=config, **going_on)
        config = config | {"job": job_id + 100}
        other = make_pretext_model(session, project=project, config=config, **going_on)
        numbers = [done.id, mine.id, other.id]
    job = claim(engine)
    assert job is not None

    happens(engine, job)

    with read_session(engine) as session:
        models = [session.get_one(PretextModel, number) for number in numbers]
        deletions = sa.select(Job.payload, Job.run_at - Job.created_at).where(Job.kind == "delete_artifacts")
        deleted = [(payload["folders"], round(delay)) for payload, delay in session.execute(deletions)]
    assert [model.state for model in models] == ["ready", state, "training"]
    ended = state != "training"
    assert [model.checkpoint is None for model in models] == [True, ended, False]
    assert deleted == ([([f"pretext/{numbers[1]}"], 60)] if ended else [])

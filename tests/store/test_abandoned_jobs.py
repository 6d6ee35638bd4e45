"""However a training ends, its pretext model says so, and its checkpoints go; so does a score run that is given up."""

from collections.abc import Callable
from functools import partial

import pytest
import sqlalchemy as sa

from service.store import jobs
from service.store.pipeline import queue_score_pool, queue_train_pretext
from service.store.session import read_session, write_session
from service.store.tables import Job, PretextModel, Project, Score, ScoreRun
from tests.factories import (
    make_item,
    make_pretext_model,
    make_project,
    make_score,
    make_score_run,
    make_score_shard,
)


def claim(engine: sa.Engine) -> jobs.ClaimedJob | None:
    return jobs.claim(engine, "w1", ("long",), lease_s=30)


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


@pytest.mark.parametrize(
    ("happens", "goes"),
    [(cancelled_while_it_ran, True), (failed, True), (lost_too_often, True), (to_be_tried_again, False)],
)
def test_a_score_run_that_nobody_completes_goes(
    engine: sa.Engine, happens: Callable[[sa.Engine, jobs.ClaimedJob], None], goes: bool
) -> None:
    with write_session(engine) as session:
        project = make_project(session)
        model = make_pretext_model(session, project=project)
        job_id = queue_score_pool(session, project, model.id)
        make = partial(make_score_run, session, project=project, pretext_model=model)
        done = make(job_id=job_id)
        mine = make(job_id=job_id, state="running", artifact=None)
        other = make(job_id=job_id + 100, state="running", artifact=None)
        make_score_shard(session, score_run=mine)
        make_score(session, score_run=mine, item=make_item(session, project=project))
        numbers = [done.id, mine.id, other.id]
    job = claim(engine)
    assert job is not None

    happens(engine, job)

    with read_session(engine) as session:
        left = list(session.scalars(sa.select(ScoreRun.id).order_by(ScoreRun.id)))
        scores = session.scalar(sa.select(sa.func.count(Score.item_id)))
        deletions = sa.select(Job.payload, Job.run_at - Job.created_at).where(Job.kind == "delete_artifacts")
        deleted = [(payload["folders"], round(delay)) for payload, delay in session.execute(deletions)]
    if goes:
        assert (left, scores) == ([numbers[0], numbers[2]], 0)
        assert deleted == [([f"scores/{numbers[1]}"], 60)]  # a shard may be written this very moment
    else:
        assert (left, scores, deleted) == (numbers, 1, [])

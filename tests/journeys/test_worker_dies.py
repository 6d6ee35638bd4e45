"""Workers are killed with -9 in the middle of their work. The next one takes over in time and repeats only what
was not stored. Nobody who labels notices."""

import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from service.store.ids import row_number
from service.store.pipeline import queue_rank
from service.store.session import read_session, write_session
from service.store.tables import Head, PretextModel, ScoreShard
from service.store.tables import Project as ProjectRow
from tests.journeys.images import write_images
from tests.journeys.site import Json, Project, Site, children, until

LEASE_S = 3.0
TAKEOVER_S = LEASE_S + 5.0
ITEMS, EPOCHS, SHARD_SIZE = 128, 10, 2
ROUND_SIZE, ROUNDS, MIN_LABELS = 3, 16, 12  # each closed round wants a head


@pytest.mark.timeout(900)
@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)  # the other journeys run on SQLite
def test_killed_in_pretraining_scoring_head_training_and_ranking(tmp_path: Path, database_url: str) -> None:
    with Site(tmp_path, database_url, lease_s=LEASE_S, shard_size=SHARD_SIZE) as site:
        site.start_service()
        # Of each lane two will die.
        site.start_workers(3, lanes="long")
        site.start_workers(3, lanes="short")
        project = Project(
            site, "killed", pretext_epochs=EPOCHS, round_size=ROUND_SIZE, retrain_min_labels=MIN_LABELS
        )
        project.add(write_images(site.images, ITEMS, ("red", "green")))
        project.label_batch("ann", ROUND_SIZE * ROUNDS)  # so many heads are wanted once there are scores
        site.post(f"{project.at}/pretrain")

        kill_in_pretraining(project)
        kill_in_scoring(project)
        kill_in_head_training(project)
        kill_in_ranking(project)
        assert len(site.workers) == 2


def kill_in_pretraining(project: Project) -> None:
    def history() -> list[Any]:
        found = rows(project, sa.select(PretextModel.history))
        return found[0].history if found else []

    job = kill(project, until(lambda: running(project, "train_pretext") if len(history()) >= 2 else None))
    stored = history()
    assert len(stored) < EPOCHS
    taken_over(project, job)
    assert len(history()) == EPOCHS
    assert history()[: len(stored)] == stored  # speeds and all: these epochs were not trained again


def kill_in_scoring(project: Project) -> None:
    def shards() -> dict[str, int]:
        """Artifact -> when it was written."""
        root = project.site.data_dir / "artifacts"
        found = rows(project, sa.select(ScoreShard.artifact))
        return {name: (root / name).stat().st_mtime_ns for (name,) in found}

    job = kill(project, until(lambda: running(project, "score_pool") if len(shards()) >= 3 else None))
    stored = shards()
    assert len(stored) < ITEMS / SHARD_SIZE
    taken_over(project, job)
    assert stored.items() < shards().items()
    assert project.metrics()["score_run"]["items"] == ITEMS


def kill_in_head_training(project: Project) -> None:
    """A head of so few labels is there in milliseconds: the runners get a moment at a time, and are looked at while
    they stand still."""
    heads = (
        sa.select(Head.version, Head.round_number, Head.artifact, Head.created_at)
        .where(Head.round_number.is_not(None))  # one on all labels may stand between them
        .order_by(Head.version)
    )
    project.settle()
    before = len(rows(project, heads))
    pause(project, signal.SIGSTOP)  # nothing runs, so no lease runs out meanwhile
    for _ in range(ROUNDS):
        project.label_batch("ann", ROUND_SIZE)

    def under_way() -> Json | None:
        pause(project, signal.SIGCONT)
        time.sleep(0.02)
        pause(project, signal.SIGSTOP)
        return running(project, "train_head") if len(rows(project, heads)) >= before + 2 else None

    job = kill(project, until(under_way))
    stored = rows(project, heads)
    pause(project, signal.SIGCONT)
    measurable = list(range(MIN_LABELS // ROUND_SIZE, 2 * ROUNDS + 1))
    assert len(stored) < len(measurable)
    taken_over(project, job)
    after = rows(project, heads)
    assert after[: len(stored)] == stored
    assert [row.round_number for row in after] == measurable  # each once
    assert project.metrics()["head"]["labels_used"] == 2 * ROUND_SIZE * ROUNDS


def kill_in_ranking(project: Project) -> None:
    """It takes no time on so few items, so runners are held still until one has it."""
    project.settle()
    before = project.metrics()["ranking"]["version"]
    pause(project, signal.SIGSTOP)
    with write_session(project.site.engine) as session:
        queue_rank(session, session.get_one(ProjectRow, row_number("p", project.json["id"])))
    job = kill(project, until(lambda: running(project, "rank")))
    pause(project, signal.SIGCONT)
    taken_over(project, job)
    assert project.metrics()["ranking"]["version"] == before + 1


def pause(project: Project, with_signal: signal.Signals) -> None:
    """Stop every runner of the workers that live, or let them go on."""
    for worker in project.site.workers:
        for pid in children(worker.pid):
            os.kill(pid, with_signal)


def running(project: Project, kind: str) -> Json | None:
    """The project's job of this kind that a worker is at, if there is one."""
    return next((job for job in project.site.jobs(project.json, kind) if job["state"] == "running"), None)


def kill(project: Project, job: Json) -> tuple[Json, float]:
    """The worker that runs the job; the job, and the time."""
    project.site.kill(project.site.worker_of(job))
    return job, time.monotonic()


def taken_over(project: Project, killed: tuple[Json, float]) -> None:
    """By another worker, in time, and seen to its end; batches are served all the while."""
    job, at = killed
    assert project.next_batch("bob")["items"]

    def again() -> bool:
        found = project.site.get(f"/jobs/{job['id']}")
        return bool(found["attempts"] == 2)

    until(again)
    assert time.monotonic() - at <= TAKEOVER_S
    project.site.done(
        job
    )  # how soon depends on the machine; that little is left to do is seen in what is stored


def rows(project: Project, query: sa.Executable) -> Sequence[Any]:
    with read_session(project.site.engine) as session:
        return session.execute(query).all()

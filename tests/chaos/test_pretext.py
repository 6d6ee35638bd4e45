"""A real worker is killed in pretraining and in scoring: the next one repeats only what was not stored."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from service.settings import Settings
from service.store.pipeline import queue_train_pretext
from service.store.session import read_session, write_session
from service.store.tables import Job, PretextModel, Project, ScoreRun, ScoreShard
from tests.factories import make_item, make_project
from tests.pictures import write_pictures
from tests.worker.processes import REPOSITORY, environment, wait_until

T = TypeVar("T")
ITEMS = 160
EPOCHS = 60


@contextmanager
def worker(settings: Settings, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "worker", *arguments]
    process = subprocess.Popen(command, env=environment(settings), cwd=REPOSITORY)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_killed_in_pretraining_and_in_scoring(engine: sa.Engine, settings: Settings, tmp_path: Path) -> None:
    settings = settings.model_copy(update={"lease_s": 2.0, "shard_size": 4})
    write_pictures(tmp_path / "pool", ITEMS)
    with write_session(engine) as session:
        project = make_project(session, settings={"pretext_epochs": EPOCHS})
        for path in sorted((tmp_path / "pool").iterdir()):
            make_item(session, project=project, key=path.name, uri=str(path), width=12, height=12)
        queue_train_pretext(session, project)

    def see(look: Callable[[Session], T]) -> T:
        with read_session(engine) as session:
            return look(session)

    def history(session: Session) -> list[dict[str, float]]:
        return session.scalar(sa.select(PretextModel.history)) or []

    def shards(session: Session) -> set[str]:
        return set(session.scalars(sa.select(ScoreShard.artifact)))

    with worker(settings) as first:
        wait_until(lambda: len(see(history)) >= 3, timeout_s=90)
        first.kill()
        first.wait()
    trained_before = see(history)
    assert len(trained_before) < EPOCHS

    with worker(settings) as second:
        wait_until(lambda: len(see(shards)) >= 3, timeout_s=90)
        second.kill()
        second.wait()
    scored_before = see(shards)
    assert len(scored_before) < ITEMS / settings.shard_size

    with worker(settings, "--until-idle") as third:
        assert third.wait(timeout=90) == 0

    after = see(history)
    assert len(after) == EPOCHS
    assert (
        after[: len(trained_before)] == trained_before
    )  # speeds and all: these epochs were not trained again
    assert scored_before < see(shards)
    assert see(lambda session: session.scalars(sa.select(ScoreRun.state)).all()) == ["complete"]
    assert see(lambda session: session.scalars(sa.select(Project.score_run_id)).all()) != [None]
    attempts = sa.select(Job.kind, Job.state, Job.attempts).where(
        Job.kind.in_(("train_pretext", "score_pool"))
    )
    assert set(map(tuple, see(lambda session: session.execute(attempts).all()))) == {
        ("train_pretext", "succeeded", 2),
        ("score_pool", "succeeded", 2),
    }

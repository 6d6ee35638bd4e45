"""A real worker is killed in pretraining and in scoring: the next one repeats only what was not stored."""

import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from service.settings import Settings
from service.store.pipeline import queue_train_pretext
from service.store.session import read_session, write_session
from service.store.tables import Item, Job, PretextModel, Project, Score, ScoreRun, ScoreShard
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
            make_item(
                session, project=project, key=path.name, uri=str(path), facts={"width": 12, "height": 12}
            )
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
    ended = sa.select(Job.kind, Job.state).where(Job.kind.in_(("train_pretext", "score_pool")))
    assert set(map(tuple, see(lambda session: session.execute(ended).all()))) == {
        ("train_pretext", "succeeded"),
        ("score_pool", "succeeded"),
    }


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_killed_at_random_moments_the_result_is_the_same(
    engine: sa.Engine, settings: Settings, tmp_path: Path
) -> None:
    """SHORTLIST_TEST_KILLS=20 kills more often than the few times that fit into every run of the tests."""
    settings = settings.model_copy(update={"lease_s": 2.0, "shard_size": 8, "checkpoint_interval_s": 0.01})
    kills, rng = int(os.environ.get("SHORTLIST_TEST_KILLS", "2")), random.Random(0)
    write_pictures(tmp_path / "pool", ITEMS)
    with write_session(engine) as session:
        for name in ("undisturbed", "killed"):
            project = make_project(session, name=name, settings={"pretext_epochs": 4 * kills})
            for path in sorted((tmp_path / "pool").iterdir()):
                make_item(
                    session, project=project, key=path.name, uri=str(path), facts={"width": 12, "height": 12}
                )

    def pretrain(name: str) -> int:
        with write_session(engine) as session:
            project = session.scalars(sa.select(Project).where(Project.name == name)).one()
            queue_train_pretext(session, project)
            return project.id

    def losses(project_id: int) -> dict[str, float]:
        scores = (
            sa.select(Item.key, Score.pretext_loss)
            .join(Score, Score.item_id == Item.id)
            .where(Item.project_id == project_id)
        )
        with read_session(engine) as session:
            return {row.key: row.pretext_loss for row in session.execute(scores)}

    expected_of = pretrain("undisturbed")
    with worker(settings, "--until-idle") as whole:
        assert whole.wait(timeout=200) == 0
    found_of = pretrain("killed")

    def stored() -> str:
        """What the killed project's jobs have stored so far."""
        with read_session(engine) as session:
            model = sa.select(PretextModel.checkpoint).where(PretextModel.project_id == found_of)
            shards = sa.select(sa.func.count()).select_from(ScoreShard).join(ScoreRun)
            return f"{session.scalars(model).first()} {session.scalar(shards.where(ScoreRun.project_id == found_of))}"

    def scored() -> bool:
        with read_session(engine) as session:
            return session.get_one(Project, found_of).score_run_id is not None

    def changed(before: str) -> bool:
        return stored() != before

    for _ in range(kills):
        before, moment = stored(), rng.random() * 0.5
        assert not scored(), "it ended before it was killed so often"
        with worker(settings) as victim:
            wait_until(partial(changed, before), timeout_s=180)
            time.sleep(moment)  # random, as the test's name says; nothing is waited for
            victim.kill()
            victim.wait()
    with worker(settings, "--until-idle") as last:
        assert last.wait(timeout=200) == 0

    expected, found = losses(expected_of), losses(found_of)
    assert len(expected) == ITEMS
    assert expected.keys() == found.keys()
    assert max(abs(expected[key] - found[key]) for key in expected) < 1e-4

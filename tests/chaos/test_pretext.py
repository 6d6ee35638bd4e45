"""A real worker is killed again and again in pretraining and in scoring: nothing else comes of it."""

import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
import sqlalchemy as sa

from service.settings import Settings
from service.store.pipeline import queue_train_pretext
from service.store.session import read_session, write_session
from service.store.tables import Item, PretextModel, Project, Score, ScoreRun, ScoreShard
from tests.factories import make_item, make_project
from tests.pictures import write_pictures
from tests.worker.processes import REPOSITORY, environment, wait_until

ITEMS = 160


@contextmanager
def worker(settings: Settings, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "worker", *arguments]
    # Its long lane gives way to all of its session, here to other tests.
    process = subprocess.Popen(command, env=environment(settings), cwd=REPOSITORY, start_new_session=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_killed_at_random_moments_the_result_is_the_same(
    engine: sa.Engine, settings: Settings, tmp_path: Path
) -> None:
    """SHORTLIST_TEST_KILLS=20 kills more often than the few times that fit into every run of the tests."""
    settings = settings.model_copy(
        update={"lease_s": 2.0, "shard_size": 8, "checkpoint_interval_s": 0.01, "lanes": ("long",)}
    )
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

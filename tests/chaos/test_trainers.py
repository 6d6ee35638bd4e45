"""A worker that pretrains on two devices is killed with -9: nothing it started lives on, and another goes on."""

from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from service.settings import Settings
from service.store.pipeline import queue_train_pretext
from service.store.session import read_session, write_session
from service.store.tables import PretextModel
from tests.chaos.test_pretext import worker
from tests.factories import make_item, make_project
from tests.pictures import write_pictures
from tests.worker.processes import alive, descendants, wait_until

EPOCHS = 20


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_killed_worker_takes_its_trainers_along(
    engine: sa.Engine, settings: Settings, tmp_path: Path
) -> None:
    """The next worker has one device: a checkpoint is good for any number."""
    settings = settings.model_copy(update={"lease_s": 4.0, "lanes": ("long",)})
    write_pictures(tmp_path / "pool", 24)
    with write_session(engine) as session:
        project = make_project(session, settings={"pretext_epochs": EPOCHS})
        for path in sorted((tmp_path / "pool").iterdir()):
            make_item(
                session, project=project, key=path.name, uri=str(path), facts={"width": 12, "height": 12}
            )
        queue_train_pretext(session, project)

    def history() -> list[dict[str, Any]]:
        with read_session(engine) as session:
            return session.scalar(sa.select(PretextModel.history)) or []

    with worker(settings.model_copy(update={"devices": 2})) as first:
        wait_until(lambda: len(history()) >= 2, timeout_s=150)
        started = descendants(first.pid)
        first.kill()
        first.wait()
    assert len(started) == 4  # the runner, torchrun and two trainers
    wait_until(lambda: not any(map(alive, started)))
    trained_before = history()
    assert len(trained_before) < EPOCHS

    with worker(settings, "--until-idle") as second:
        assert second.wait(timeout=150) == 0
    after = history()
    assert len(after) == EPOCHS
    assert after[: len(trained_before)] == trained_before

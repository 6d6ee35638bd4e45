"""Pools that do not fit into memory: decoded once, read the same from the cache, while the disk has room."""

import errno
import os
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
import torch

from service.content.reader import content_hash_of
from service.settings import Settings
from service.store.artifacts import Artifacts
from service.store.pipeline import queue_score_pool, queue_train_pretext
from service.store.session import read_session, write_session
from service.store.tables import Item, Project
from tests.factories import make_item, make_pretext_model, make_project
from tests.pictures import write_pictures
from tests.worker.running import claim, run
from worker.jobs.context import JobContext
from worker.jobs.specs import cache_names, spec_of, store_net
from worker.jobs.train_pretext.pool import TrainingPool
from worker.modalities.image import Image
from worker.models.nets import new_net
from worker.pool.cache_room import PoolCache, caches_of
from worker.pool.decoded_cache import DecodedCache
from worker.pool.reader import Decoded, ItemReader

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
SIDE = 12
ITEMS = Image(image_size=SIDE)


class Pool:
    """Seven pictures, one of which cannot be read. `decoded` counts what was."""

    def __init__(
        self,
        engine: sa.Engine,
        settings: Settings,
        artifacts: Artifacts,
        folder: Path,
        patch: pytest.MonkeyPatch,
    ) -> None:
        self.engine, self.artifacts = engine, artifacts
        self.settings = settings.model_copy(update={"memory_cache_bytes": 0})
        paths = sorted(write_pictures(folder, 7, width=SIDE, height=SIDE).iterdir())
        paths[2].write_bytes(b"no picture")
        with write_session(engine) as session:
            project = make_project(session, settings={"pretext_epochs": 2})
            for path in paths:
                make_item(
                    session,
                    project=project,
                    key=path.name,
                    uri=str(path),
                    content_hash=content_hash_of(path.read_bytes()),
                )
            self.project_id = project.id
        self.decoded: list[str] = []
        decode = ItemReader._decode

        def counting(this: ItemReader, uri: str, *more: Any) -> Decoded:
            self.decoded.append(Path(uri).name)
            return decode(this, uri, *more)

        patch.setattr(ItemReader, "_decode", counting)

    def context(self, **settings: int) -> JobContext:
        with write_session(self.engine) as session:
            queue_train_pretext(session, session.get_one(Project, self.project_id))
        return claim(self.engine, self.settings.model_copy(update=settings), self.artifacts)

    def epoch(self, context: JobContext) -> list[torch.Tensor]:
        """The batches of a training's first epoch, and twice: the second time nothing may be new."""
        with ItemReader(context.settings) as reader:
            dataset = TrainingPool(context, reader, seed=0).dataset(ITEMS, lambda part, message: None)
            first = list(dataset.batches(seed=0, epoch=0, batch_size=3))
            again = list(dataset.batches(seed=0, epoch=0, batch_size=3))
        assert all(torch.equal(one, other) for one, other in zip(first, again, strict=True))
        return first

    def files(self) -> list[Path]:
        return sorted(caches_of(self.settings).rglob("*.items"))


@pytest.fixture
def pool(
    engine: sa.Engine,
    settings: Settings,
    artifacts: Artifacts,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Pool:
    return Pool(engine, settings, artifacts, tmp_path / "pool", monkeypatch)


def test_a_mapped_pool_gives_what_a_streamed_one_gives_and_is_decoded_once(pool: Pool) -> None:
    context = pool.context()
    streamed = pool.epoch(
        replace(context, settings=pool.settings.model_copy(update={"decoded_cache_bytes": 0}))
    )
    assert not pool.files()
    assert len(pool.decoded) == 14
    pool.decoded.clear()

    mapped = pool.epoch(context)

    assert len(pool.files()) == 1
    assert sorted(pool.decoded) == sorted([f"{number:05}.png" for number in range(7)] + ["00002.png"] * 2)
    assert [len(batch) for batch in mapped] == [len(batch) for batch in streamed]
    assert all(torch.equal(one, other) for one, other in zip(mapped, streamed, strict=True))


def test_the_next_job_and_scoring_read_the_same_map(pool: Pool) -> None:
    context = pool.context()
    pool.epoch(context)
    with write_session(pool.engine) as session:
        project = session.get_one(Project, pool.project_id)
        config = {"image_size": SIDE, "seed": 0, "pretrained": False}
        model = make_pretext_model(session, project=project, config=config, artifact="m.safetensors")
        store_net(new_net(spec_of(model)), model, pool.artifacts, "m.safetensors")
        first = session.scalars(sa.select(Item).order_by(Item.id)).first()
        assert first is not None
        first.content_hash = None  # never decoded by who registered it: its hash is to be found out
        queue_score_pool(session, project, model.id)
        session.execute(sa.text("DELETE FROM jobs WHERE kind = 'train_pretext'"))
    pool.decoded.clear()

    run(claim(pool.engine, pool.settings, pool.artifacts))

    assert pool.decoded[:2] == ["00000.png", "00002.png"]  # then duplicates are looked for
    assert pool.decoded[2:] == [f"{number:05}.png" for number in (0, 1, 3, 4, 5, 6)]
    with read_session(pool.engine) as session:
        states = [item.state for item in session.scalars(sa.select(Item).order_by(Item.id))]
    assert states == ["available"] * 2 + ["quarantined"] + ["available"] * 4


def test_what_a_killed_worker_was_writing_goes(pool: Pool) -> None:
    context = pool.context()
    with ItemReader(pool.settings) as reader:
        unfinished = PoolCache(pool.settings, cache_names(context), reader, ITEMS).cache.folder / "0.1234.tmp"
    unfinished.parent.mkdir(parents=True)
    unfinished.write_bytes(b"pixels")

    pool.epoch(context)

    assert list(unfinished.parent.iterdir()) == pool.files()


def test_an_item_that_has_moved_is_decoded_anew(pool: Pool, tmp_path: Path) -> None:
    context = pool.context()
    pool.epoch(context)
    moved = tmp_path / "moved.png"
    moved.write_bytes((tmp_path / "pool" / "00006.png").read_bytes())
    with write_session(pool.engine) as session:
        session.execute(sa.update(Item).where(Item.key == "00000.png").values(uri=str(moved)))
    pool.decoded.clear()

    pool.epoch(context)

    assert set(pool.decoded) == {"moved.png", "00002.png"}


@pytest.mark.parametrize("reason", [errno.ENOSPC, errno.ENOENT])
def test_a_disk_that_fills_up_leaves_a_pool_that_is_streamed(
    reason: int, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So does another worker that takes the room for another project's map."""

    def full(*_: object) -> None:
        raise OSError(reason, os.strerror(reason))

    monkeypatch.setattr(DecodedCache, "write", full)

    assert sum(map(len, pool.epoch(pool.context()))) == 6
    assert not pool.files()


@pytest.mark.parametrize(
    "usage",
    [
        SimpleNamespace(total=10**9, free=9 * 10**7),  # of the tenth that is left free
        SimpleNamespace(total=10**12, free=9 * 2**30),  # of a large disk 10 GiB are
    ],
)
def test_without_room_nothing_is_begun_and_nothing_removed(
    usage: SimpleNamespace, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = pool.context()
    with ItemReader(pool.settings) as reader:
        other = PoolCache(pool.settings, cache_names(context), reader, Image(image_size=9)).cache.folder
    other.mkdir(parents=True)
    (other / "0.items").write_bytes(b"pixels")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)

    assert sum(map(len, pool.epoch(context))) == 6
    assert [path.parent.name for path in pool.files()] == [other.name]


def test_room_is_made_by_what_is_stale_and_what_was_not_used_for_longest(pool: Pool) -> None:
    context = pool.context(decoded_cache_bytes=2 * 2**20)
    pool.epoch(context)
    (mine,) = pool.files()
    project, root = mine.parent.parent, caches_of(pool.settings)
    for folder, age in ((root / "99-gone" / "12", 0), (project / "40", 200), (project / "41", 100)):
        folder.mkdir(parents=True)
        (folder / "0.items").write_bytes(np.random.default_rng(0).bytes(2**20 - 2**13))
        os.utime(folder, (1_000_000 - age, 1_000_000 - age))

    with write_session(pool.engine) as session:
        make_item(session, project=session.get_one(Project, pool.project_id), uri=str(mine))
    pool.epoch(context)

    assert not (root / "99-gone").exists()
    assert sorted(path.parent.name for path in pool.files()) == sorted([mine.parent.name, "41"])

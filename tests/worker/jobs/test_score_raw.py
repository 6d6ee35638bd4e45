"""The provisional score run: made of what can be read, grouped, and never put in the place of a pretext model's."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from service.content.reader import content_hash_of
from service.store.pipeline import queue_score_pool, queue_score_raw
from service.store.session import read_session, write_session
from service.store.tables import Duplicate, Item, Job, PretextModel, Project, ScoreRun
from tests.factories import make_item, make_pretext_model, make_project, make_score_run
from tests.pictures import write_pictures
from tests.worker.jobs.scored_projects import Bench
from tests.worker.running import claim, run
from worker.arrays import Ints
from worker.jobs import score_raw
from worker.jobs.specs import item_refs
from worker.pool.items import ItemRef
from worker.scoring.scored_items import ScoredItems

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


class Pool:
    def __init__(self, bench: Bench, folder: Path) -> None:
        self.bench, self.folder = bench, folder
        with write_session(bench.engine) as session:
            self.id = make_project(session, settings={"backbone": "small"}).id

    def add(self, count: int, first: int = 0, **values: Any) -> list[int]:
        """Ids of the items of so many pictures, each another."""
        write_pictures(self.folder, count, first)
        with write_session(self.bench.engine) as session:
            project = session.get_one(Project, self.id)
            return [
                make_item(
                    session,
                    project=project,
                    key=f"{number}",
                    uri=str(path),
                    content_hash=content_hash_of(path.read_bytes()),
                    **values,
                ).id
                for number in range(first, first + count)
                for path in (self.folder / f"{number:05}.png",)
            ]

    def score(self, model: int | None = None, scoring: str = "running") -> dict[str, Any]:
        """The result of the job; beside it is the scoring by that pretext model, queued or running."""
        with write_session(self.bench.engine) as session:
            session.execute(sa.delete(Job))
            project = session.get_one(Project, self.id)
            queue_score_raw(session, project)
            if model is not None:
                session.get_one(Job, queue_score_pool(session, project, model)).state = scoring
        run(claim(self.bench.engine, self.bench.settings, self.bench.artifacts, kind="score_raw"))
        with read_session(self.bench.engine) as session:
            job = session.scalars(sa.select(Job).where(Job.kind == "score_raw")).one()
            assert job.state == "succeeded", job.error
            return dict(job.result or {})

    def served(self) -> ScoreRun | None:
        with read_session(self.bench.engine) as session:
            return session.get(ScoreRun, session.get_one(Project, self.id).score_run_id or 0)

    def queued(self) -> set[str]:
        with read_session(self.bench.engine) as session:
            return set(session.scalars(sa.select(Job.kind).where(Job.state == "queued")))


@pytest.fixture
def pool(bench: Bench, tmp_path: Path) -> Pool:
    return Pool(bench, tmp_path / "pool")


def test_the_run_has_embeddings_no_losses_and_is_ranked(pool: Pool) -> None:
    ids = pool.add(20)
    result = pool.score()

    served = pool.served()
    assert served is not None
    assert (served.pretext_model_id, served.state, served.items) == (None, "complete", 20)
    assert (result["items"], result["pool"]) == (20, 20)
    scored = ScoredItems.open(pool.bench.artifacts, str(served.artifact))
    assert scored.ids.tolist() == ids
    assert len(np.unique(scored.embeddings.astype(np.float32), axis=0)) == 20
    assert not scored.losses.any()
    assert "rank" in pool.queued()


def test_what_cannot_be_read_is_left_out(pool: Pool) -> None:
    ids = pool.add(6)
    (pool.folder / "00002.png").write_bytes(b"not a picture any more")
    (pool.folder / "00004.png").unlink()
    assert pool.score()["items"] == 4

    served = pool.served()
    assert served is not None
    scored = ScoredItems.open(pool.bench.artifacts, str(served.artifact))
    assert scored.ids.tolist() == [ids[0], ids[1], ids[3], ids[5]]


def test_equal_bytes_are_one_group(pool: Pool) -> None:
    first = pool.add(5)[0]
    copy = pool.folder / "copy.png"
    copy.write_bytes((pool.folder / "00000.png").read_bytes())
    with write_session(pool.bench.engine) as session:
        project = session.get_one(Project, pool.id)
        twin = make_item(
            session,
            project=project,
            key="copy",
            uri=str(copy),
            content_hash=content_hash_of(copy.read_bytes()),
        ).id
    assert pool.score()["duplicates"] == 1
    with read_session(pool.bench.engine) as session:
        (row,) = session.scalars(sa.select(Duplicate)).all()
    assert (row.item_id, row.duplicate_of_id) == (twin, first)


def test_of_a_large_pool_a_random_part_and_all_that_is_labeled(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(score_raw, "POOL", 8)
    monkeypatch.setattr(score_raw, "TEST", 2)
    pool.add(30)
    labeled = pool.add(3, first=30, state="done")
    pool.add(5, first=33, split="test")
    result = pool.score()
    assert 8 <= result["pool"] <= 11
    assert result["items"] == result["pool"] + 2
    served = pool.served()
    assert served is not None
    ids = ScoredItems.open(pool.bench.artifacts, str(served.artifact)).ids
    assert set(labeled) <= set(ids.tolist())
    with read_session(pool.bench.engine) as session:
        of_pool = sa.select(Item.id).where(Item.split == "pool").order_by(Item.shuffle).limit(8)
        assert set(session.scalars(of_pool)) <= set(ids.tolist())


def test_a_pretext_models_run_is_never_replaced(pool: Pool) -> None:
    pool.add(4)
    with write_session(pool.bench.engine) as session:
        project = session.get_one(Project, pool.id)
        model = make_pretext_model(session, project=project)
        served = make_score_run(session, project=project, pretext_model=model)
        project.score_run_id = served.id
        expected = served.id
    assert pool.score() == {"items": 0, "note": score_raw.NOT_NEEDED}
    found = pool.served()
    assert found is not None
    assert found.id == expected


def test_it_stops_reading_when_a_pretext_models_run_came(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(score_raw, "_READ_AT_A_TIME", 2)
    pool.add(8)
    looked_up = []

    def comes_meanwhile(session: Session, ids: Ints) -> list[ItemRef]:
        looked_up.append(ids)
        if len(looked_up) == 2:
            with write_session(pool.bench.engine) as other:
                project = other.get_one(Project, pool.id)
                model = make_pretext_model(other, project=project)
                project.score_run_id = make_score_run(other, project=project, pretext_model=model).id
        return item_refs(session, ids)

    monkeypatch.setattr(score_raw, "item_refs", comes_meanwhile)
    assert pool.score() == {"items": 0, "note": score_raw.NOT_NEEDED}
    assert len(looked_up) < 4
    with read_session(pool.bench.engine) as session:
        assert session.scalar(sa.select(sa.func.count()).select_from(ScoreRun)) == 1


def test_it_leaves_a_pool_alone_that_a_lent_model_has_scored_elsewhere(pool: Pool) -> None:
    """The copies are there as soon as it would be, and both would share the cores."""
    ids = pool.add(4)
    with write_session(pool.bench.engine) as session:
        lender = make_project(session)
        model = make_pretext_model(session, project=lender)
        hashes = list(session.scalars(sa.select(Item.content_hash).where(Item.id.in_(ids))))
        lent, number = lender.id, model.id
    assert pool.score(number)["items"] == 4  # nothing is scored there
    with write_session(pool.bench.engine) as session:
        project = session.get_one(Project, lent)
        for content in hashes[1:]:
            make_item(session, project=project, content_hash=content)
        made = make_score_run(session, project=project, pretext_model=session.get_one(PretextModel, number))
    assert pool.score(number)["items"] == 4  # one of the items is not
    with write_session(pool.bench.engine) as session:
        last = make_item(session, project=session.get_one(Project, lent), content_hash=hashes[0]).id
        session.get_one(ScoreRun, made.id).last_item_id = last - 1
    assert pool.score(number)["items"] == 4  # it came after they were scored
    with write_session(pool.bench.engine) as session:
        session.get_one(ScoreRun, made.id).last_item_id = last
    assert pool.score(number, "queued")["items"] == 4  # behind a pretraining of hours, perhaps
    assert pool.score(number) == {"items": 0, "note": score_raw.NOT_NEEDED}


def test_an_empty_pool_and_one_of_broken_files_say_so(pool: Pool) -> None:
    assert pool.score() == {"items": 0, "note": "The pool is empty."}
    pool.add(2)
    for path in pool.folder.glob("*.png"):
        path.write_bytes(b"broken")
    assert pool.score() == {"items": 0, "note": "No item of the pool can be read."}
    assert pool.served() is None

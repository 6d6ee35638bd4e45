from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa

from service.store import item_map, pipeline
from service.store.item_map import Guesses, ItemMap
from service.store.session import read_session, write_session
from service.store.tables import Job, Project
from tests.worker import running
from tests.worker.jobs.scored_projects import CLASSES, Bench, ScoredProject, label
from worker.arrays import Ints

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
ARTIFACT = "scores/1/arrays"


def run(bench: Bench, kind: str) -> dict[str, Any]:
    context = running.claim(bench.engine, bench.settings, bench.artifacts, kind=kind)
    running.run(context)
    with read_session(bench.engine) as session:
        return session.get_one(Job, context.job.id).result or {}


def draw(bench: Bench, scored: ScoredProject) -> ItemMap:
    """As it comes about where there is no index yet: that queues the map."""
    with write_session(bench.engine) as session:
        pipeline.queue_index_items(session, session.get_one(Project, scored.id), then_map=True)
    run(bench, "index_items")
    assert run(bench, "map_items")["items"]
    return ItemMap.open(bench.artifacts, ARTIFACT)


def same_nearby(places: Any, truth: Ints) -> float:
    """The share of the 10 nearest on the map that are of the item's class."""
    spots = places.astype(np.float64)
    distances = ((spots[:, None] - spots[None]) ** 2).sum(axis=2)
    np.fill_diagonal(distances, np.inf)
    nearest = np.argsort(distances, axis=1)[:, :10]
    return float((truth[nearest] == truth[:, None]).mean())


def test_items_of_one_class_lie_together(bench: Bench) -> None:
    scored = bench.project(pool=280, test=20, spread=0.6)
    found = draw(bench, scored)
    assert found.items.tolist() == scored.ids.tolist()
    assert same_nearby(found.places, scored.truth) > 0.9
    assert found.places.min() == 0  # it fills the sheet
    assert found.places.max() == item_map.SIDE
    by_loss = np.load(bench.artifacts.local_path(f"{ARTIFACT}/losses.npy"))
    assert (np.argsort(by_loss)[[0, -1]] == [found.losses.argmin(), found.losses.argmax()]).all()
    assert (found.losses.min(), found.losses.max()) == (0, item_map.LOSS_STEPS)


def test_few_items_have_a_map_too(bench: Bench) -> None:
    found = draw(bench, bench.project(pool=3))
    assert found.places.shape == (3, 2)


def test_a_map_is_drawn_once_and_only_for_whoever_asks(bench: Bench) -> None:
    scored = bench.project(pool=40)
    bench.rank(scored)
    run(bench, "index_items")
    with write_session(bench.engine) as session:
        waiting = session.scalars(sa.select(Job.kind).where(Job.state == "queued")).all()
        assert "map_items" not in waiting
        pipeline.queue_index_items(session, session.get_one(Project, scored.id), then_map=True)
    assert run(bench, "index_items")["items"] == 0  # it is there; who asked for the map meanwhile gets it
    assert run(bench, "map_items")["items"] == 40
    with write_session(bench.engine) as session:
        pipeline.queue_map_items(session, session.get_one(Project, scored.id))
    assert run(bench, "map_items") == {"items": 0, "note": "There is nothing to map."}


def test_of_more_items_a_random_part_is_shown(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(item_map, "LARGEST", 70)
    scored = bench.project(pool=100)
    found = draw(bench, scored)
    assert len(found.items) == 70
    assert (np.diff(found.items) > 0).all()
    assert set(found.items.tolist()) < set(scored.ids.tolist())


def test_guesses_are_those_of_the_ranking_s_head(bench: Bench) -> None:
    scored = bench.project(pool=120, test=10)
    with write_session(bench.engine) as session:
        label(session, scored, scored.pool[:30])
    bench.train_head(scored)
    (head,) = bench.heads(scored)
    first = Guesses.load(bench.artifacts, ARTIFACT, head.version)
    assert first is not None
    assert first.names == CLASSES
    asked = first.rows_of(np.array(scored.pool))
    right = np.array(first.classes)[asked] == scored.truth[:120]
    assert right.mean() > 0.8
    assert set(np.array(first.doubts)[first.rows_of(np.array(scored.test))]) == {item_map.UNKNOWN}

    with write_session(bench.engine) as session:
        label(session, scored, scored.pool[30:60])
    bench.train_head(scored)
    newest = bench.heads(scored)[-1]
    assert Guesses.load(bench.artifacts, ARTIFACT, newest.version) is not None
    assert Guesses.load(bench.artifacts, ARTIFACT, head.version) is None  # in its place

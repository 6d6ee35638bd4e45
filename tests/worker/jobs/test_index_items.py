from typing import Any

import numpy as np
import pytest

from service.store import pipeline, similarity_index
from service.store.session import read_session, write_session
from service.store.similarity_index import SimilarityIndex
from service.store.tables import Job, Project, ScoreRun
from tests.worker import running
from tests.worker.jobs.scored_projects import Bench, ScoredProject, write_scores
from worker.arrays import Floats, Ints
from worker.jobs import index_items

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
NONE = np.empty(0, np.int64)


def index(bench: Bench, scored: ScoredProject) -> tuple[SimilarityIndex, dict[str, Any]]:
    with write_session(bench.engine) as session:
        job_id = pipeline.queue_index_items(session, session.get_one(Project, scored.id))
    running.run(running.claim(bench.engine, bench.settings, bench.artifacts, kind="index_items"))
    with read_session(bench.engine) as session:
        result = session.get_one(Job, job_id).result or {}
        artifact = str(session.get_one(ScoreRun, session.get_one(Project, scored.id).score_run_id).artifact)
    return SimilarityIndex.open(bench.artifacts, artifact), result


def by_loop(places: Floats, positive: Ints, negative: Ints) -> list[int]:
    """Rows by falling similarity, each compared with each example by itself."""
    found = []
    for row, place in enumerate(places):
        good = max(float(place @ places[other]) for other in positive)
        bad = max([float(place @ places[other]) for other in negative], default=-2.0)
        if row not in positive and row not in negative and bad <= good:
            found.append((-good, row))
    return [row for _, row in sorted(found)]


def test_finds_what_a_plain_loop_finds(bench: Bench) -> None:
    scored = bench.project(pool=90, test=10)
    made, result = index(bench, scored)
    assert result == {"items": 100, "dimensions": 8, "cells": 1} | {"dimensions": made.places.shape[1]}
    positive, negative = made.rows_of(scored.ids[[3, 50]]), made.rows_of(scored.ids[[7]])
    places = made.places.astype(np.float32)

    (similar,) = made.search(positive, negative, 1_000)

    assert similar.complete
    assert similar.items.tolist() == made.items[by_loop(places, positive, negative)].tolist()
    assert (np.diff(similar.similarities) <= 0).all()
    few = next(made.search(positive, negative, 5))
    assert few.items.tolist() == similar.items[:5].tolist()
    assert not few.complete


def test_similar_items_are_mostly_of_the_same_class(bench: Bench) -> None:
    scored = bench.project(pool=300)
    made, _ = index(bench, scored)
    same = []
    for number in range(0, 300, 10):
        found = next(made.search(made.rows_of(scored.ids[[number]]), NONE, 10)).items
        same += (scored.truth[np.searchsorted(scored.ids, found)] == scored.truth[number]).tolist()
    assert np.mean(same) > 0.8  # a third by chance


def test_cells_of_large_pools_miss_little_and_nothing_in_the_end(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    scored = bench.project(pool=2_000)
    whole, _ = index(bench, scored)
    everything = next(whole.search(whole.rows_of(scored.ids[[5]]), NONE, 2_000))
    monkeypatch.setattr(index_items, "EXACT", 500)
    monkeypatch.setattr(similarity_index, "_CELLS", 8)
    monkeypatch.setattr(index_items, "is_there", lambda *_: False)
    made, result = index(bench, scored)
    assert result["cells"] == 45
    assert made.starts[-1] == 2_000
    assert sorted(made.items.tolist()) == scored.ids.tolist()

    searches = list(made.search(made.rows_of(scored.ids[[5]]), NONE, 20))

    assert np.isin(everything.items[:20], searches[0].items).mean() >= 0.9
    assert searches[-1].complete
    assert searches[-1].items.tolist() == everything.items.tolist()


def test_an_item_that_was_not_scored_has_no_row(bench: Bench) -> None:
    scored = bench.project(pool=20)
    made, _ = index(bench, scored)
    assert made.rows_of(np.array([0, scored.ids[-1] + 1])).tolist() == [-1, -1]
    assert made.items[made.rows_of(scored.ids)].tolist() == scored.ids.tolist()


def test_wide_embeddings_are_narrowed(bench: Bench) -> None:
    scored = bench.project(pool=600)
    wide = np.random.default_rng(0).normal(size=(600, 400)).astype(np.float32)
    wide[:, :3] += 30 * np.eye(3)[scored.truth]
    write_scores(bench.artifacts, "scores/1/arrays", scored.ids, wide)
    made, result = index(bench, scored)
    assert (result["dimensions"], made.places.shape) == (256, (600, 256))
    assert np.allclose(np.linalg.norm(made.places.astype(np.float32), axis=1), 1, atol=1e-2)


def test_is_made_once_by_the_first_ranking(bench: Bench) -> None:
    scored = bench.project(pool=40)
    bench.rank(scored)
    running.run(running.claim(bench.engine, bench.settings, bench.artifacts, kind="index_items"))
    assert similarity_index.is_there(bench.artifacts, "scores/1/arrays")
    bench.rank(scored)
    with read_session(bench.engine) as session:
        assert session.query(Job).where(Job.kind == "index_items", Job.state == "queued").count() == 0


def test_nothing_to_index(bench: Bench) -> None:
    scored = bench.project(pool=20)
    index(bench, scored)
    assert index(bench, scored)[1]["items"] == 0


@pytest.mark.parametrize(("head", "graphs"), [("propagate", 1), ("linear", 0)])
def test_makes_the_graph_in_advance_for_a_head_that_learns_from_the_pool(
    bench: Bench, head: str, graphs: int
) -> None:
    scored = bench.project(pool=40, settings={"head": head})
    index(bench, scored)
    assert sum("graph-" in name for name in bench.artifacts.names("scores/1/arrays")) == graphs

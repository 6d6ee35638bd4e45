from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa

from service.store.control_arm import control_item_ids
from service.store.project_settings import ProjectSettings
from service.store.session import read_session, write_session
from service.store.tables import Head, Item, PretextModel, Project, RankedItem, Ranking
from tests import factories
from tests.worker.jobs.scored_projects import (
    CLASSES,
    Bench,
    label,
    score_run_of,
    write_scores,
)
from worker.errors import JobFailed, Unsuited
from worker.jobs import rank
from worker.selection.pool_view import PoolView, Selection
from worker.strategies.random import Random


def test_ranks_what_is_available_without_control_and_test_items(bench: Bench) -> None:
    scored = bench.project(pool=300, test=40, settings={"control_fraction": 0.1})
    with write_session(bench.engine) as session:
        label(session, scored, scored.pool[:20])
        for item_id, state in zip(scored.pool[20:23], ["broken", "quarantined", "withdrawn"], strict=True):
            session.get_one(Item, item_id).state = state
        control = control_item_ids(session, scored.id, ProjectSettings(control_fraction=0.1))

    bench.rank(scored)

    ranking, rows = bench.ranking(scored)
    assert len(control) == 30
    assert len(rows) == ranking.items == 200
    assert [row.rank for row in rows] == list(range(1, 201))
    assert len({row.item_id for row in rows}) == 200
    assert {row.item_id for row in rows} <= set(scored.pool[23:]) - set(control)
    assert sorted((row.score for row in rows), reverse=True) == [row.score for row in rows]
    assert (ranking.strategy, ranking.seed, ranking.labels_used) == (
        {"name": "shortlist", "params": {}},
        0,
        20,
    )
    assert ranking.head_id is None
    assert ranking.note is None
    assert rows[0].predicted_class is None


def test_a_strategy_is_told_the_names_of_classes(bench: Bench) -> None:
    rare = {"name": "rare", "params": {"class": "owl"}}
    scored = bench.project(pool=300, settings={"control_fraction": 0, "strategy": rare})
    examples = [item for item in scored.pool if scored.true_class(item) == "owl"][:3]
    with write_session(bench.engine) as session:
        label(session, scored, [*examples, *scored.pool[-12:]])

    bench.rank(scored)

    ranking, rows = bench.ranking(scored)
    assert ranking.strategy == rare
    assert [scored.true_class(row.item_id) for row in rows[:30]].count("owl") >= 25


def test_a_class_that_is_gone_is_named(bench: Bench) -> None:
    rare = {"name": "rare", "params": {"class": "cot"}}
    scored = bench.project(pool=30, settings={"control_fraction": 0, "strategy": rare})
    with pytest.raises(JobFailed, match=r"class 'cot'.*Its classes are: cat, dog, owl"):
        bench.rank(scored)


def test_ranks_enough_for_four_rounds(bench: Bench) -> None:
    scored = bench.project(pool=400, settings={"round_size": 60, "control_fraction": 0, "strategy": "random"})

    assert bench.rank(scored)["items"] == 240


def test_ranks_all_there_is_when_that_is_less(bench: Bench) -> None:
    scored = bench.project(pool=30, settings={"control_fraction": 0})

    assert bench.rank(scored)["items"] == 30


def test_nothing_available_is_an_empty_ranking(bench: Bench) -> None:
    scored = bench.project(pool=20)
    with write_session(bench.engine) as session:
        label(session, scored, scored.pool)

    bench.rank(scored)

    ranking, rows = bench.ranking(scored)
    assert rows == []
    assert ranking.note == "No item is available."


def test_the_same_state_gives_the_same_ranking(bench: Bench) -> None:
    scored = bench.project(settings={"strategy": "random", "seed": 5})
    bench.rank(scored)
    first = [row.item_id for row in bench.ranking(scored)[1]]

    bench.rank(scored)

    ranking, rows = bench.ranking(scored)
    assert ranking.version == 2
    assert [row.item_id for row in rows] == first


def test_without_scores_there_is_nothing_to_rank(bench: Bench) -> None:
    scored = bench.project()
    with write_session(bench.engine) as session:
        session.get_one(Project, scored.id).score_run_id = None

    assert "no scores yet" in bench.rank(scored)["missing"]
    with read_session(bench.engine) as session:
        assert session.get_one(Project, scored.id).ranking_id is None


def test_the_cold_start_strategy_stands_in_for_one_that_needs_a_head(bench: Bench) -> None:
    scored = bench.project(settings={"strategy": "margin", "cold_start": "random"})

    bench.rank(scored)

    ranking, rows = bench.ranking(scored)
    assert ranking.strategy == {"name": "random", "params": {}}
    assert ranking.note == "margin needs a head and there is none yet; random stood in."
    assert rows


def test_uses_the_head_that_goes_with_the_score_run(bench: Bench) -> None:
    scored = bench.project(settings={"strategy": "margin", "control_fraction": 0}, spread=2.0)
    with write_session(bench.engine) as session:
        label(session, scored, scored.pool[:30])
    bench.train_head(scored)

    bench.rank(scored)

    ranking, rows = bench.ranking(scored)
    assert ranking.strategy["name"] == "margin"
    assert ranking.head_id is not None
    assert rows[0].score > rows[-1].score
    right = [row.predicted_class == scored.true_class(row.item_id) for row in rows[-45:]]
    assert np.mean(right) > 0.9  # the surest ones
    assert rows[-1].predicted_probability is not None
    assert rows[0].predicted_probability is not None
    assert rows[-1].predicted_probability > rows[0].predicted_probability


@pytest.mark.parametrize(("head", "stays"), [("linear", True), ("finetune", False)])
def test_new_items_by_the_same_pretext_model_are_ranked_by_the_head_there_is(
    bench: Bench, head: str, stays: bool
) -> None:
    """A head on images told what it knows of the items there were; what it says of the new ones is not known yet."""
    scored = bench.project(settings={"strategy": "margin", "cold_start": "random", "control_fraction": 0})
    with write_session(bench.engine) as session:
        label(session, scored, scored.pool[:30])
    bench.train_head(scored)
    with write_session(bench.engine) as session:
        project = session.get_one(Project, scored.id)
        before = score_run_of(session, scored)
        model = session.get_one(PretextModel, before.pretext_model_id)
        run = factories.make_score_run(
            session, project=project, pretext_model=model, artifact="scores/1/arrays"
        )
        project.score_run_id = run.id
        session.get_one(Head, project.head_id).kind = {"name": head, "params": {}}

    bench.rank(scored)

    ranking, rows = bench.ranking(scored)
    assert ranking.score_run_id == run.id
    assert (ranking.head_id is not None) == stays
    assert ranking.strategy["name"] == ("margin" if stays else "random")
    assert (rows[0].predicted_class is not None) == stays


def test_what_is_held_comes_on_top_of_what_is_ranked(bench: Bench) -> None:
    """Items in open batches are available, and a strategy would give them again."""
    scored = bench.project(pool=300, settings={"round_size": 1, "control_fraction": 0})
    bench.rank(scored)
    assert len(bench.ranking(scored)[1]) == 200
    with write_session(bench.engine) as session:
        batch = factories.make_batch(session, project=session.get_one(Project, scored.id))
        for item_id in scored.pool[:40]:
            factories.make_reservation(session, batch=batch, item=session.get_one(Item, item_id))

    bench.rank(scored)

    assert len(bench.ranking(scored)[1]) == 240


def test_a_head_of_another_pretext_model_is_left_alone(bench: Bench) -> None:
    scored = bench.project(settings={"strategy": "margin", "cold_start": "random"})
    with write_session(bench.engine) as session:
        project = session.get_one(Project, scored.id)
        other = factories.make_score_run(session, project=project)
        project.head_id = factories.make_head(session, project=project, score_run=other).id

    bench.rank(scored)

    ranking, _ = bench.ranking(scored)
    assert ranking.head_id is None
    assert ranking.strategy["name"] == "random"


def test_predictions_keep_their_names_when_classes_change(bench: Bench) -> None:
    scored = bench.project(settings={"control_fraction": 0})
    with write_session(bench.engine) as session:
        label(session, scored, scored.pool[:30])
    bench.train_head(scored)
    with write_session(bench.engine) as session:
        session.get_one(Project, scored.id).classes = ["bat", *reversed(CLASSES)]

    bench.rank(scored)

    rows = bench.ranking(scored)[1]
    right = [row.predicted_class == scored.true_class(row.item_id) for row in rows]
    assert np.mean(right) > 0.9


@pytest.mark.parametrize(
    ("chosen", "sentence"),
    [
        ({"strategy": {"name": "pt4al", "params": {"rounds": 0}}}, "strategy 'pt4al' cannot take rounds"),
        ({"strategy": {"name": "random", "params": {"depth": 1}}}, "strategy 'random' cannot take depth"),
        ({"strategy": "margin", "cold_start": "margin"}, "cold_start 'margin' need a head"),
    ],
)
def test_a_choice_that_cannot_work_says_what_to_do(
    bench: Bench, chosen: dict[str, Any], sentence: str
) -> None:
    scored = bench.project(pool=12, settings=chosen)

    with pytest.raises(JobFailed, match=sentence):
        bench.rank(scored)


@pytest.mark.parametrize(
    ("chosen", "sentence"),
    [
        ({"strategy": "oracle"}, "knows no strategy 'oracle'. Set the project's strategy to one of .*margin"),
        ({"strategy": "margin", "cold_start": "oracle"}, "knows no cold_start 'oracle'"),
    ],
)
def test_an_unknown_plug_in_is_for_another_worker(
    bench: Bench, chosen: dict[str, Any], sentence: str
) -> None:
    scored = bench.project(pool=12, settings=chosen)

    with pytest.raises(Unsuited, match=sentence) as raised:
        bench.rank(scored)
    assert raised.value.missing == ("strategy:oracle",)


def test_a_value_that_is_not_finite_names_its_item(bench: Bench) -> None:
    scored = bench.project(pool=20)
    embeddings = np.ones((20, 8), np.float32)
    embeddings[13, 2] = np.nan
    with write_session(bench.engine) as session:
        score_run_of(session, scored).artifact = "scores/2/arrays"
        key = session.get_one(Item, scored.pool[13]).key
    write_scores(bench.artifacts, "scores/2/arrays", scored.ids, embeddings)

    with pytest.raises(JobFailed, match=f"values of '{key}' that are not finite"):
        bench.rank(scored)


def test_items_added_after_scoring_wait_for_the_next_score_run(bench: Bench) -> None:
    scored = bench.project(pool=20, settings={"control_fraction": 0})
    with write_session(bench.engine) as session:
        project = session.get_one(Project, scored.id)
        label(session, scored, scored.pool[:2])
        late = factories.make_item(session, project=project)
        factories.make_label(session, item=factories.make_item(session, project=project))

    bench.rank(scored)

    assert late.id not in {row.item_id for row in bench.ranking(scored)[1]}


def test_items_of_old_rankings_go_unless_someone_is_served_from_them(bench: Bench) -> None:
    scored = bench.project()
    bench.rank(scored)
    first, rows = bench.ranking(scored)
    with write_session(bench.engine) as session:
        batch = factories.make_batch(session, project=session.get_one(Project, scored.id))
        item = session.get_one(Item, rows[0].item_id)
        held = factories.make_reservation(
            session, batch=batch, item=item, arm="selected", ranking_id=first.id, rank=1
        )

    def versions() -> list[int]:
        with read_session(bench.engine) as session:
            kept = sa.select(Ranking.version).where(Ranking.id.in_(sa.select(RankedItem.ranking_id)))
            return list(session.scalars(kept.order_by(Ranking.version)))

    for _ in range(4):
        bench.rank(scored)
    assert versions() == [1, 3, 4, 5]
    with write_session(bench.engine) as session:
        session.merge(held).state = "labeled"
    bench.rank(scored)
    assert versions() == [4, 5, 6]
    with read_session(bench.engine) as session:
        assert session.scalar(sa.select(sa.func.count()).select_from(Ranking)) == 6


@pytest.mark.parametrize(
    ("low", "high", "weight"), [(-0.1, 0.3, 0.0), (0.05, 0.4, 0.05), (-0.5, -0.2, -0.2), (None, None, 0.0)]
)
def test_the_pretext_loss_weighs_by_the_end_of_its_interval_nearest_0(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, low: float | None, high: float | None, weight: float
) -> None:
    seen: list[float] = []

    class Watching(Random):
        def select(self, pool: PoolView, n: int, rng: np.random.Generator) -> Selection:
            seen.append(pool.loss_weight)
            return super().select(pool, n, rng)

    monkeypatch.setattr(rank, "strategies", lambda: {"random": Watching})
    scored = bench.project(settings={"strategy": "random"})
    correlation = None if low is None else {"rho": 0.1, "low": low, "high": high, "items": 40}
    with write_session(bench.engine) as session:
        run = score_run_of(session, scored)
        for version, found in ((1, correlation), (2, None)):  # the newest was not measured
            factories.make_head(
                session,
                project=session.get_one(Project, scored.id),
                score_run=run,
                version=version,
                metrics={"measured_on": "control" if found else None, "pretext_loss_correlation": found},
            )

    bench.rank(scored)

    assert seen == [weight]


WORSE = {"gain": -0.06, "low": -0.1, "high": -0.02, "labels": 60, "items": 120}
UNCLEAR = {"gain": -0.03, "low": -0.08, "high": 0.02, "labels": 75, "items": 150}


@pytest.mark.parametrize(
    ("gains", "note", "by"),
    [
        ([WORSE], None, "pt4al-easy"),
        ([WORSE, WORSE], None, "pt4al-easy"),  # the same measurement, repeated
        ([WORSE | {"items": 80}, WORSE], "random took over from pt4al-easy", "random"),
        ([UNCLEAR, WORSE], "asks for 24% of the items", "pt4al-easy"),
        ([WORSE | {"items": 80}, WORSE | {"strategy": "shortlist"}], None, "pt4al-easy"),  # of another
    ],
)
def test_random_takes_over_from_picks_that_teach_less(
    bench: Bench, gains: list[dict[str, Any]], note: str | None, by: str
) -> None:
    scored = bench.project(pool=400, settings={"strategy": "pt4al-easy", "control_fraction": 0})
    bench.rank(scored)
    alone = [row.item_id for row in bench.ranking(scored)[1]]
    with write_session(bench.engine) as session:
        run = score_run_of(session, scored)
        for number, found in enumerate(gains, 1):
            factories.make_head(
                session,
                project=session.get_one(Project, scored.id),
                score_run=run,
                version=number,
                round_number=number,
                metrics={"picks_gain": {"strategy": "pt4al-easy"} | found},
            )

    bench.rank(scored)

    ranking, rows = bench.ranking(scored)
    ranked = [row.item_id for row in rows]
    assert ranking.strategy["name"] == by
    assert len(set(ranked)) == len(alone)
    if note is None:
        assert (ranking.note, ranked) == (None, alone)
    else:
        assert note in str(ranking.note)
        assert "on as many random ones (95 % interval" in str(ranking.note)
        assert ranked != alone
    if by != "random" and note is not None:  # its share, in its order
        ours = [item for item in ranked if item in set(alone[:60])]
        assert len(ours) > 20

"""A project whose items have several classes, from its labels to the head, the ranking and the figures."""

import numpy as np
import pytest
import sqlalchemy as sa

from service.projects import summary
from service.store import class_sets
from service.store.class_sets import joined
from service.store.control_arm import control_item_ids
from service.store.project_settings import ProjectSettings
from service.store.session import read_session, write_session
from service.store.tables import Item, Job, Project, utc_now
from tests.worker.jobs.scored_projects import CLASSES, Bench, ScoredProject, close_round, label
from worker.errors import JobFailed

SETS = {"cat": joined([]), "dog": joined(["dog"]), "owl": joined(["cat", "dog"])}  # by the true cluster


def make(bench: Bench, **options: object) -> ScoredProject:
    """Nothing is an owl; a third of the items has no class at all."""
    scored = bench.project(**options)
    with write_session(bench.engine) as session:
        session.get_one(Project, scored.id).label_kind = "multi"
        for number in scored.test:
            session.get_one(Item, number).class_name = SETS[scored.true_class(number)]
    return scored


def label_truly(bench: Bench, scored: ScoredProject, items: list[int], close: bool = False) -> None:
    with write_session(bench.engine) as session:
        for number in items:
            last = label(session, scored, [number], class_name=SETS[scored.true_class(number)])
        if close:
            close_round(session, scored, last, len(items))


def test_a_head_of_several_classes_is_trained_measured_and_ranks(bench: Bench) -> None:
    scored = make(bench, test=60)
    label_truly(bench, scored, scored.pool[:30])

    assert bench.train_head(scored) == {"heads": [1], "missing": None}

    (head,) = bench.heads(scored)
    metrics = head.metrics
    assert (metrics["measured_on"], metrics["items"], metrics["accuracy"], metrics["confusion"]) == (
        "test",
        60,
        None,
        [],
    )
    for figure in ("mean_average_precision", "macro_f1", "subset_accuracy"):
        assert 0.85 < metrics[figure] <= 1
        assert metrics[f"{figure}_low"] <= metrics[figure] <= metrics[f"{figure}_high"]
    assert metrics["recall"].keys() == metrics["average_precision"].keys() == set(CLASSES)
    assert metrics["recall"]["owl"] is None
    assert metrics["average_precision"]["owl"] is None
    ranking, rows = bench.ranking(scored)
    assert ranking.head_id == head.id
    assert ranking.note is None
    right = [row.predicted_class == SETS[scored.true_class(row.item_id)] for row in rows]
    assert np.mean(right) > 0.9
    assert all(0 < row.predicted_probability <= 1 for row in rows if row.predicted_probability is not None)


@pytest.mark.parametrize("strategy", ["margin", "badge", "rare", "bald", "random"])
def test_every_kind_of_strategy_ranks(bench: Bench, strategy: str) -> None:
    scored = make(bench, settings={"strategy": {"name": strategy, "params": {}}, "control_fraction": 0.0})
    label_truly(bench, scored, scored.pool[:30])

    bench.train_head(scored)

    ranking, rows = bench.ranking(scored)
    assert (ranking.strategy["name"], ranking.note) == (strategy, None)
    assert len(rows) == 90


def test_rounds_and_random_selection_go_by_the_mean_average_precision(bench: Bench) -> None:
    scored = make(bench, pool=240, settings={"control_fraction": 0.25, "overlap": 1})
    with read_session(bench.engine) as session:
        control = control_item_ids(session, scored.id, ProjectSettings(control_fraction=0.25))
    label_truly(
        bench, scored, [*[one for one in scored.pool if one not in control][:40], *control[:40]], close=True
    )

    bench.train_head(scored)
    bench.compare(scored)

    (head,) = bench.heads(scored)
    assert head.round_number == 1
    assert head.metrics["measured_on"] == "control"
    assert [point["labels"] for point in head.metrics["random_curve"]] == sorted(
        point["labels"] for point in head.metrics["random_curve"]
    )
    assert head.metrics["random_curve"][-1]["mean_average_precision"] > 0.8
    with read_session(bench.engine) as session:
        found = summary.collect(session, session.get_one(Project, scored.id), utc_now())
        (point,) = found.learning_curve
        assert point["mean_average_precision"] == head.metrics["mean_average_precision"]
        assert "accuracy" not in point
        assert found.random_selection is not None
        assert "mean average precision" in found.random_selection.text
        owed = session.scalars(sa.select(Job.kind).where(Job.state == "queued")).all()
    assert not {"check_labels", "probe_pretext"} & set(owed)
    assert found.class_balance == {
        name: sum(
            name in class_sets.classes_in(SETS[scored.true_class(one)])
            for one in [*[one for one in scored.pool if one not in control][:40], *control[:40]]
        )
        for name in CLASSES
    }


def test_labels_that_tell_nothing_apart_train_no_head(bench: Bench) -> None:
    scored = make(bench)
    with write_session(bench.engine) as session:
        for number in scored.pool[:20]:
            label(session, scored, [number], class_name=joined(["dog"]))

    result = bench.train_head(scored)

    assert "on some labeled items and not on others" in result["missing"]


def test_a_head_that_cannot_says_which_can(bench: Bench) -> None:
    scored = make(bench, settings={"head": {"name": "finetune", "params": {}}})
    label_truly(bench, scored, scored.pool[:30])
    from worker.jobs.train_head import _State, _Trainer

    with read_session(bench.engine) as session:
        state = _State.read(session, scored.id)
    assert state is not None
    with pytest.raises(
        JobFailed, match=r"'finetune' tells one class .* Choose one of auto, linear, mlp, propagate"
    ):
        _Trainer(None, state)  # type: ignore[arg-type]

"""A project whose items have several classes, from its labels to the head, the ranking and the figures."""

import numpy as np
import pytest
import sqlalchemy as sa

from service.labeling import labels
from service.labeling.labels import NewLabel
from service.projects import summary
from service.store import class_sets, pipeline
from service.store.class_sets import joined
from service.store.control_arm import control_item_ids
from service.store.ids import public_id
from service.store.project_settings import ProjectSettings
from service.store.session import read_session, write_session
from service.store.tables import Item, Job, LabelCheck, Project, Suspect, utc_now
from tests.worker import running
from tests.worker.jobs.scored_projects import CLASSES, Bench, ScoredProject, close_round, label
from worker.errors import JobFailed
from worker.evaluation import gate
from worker.heads.mlp import MlpHead
from worker.jobs.probe_sets import Judges
from worker.jobs.train_head import _State, _Trainer
from worker.scoring.scored_items import ScoredItems

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
    for name in CLASSES:
        cells = metrics["confusion_by_class"][name]
        have = sum(name in class_sets.classes_in(SETS[scored.true_class(one)]) for one in scored.test)
        assert cells["true_positives"] + cells["false_negatives"] == have
        assert sum(cells.values()) == 60
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
    assert "probe_pretext" in owed
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


def test_a_head_that_cannot_says_which_can(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    scored = make(bench, settings={"head": {"name": "mlp", "params": {}}})
    label_truly(bench, scored, scored.pool[:30])
    monkeypatch.setattr(MlpHead, "several", False)  # as one that somebody else wrote

    with read_session(bench.engine) as session:
        state = _State.read(session, scored.id)
    assert state is not None
    with pytest.raises(
        JobFailed, match=r"'mlp' tells one class .* Choose one of auto, finetune, linear, propagate"
    ):
        _Trainer(None, state)  # type: ignore[arg-type]


def check(bench: Bench, scored: ScoredProject) -> dict[str, object]:
    with write_session(bench.engine) as session:
        session.execute(sa.delete(Job))
        job_id = pipeline.queue_check_labels(session, session.get_one(Project, scored.id))
    running.run(running.claim(bench.engine, bench.settings, bench.artifacts))
    with read_session(bench.engine) as session:
        return session.get_one(Job, job_id).result or {}


def test_a_class_that_the_head_contradicts_makes_a_suspect(bench: Bench) -> None:
    scored = make(bench, spread=0.3)
    label_truly(bench, scored, scored.pool[:90])
    # Three have one class too many, three one too few.
    wrong = [
        one
        for name in ("cat", "owl")
        for one in [i for i in scored.pool if scored.true_class(i) == name][3:6]
    ]
    with write_session(bench.engine) as session:
        for number in wrong:
            session.get_one(Item, number).class_name = joined(["dog"])

    result = check(bench, scored)

    assert (result["items"], result["changed"]) == (90, 0)
    with read_session(bench.engine) as session:
        found = {row.item_id: row for row in session.scalars(sa.select(Suspect).order_by(Suspect.quality))}
    assert len(found) >= 3  # confident learning is careful
    assert found.keys() <= set(wrong)
    for number in found:
        assert (found[number].class_name, found[number].suggested_class) == (
            joined(["dog"]),
            SETS[scored.true_class(number)],
        )
        assert found[number].quality < 0.3 < 0.7 < found[number].probability


def test_consensus_is_asked_of_each_class(bench: Bench) -> None:
    """A careless annotator and a sloppy one outvote a good one, in one class of two."""
    scored = make(bench, settings={"overlap": 2, "round_size": 1000})
    disputed = [one for one in scored.pool[:40] if scored.true_class(one) == "owl"][:4]
    rng = np.random.default_rng(0)

    def sloppy() -> str:
        return joined(name for name in ("cat", "dog") if rng.random() < 0.5)

    with write_session(bench.engine) as session:
        for number in scored.pool[:110]:
            truth = SETS[scored.true_class(number)]
            said = {"ann": truth, "bob": truth, "eve": sloppy()}
            if number in disputed:
                said = {"ann": truth, "eve": joined(["dog"]), "sam": joined(["dog"])}
            elif number in scored.pool[80:]:
                said = {"ann": truth, "sam": sloppy()}
            entries = [NewLabel(public_id("i", number), who, class_name=text) for who, text in said.items()]
            labels.store(session, session.get_one(Project, scored.id), entries, utc_now())
        assert {session.get_one(Item, one).class_name for one in disputed} == {joined(["dog"])}

    check(bench, scored)

    with read_session(bench.engine) as session:
        assert {session.get_one(Item, one).class_name for one in disputed} == {joined(["cat", "dog"])}
        stored = session.get_one(LabelCheck, scored.id)
        assert stored.agreement is not None
        assert 0.2 < stored.agreement < 0.95
        quality = {name: found["quality"] for name, found in stored.annotators.items()}
        assert min(quality["ann"], quality["bob"]) > max(quality["eve"], quality["sam"])


def test_the_gate_judges_each_class_for_itself(bench: Bench) -> None:
    """The judges that the job takes, and the verdict by them: embeddings that know, against noise."""
    scored = make(bench, pool=120, test=100)
    label_truly(bench, scored, scored.pool[:60])
    items = ScoredItems.open(bench.artifacts, "scores/1/arrays")
    with read_session(bench.engine) as session:
        judges = Judges.read(session, session.get_one(Project, scored.id))

    sample = judges.among(items).by_test_split(np.random.default_rng(0))

    assert sample is not None
    assert sample.enough
    assert (int(sample.taught.sum()), int(sample.judged.sum()), sample.classes.shape[1]) == (60, 100, 3)
    noise = np.random.default_rng(1).normal(size=(160, 8)).astype(np.float32)
    found = gate.judge(
        items.embeddings_of(sample.ids).astype(np.float32),
        {"raw": noise},
        sample.classes,
        sample.taught,
        sample.judged,
        sample.judged_on,
        60,
    )
    assert found.verdict == "go"
    assert found.linear["trained"] > 0.9
    assert abs(found.linear["raw"] - 0.5) < 0.15
    assert "balanced accuracy of 2 classes" in found.reason  # nothing is an owl

import re
import weakref
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from scipy.stats import spearmanr
from sqlalchemy.orm import Session

from service.store import jobs, pipeline
from service.store.control_arm import control_item_ids
from service.store.project_settings import ProjectSettings
from service.store.session import read_session, write_session
from service.store.tables import Head, Item, Job, Project, Round
from tests import factories
from tests.worker import running
from tests.worker.jobs.scored_projects import CLASSES, Bench, ScoredProject, close_round, label
from worker.arrays import Bools
from worker.errors import Unsuited
from worker.evaluation.known_items import KnownItems
from worker.heads.linear import LinearHead
from worker.jobs import train_head
from worker.jobs.train_head.measure_head import HeadMeasurer

METRICS = {
    "measured_on",
    "items",
    "accuracy",
    "accuracy_low",
    "accuracy_high",
    "macro_f1",
    "nll",
    "ece",
    "recall",
    "confusion",
    "reliability",
    "temperature",
    "pretext_loss_correlation",
    "random_curve",
    "picks_gain",
    "trained",
    "promoted",
    "note",
}


def _rounds(session: Session, scored: ScoredProject) -> dict[int, int | None]:
    """Number and head of the rounds."""
    rounds = sa.select(Round).where(Round.project_id == scored.id).order_by(Round.number)
    return {one.number: one.head_id for one in session.scalars(rounds)}


def test_trains_on_all_labels_and_measures_on_the_test_split(bench: Bench) -> None:
    scored = bench.project(test=60)
    with write_session(bench.engine) as session:
        last = label(session, scored, scored.pool[:30])

    assert bench.train_head(scored) == {"heads": [1], "missing": None}

    (head,) = bench.heads(scored)
    assert (head.version, head.labels_used, head.trained_on, head.last_label_id) == (1, 30, 30, last)
    assert (head.kind, head.classes) == ({"name": "linear", "params": {}}, CLASSES)
    assert head.round_number is None
    assert head.metrics.keys() == METRICS
    assert head.metrics["measured_on"] == "test"
    assert head.metrics["items"] == 60
    assert head.metrics["accuracy"] > 0.9
    assert head.metrics["accuracy_low"] < head.metrics["accuracy"] <= head.metrics["accuracy_high"]
    assert head.metrics["recall"].keys() == set(CLASSES)
    assert np.sum(head.metrics["confusion"]) == 60
    with read_session(bench.engine) as session:
        assert session.get_one(Project, scored.id).head_id == head.id
    ranking, _ = bench.ranking(scored)
    assert ranking.head_id == head.id


def test_the_stored_head_is_the_trained_one(bench: Bench) -> None:
    scored = bench.project()
    with write_session(bench.engine) as session:
        label(session, scored, scored.pool[:30])
    bench.train_head(scored)
    (head,) = bench.heads(scored)

    with np.load(bench.artifacts.local_path(head.artifact), allow_pickle=False) as arrays:
        fitted = LinearHead().load(dict(arrays))
    embeddings = np.load(bench.artifacts.local_path("scores/1/arrays/embeddings.npy"))

    assert (fitted.probabilities(embeddings).argmax(axis=1) == scored.truth).mean() > 0.9


def test_without_a_test_split_control_items_measure_by_cross_fitting(bench: Bench) -> None:
    """A head that had seen the control items would know their labels, wrong as they are here."""
    scored = bench.project(pool=200, settings={"control_fraction": 0.1})
    rng = np.random.default_rng(0)
    with write_session(bench.engine) as session:
        control = control_item_ids(session, scored.id, ProjectSettings(control_fraction=0.1))
        label(session, scored, [item for item in scored.pool if item not in control][:60])
        for item in control:
            last = label(session, scored, [item], class_name=CLASSES[int(rng.integers(3))])
        close_round(session, scored, last, 80)

    bench.train_head(scored)

    (head,) = bench.heads(scored)
    assert head.trained_on == 80
    assert head.metrics["measured_on"] == "control"
    assert head.metrics["items"] == len(control) == 20
    assert head.metrics["accuracy"] < 0.65
    assert head.metrics["accuracy_high"] - head.metrics["accuracy_low"] > 0.2


def test_control_items_that_somebody_else_chose_measure_nothing(bench: Bench) -> None:
    """Nor are they part of random selection's curve: whoever imported these labels chose one class."""
    scored = bench.project(pool=300, settings={"control_fraction": 0.5})
    with write_session(bench.engine) as session:
        control = control_item_ids(session, scored.id, ProjectSettings(control_fraction=0.5))
        of_one_class = [item for item in control if scored.true_class(item) == "cat"]
        rest = [item for item in control if item not in of_one_class]
        label(session, scored, of_one_class[:10], arm="imported")
        label(session, scored, of_one_class[10:20], arm="queued")
        close_round(session, scored, label(session, scored, rest[:60]), 80)

    bench.train_head(scored)
    bench.compare(scored)

    (head,) = bench.heads(scored)
    assert head.trained_on == 80
    assert (head.metrics["measured_on"], head.metrics["items"]) == ("control", 60)
    assert np.array(head.metrics["confusion"]).sum(axis=1)[0] == 0
    assert head.metrics["random_curve"][-1]["items"] == 60


def test_control_items_measure_what_was_learned(bench: Bench) -> None:
    scored = bench.project(pool=200, settings={"control_fraction": 0.1})
    with write_session(bench.engine) as session:
        close_round(session, scored, label(session, scored, scored.pool[:150]), 150)

    bench.train_head(scored)

    (head,) = bench.heads(scored)
    assert head.metrics["measured_on"] == "control"
    assert 5 <= head.metrics["items"] < 20
    assert head.metrics["accuracy"] > 0.8


@pytest.mark.parametrize(("control_fraction", "closed"), [(0, True), (0.1, False)])
def test_nothing_to_measure_on_is_said(bench: Bench, control_fraction: float, closed: bool) -> None:
    """Neither without control items nor between rounds."""
    scored = bench.project(settings={"control_fraction": control_fraction})
    with write_session(bench.engine) as session:
        last = label(session, scored, scored.pool[:30])
        if closed:
            close_round(session, scored, last, 30)

    bench.train_head(scored)

    (head,) = bench.heads(scored)
    assert head.metrics.keys() == METRICS
    assert (head.metrics["measured_on"], head.metrics["items"], head.metrics["accuracy"]) == (None, 0, None)
    assert head.metrics["recall"] == dict.fromkeys(CLASSES)
    assert head.metrics["temperature"] > 0


def test_every_closed_round_gets_its_head_then_all_labels(bench: Bench) -> None:
    scored = bench.project(test=30)
    with write_session(bench.engine) as session:
        first = label(session, scored, scored.pool[:20])
        close_round(session, scored, first, 20)
        second = label(session, scored, scored.pool[20:40])
        close_round(session, scored, second, 20)
        last = label(session, scored, scored.pool[40:45])

    bench.train_head(scored)

    heads = bench.heads(scored)
    assert [head.last_label_id for head in heads] == [first, second, last]
    assert [head.trained_on for head in heads] == [20, 40, 45]
    assert [head.labels_used for head in heads] == [20, 40, 45]
    assert [head.round_number for head in heads] == [1, 2, None]
    with read_session(bench.engine) as session:
        assert _rounds(session, scored) == {1: heads[0].id, 2: heads[1].id, 3: None}
        assert session.get_one(Round, (scored.id, 1)).measured_at is not None
        assert session.get_one(Project, scored.id).head_id == heads[2].id


def test_of_many_rounds_closed_at_once_some_are_measured_the_newest_among_them(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As an import closes them; and what a round's head trains on is there only while it trains."""
    kept: list[weakref.ref[KnownItems]] = []
    alive: list[int] = []
    keep, measure = KnownItems.keep, HeadMeasurer.measure

    def keep_seen(self: KnownItems, mask: Bools) -> KnownItems:
        items = keep(self, mask)
        kept.append(weakref.ref(items))
        return items

    def measure_seen(self: HeadMeasurer, *arguments: Any) -> Any:
        alive.append(sum(one() is not None for one in kept))
        return measure(self, *arguments)

    monkeypatch.setattr(KnownItems, "keep", keep_seen)
    monkeypatch.setattr(HeadMeasurer, "measure", measure_seen)
    scored = bench.project(pool=182, test=30)
    with write_session(bench.engine) as session:
        for start in range(0, 180, 3):
            close_round(session, scored, label(session, scored, scored.pool[start : start + 3]), 3)
        label(session, scored, scored.pool[180:])

    bench.train_head(scored)

    *measured, last = bench.heads(scored)
    numbers = [head.round_number or 0 for head in measured]
    assert 15 <= len(numbers) <= train_head.ROUNDS_AT_ONCE
    assert numbers[-1] == 60
    assert set(np.diff(numbers)) <= {3, 4}
    assert [head.trained_on for head in measured] == [3 * number for number in numbers]
    assert (last.round_number, last.trained_on) == (None, 182)
    assert max(alive) == 3  # all labels, those of the test split, those of the head
    assert bench.train_head(scored)["heads"] == []  # the others are not wanted any more


def test_a_round_that_ends_with_the_last_label_needs_no_second_head(bench: Bench) -> None:
    scored = bench.project(test=30)
    with write_session(bench.engine) as session:
        close_round(session, scored, label(session, scored, scored.pool[:20]), 20)

    assert bench.train_head(scored)["heads"] == [1]
    with read_session(bench.engine) as session:
        assert session.get_one(Project, scored.id).head_id == bench.heads(scored)[0].id


def test_nothing_new_trains_nothing(bench: Bench) -> None:
    scored = bench.project(test=30)
    with write_session(bench.engine) as session:
        label(session, scored, scored.pool[:20])
    bench.train_head(scored)

    assert bench.train_head(scored) == {"heads": [], "missing": None}
    assert bench.ranking(scored)[0].version == 2


@pytest.mark.parametrize("change", ["label", "retracted", "gold", "kind", "classes", "score run"])
def test_what_changed_trains_anew(bench: Bench, change: str) -> None:
    scored = bench.project(test=30)
    with write_session(bench.engine) as session:
        label(session, scored, scored.pool[:20])
    bench.train_head(scored)
    with write_session(bench.engine) as session:
        project = session.get_one(Project, scored.id)
        if change == "label":
            label(session, scored, scored.pool[20:21])
        elif change == "retracted":
            item = session.get_one(Item, scored.pool[0])
            item.state, item.class_name, item.decided_by = "available", None, None
        elif change == "gold":  # neither the newest label nor their number tells
            item = session.get_one(Item, scored.pool[0])
            item.gold, item.class_name, item.decided_by = (
                True,
                "dog" if item.class_name == "cat" else "cat",
                None,
            )
        elif change == "kind":
            session.execute(sa.update(Head).values(kind={"name": "other", "params": {}}))
        elif change == "classes":
            project.classes = [*CLASSES, "bat"]
        else:
            run = factories.make_score_run(session, project=project, artifact="scores/1/arrays")
            project.score_run_id = run.id

    assert bench.train_head(scored)["heads"] == [2]
    with read_session(bench.engine) as session:
        assert session.get_one(Project, scored.id).head_id == bench.heads(scored)[1].id


@pytest.mark.parametrize(
    ("labels", "chosen", "sentence"),
    [
        (0, {}, "A first head needs 10 labeled items .* there are 0"),
        (9, {}, "A first head needs 10 labeled items .* there are 9"),
        (25, {"retrain_min_labels": 30}, "needs 30 labeled items"),
    ],
)
def test_too_few_labels_is_no_failure(
    bench: Bench, labels: int, chosen: dict[str, Any], sentence: str
) -> None:
    scored = bench.project(settings=chosen)
    with write_session(bench.engine) as session:
        last = label(session, scored, scored.pool[:labels])
        if labels:
            close_round(session, scored, last, labels)

    result = bench.train_head(scored)

    assert result["heads"] == []
    assert re.search(sentence, result["missing"])
    with read_session(bench.engine) as session:
        assert session.get_one(Project, scored.id).head_id is None
        assert _rounds(session, scored)[1] is None
    assert bench.ranking(scored)[0].head_id is None


def test_labels_of_one_class_only_is_no_failure(bench: Bench) -> None:
    scored = bench.project()
    with write_session(bench.engine) as session:
        label(session, scored, scored.pool[:20], class_name="cat")

    assert "of one class" in bench.train_head(scored)["missing"]
    assert bench.heads(scored) == []


def test_before_any_score_run_there_is_nothing_to_train_on(bench: Bench) -> None:
    scored = bench.project()
    with write_session(bench.engine) as session:
        label(session, scored, scored.pool[:20])
        session.get_one(Project, scored.id).score_run_id = None

    assert "no scores yet" in bench.train_head(scored)["missing"]


def test_a_head_nobody_knows_says_what_to_do(bench: Bench) -> None:
    scored = bench.project(settings={"head": "oracle"})
    with write_session(bench.engine) as session:
        label(session, scored, scored.pool[:20])

    with pytest.raises(
        Unsuited,
        match=r"knows no head 'oracle'\. Set the project's head to one of auto, finetune, linear, mlp",
    ):
        bench.train_head(scored)


def test_labels_of_items_that_were_never_scored_are_left_out(bench: Bench) -> None:
    scored = bench.project(test=30)
    with write_session(bench.engine) as session:
        label(session, scored, scored.pool[:20])
        project = session.get_one(Project, scored.id)
        factories.make_label(session, item=factories.make_item(session, project=project))

    bench.train_head(scored)

    assert bench.heads(scored)[0].trained_on == 20


def test_a_job_that_lost_its_lease_publishes_nothing(bench: Bench) -> None:
    scored = bench.project(test=30)
    with write_session(bench.engine) as session:
        label(session, scored, scored.pool[:20])
        pipeline.queue_train_head(session, session.get_one(Project, scored.id), at_once=True)
    context = running.claim(bench.engine, bench.settings, bench.artifacts)
    with write_session(bench.engine) as session:  # another worker took it over
        session.execute(sa.update(Job).where(Job.id == context.job.id).values(token=Job.token + 1))

    with pytest.raises(jobs.LeaseLost):
        running.run(context)

    assert bench.heads(scored) == []


def test_a_job_that_is_run_again_goes_on_where_it_was(bench: Bench) -> None:
    """Killed after the first of two rounds: the second run trains what is missing and no more."""
    scored = bench.project(test=30)
    with write_session(bench.engine) as session:
        close_round(session, scored, label(session, scored, scored.pool[:20]), 20)
        close_round(session, scored, label(session, scored, scored.pool[20:40]), 20)
        pipeline.queue_train_head(session, session.get_one(Project, scored.id), at_once=True)
    killed = running.claim(bench.engine, bench.settings, bench.artifacts)
    killed.report = _raise_at_second_call()
    with pytest.raises(KeyboardInterrupt):
        running.run(killed)
    assert len(bench.heads(scored)) == 1
    running.hand_back(killed)

    running.run(running.claim(bench.engine, bench.settings, bench.artifacts))

    assert [head.round_number for head in bench.heads(scored)] == [1, 2]
    with read_session(bench.engine) as session:
        assert session.get_one(Project, scored.id).head_id == bench.heads(scored)[1].id


def test_a_job_that_is_run_again_goes_on_through_many_rounds(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed after the first of three chosen from seven: the second run goes on from there to the newest."""
    monkeypatch.setattr(train_head, "ROUNDS_AT_ONCE", 3)
    scored = bench.project(test=30)
    with write_session(bench.engine) as session:
        for start in range(0, 105, 15):
            close_round(session, scored, label(session, scored, scored.pool[start : start + 15]), 15)
        pipeline.queue_train_head(session, session.get_one(Project, scored.id), at_once=True)
    killed = running.claim(bench.engine, bench.settings, bench.artifacts)
    killed.report = _raise_at_second_call()
    with pytest.raises(KeyboardInterrupt):
        running.run(killed)
    assert [head.round_number for head in bench.heads(scored)] == [1]
    running.hand_back(killed)

    running.run(running.claim(bench.engine, bench.settings, bench.artifacts))

    numbers = [head.round_number or 0 for head in bench.heads(scored)]
    assert numbers == sorted(set(numbers))
    assert len(numbers) == 1 + 3
    assert numbers[-1] == 7
    with read_session(bench.engine) as session:
        assert session.get_one(Project, scored.id).head_id == bench.heads(scored)[-1].id


def _raise_at_second_call() -> Any:
    calls = []

    def report(fraction: float, message: str) -> None:
        calls.append(message)
        if len(calls) == 2:
            raise KeyboardInterrupt

    return report


def test_a_head_that_is_worse_is_stored_but_not_promoted(bench: Bench) -> None:
    """Somebody labels at random: on the test split that shows at once."""
    scored = bench.project(pool=200, test=60)
    rng = np.random.default_rng(0)
    with write_session(bench.engine) as session:
        close_round(session, scored, label(session, scored, scored.pool[:30]), 30)
    bench.train_head(scored)
    with write_session(bench.engine) as session:
        for item in scored.pool[30:]:
            last = label(session, scored, [item], class_name=CLASSES[int(rng.integers(2))])
        close_round(session, scored, last, 170)

    bench.train_head(scored)

    first, second = bench.heads(scored)
    assert (first.metrics["promoted"], first.metrics["note"]) == (True, None)
    assert second.metrics["promoted"] is False
    assert re.match(
        r"Not promoted: \d+\.\d points less accurate than head 1 on the same 60 test items \(95 % interval "
        r"\d+\.\d to \d+\.\d\)",
        second.metrics["note"],
    )
    with read_session(bench.engine) as session:
        assert session.get_one(Project, scored.id).head_id == first.id
        assert _rounds(session, scored) == {1: first.id, 2: second.id, 3: None}
    assert bench.ranking(scored)[0].head_id == first.id
    assert bench.train_head(scored)["heads"] == []


def test_a_refused_head_is_not_let_in_between_rounds(bench: Bench) -> None:
    """Control items measure rounds only; what spoiled the round is still there five labels later."""
    scored = bench.project(pool=200, settings={"control_fraction": 0.3})
    with write_session(bench.engine) as session:
        control = control_item_ids(session, scored.id, ProjectSettings(control_fraction=0.3))
        others = [item for item in scored.pool if item not in control]
        last = label(session, scored, [*control, *others[:20]])
        close_round(session, scored, last, 80)
    bench.train_head(scored)
    with write_session(bench.engine) as session:
        close_round(session, scored, label(session, scored, others[20:110], class_name="cat"), 90)
        label(session, scored, others[110:115])

    bench.train_head(scored)

    first, second, between = bench.heads(scored)
    assert [head.metrics["measured_on"] for head in (first, second, between)] == ["control", "control", None]
    assert not second.metrics["promoted"]
    assert not between.metrics["promoted"]
    assert between.metrics["note"] == second.metrics["note"]
    with read_session(bench.engine) as session:
        assert session.get_one(Project, scored.id).head_id == first.id


@pytest.mark.parametrize("left", [5, 20])
def test_a_head_goes_with_its_labels(bench: Bench, left: int) -> None:
    """Where too few are left for a head there is none; else there is a new one, however good the old one was."""
    scored = bench.project(pool=200, test=100)
    with write_session(bench.engine) as session:
        label(session, scored, scored.pool[:90])
    bench.train_head(scored)
    with write_session(bench.engine) as session:
        for item_id in scored.pool[:90]:
            item = session.get_one(Item, item_id)
            item.state, item.class_name, item.decided_by = "withdrawn", None, None
        label(session, scored, scored.pool[90 : 90 + left - 1], class_name="cat")
        label(session, scored, [scored.pool[180]], class_name="dog")

    result = bench.train_head(scored)

    with read_session(bench.engine) as session:
        served = session.get_one(Project, scored.id).head_id
    first, *new = bench.heads(scored)
    assert served == (new[0].id if new else None)
    assert bench.ranking(scored)[0].head_id == served
    assert bool(new) == (left == 20) == (result["missing"] is None)
    assert first.metrics["accuracy"] > 0.9

    bench.train_head(scored)
    with read_session(bench.engine) as session:
        assert session.get_one(Project, scored.id).head_id == served


def test_new_embeddings_are_not_compared_with_old_ones(bench: Bench) -> None:
    """The head before cannot be used on them, so the new one is, however it is."""
    scored = bench.project(pool=200, test=60)
    with write_session(bench.engine) as session:
        label(session, scored, scored.pool[:30])
    bench.train_head(scored)
    with write_session(bench.engine) as session:
        label(session, scored, scored.pool[30:90], class_name="cat")
        project = session.get_one(Project, scored.id)
        run = factories.make_score_run(session, project=project, artifact="scores/1/arrays")
        project.score_run_id = run.id

    bench.train_head(scored)

    assert bench.heads(scored)[1].metrics["promoted"]


def test_pretext_loss_is_correlated_with_the_loss_of_the_head(bench: Bench) -> None:
    scored = bench.project(test=60)
    with write_session(bench.engine) as session:
        label(session, scored, scored.pool[:30])
    bench.train_head(scored)

    (head,) = bench.heads(scored)
    found = head.metrics["pretext_loss_correlation"]
    with np.load(bench.artifacts.local_path(head.artifact), allow_pickle=False) as arrays:
        fitted = LinearHead().load(dict(arrays))
    embeddings, losses = (
        np.load(bench.artifacts.local_path(f"scores/1/arrays/{name}.npy"))[-60:]
        for name in ("embeddings", "losses")
    )
    head_losses = -np.log(fitted.probabilities(embeddings)[np.arange(60), scored.truth[-60:]])
    assert found["rho"] == pytest.approx(spearmanr(losses, head_losses).statistic)
    assert found["low"] < found["rho"] < found["high"]
    assert found["items"] == 60


@pytest.mark.parametrize("head", ["linear", "mlp", "propagate", "auto"])
def test_any_head_can_be_chosen(bench: Bench, head: str) -> None:
    scored = bench.project(test=60, settings={"head": head})
    with write_session(bench.engine) as session:
        label(session, scored, scored.pool[:30])

    bench.train_head(scored)

    (trained,) = bench.heads(scored)
    assert trained.metrics["accuracy"] > 0.9
    assert trained.metrics["trained"] in ({"linear", "mlp", "propagate"} if head == "auto" else {head})
    assert bench.ranking(scored)[0].head_id == trained.id


def _graphs(bench: Bench) -> list[str]:
    return [name for name in bench.artifacts.names("scores/1/arrays") if "graph" in name]


def test_neighbours_in_the_pool_are_found_once_a_score_run(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when an item was set aside meanwhile; and the head is the one that a graph made anew would give."""
    scored = bench.project(settings={"head": "propagate"})
    with write_session(bench.engine) as session:
        label(session, scored, scored.pool[:30])
    bench.train_head(scored)
    (made,) = _graphs(bench)
    with write_session(bench.engine) as session:
        session.get_one(Item, scored.pool[50]).state = "broken"
        label(session, scored, scored.pool[30:31])

    with monkeypatch.context() as patch:
        patch.setattr("scipy.sparse.save_npz", None)  # nothing is made any more
        bench.train_head(scored)
    bench.artifacts.delete(made)
    with write_session(bench.engine) as session:
        session.execute(sa.update(Head).values(kind={"name": "other", "params": {}}))
    bench.train_head(scored)

    _, kept, anew = (np.load(bench.artifacts.local_path(head.artifact)) for head in bench.heads(scored))
    np.testing.assert_array_equal(kept["weights"], anew["weights"])
    assert _graphs(bench) == [made]


def test_a_graph_of_a_pool_that_is_mostly_set_aside_is_of_the_rest_and_not_kept(bench: Bench) -> None:
    scored = bench.project(settings={"head": "propagate"})
    with write_session(bench.engine) as session:
        label(session, scored, scored.pool[:30])
        session.execute(sa.update(Item).where(Item.id.in_(scored.pool[60:])).values(state="withdrawn"))

    assert bench.train_head(scored)["heads"] == [1]
    assert _graphs(bench) == []

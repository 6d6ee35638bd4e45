"""Job compare_with_random: measured behind the ranking, in nobody's way, and as often as there is something new."""

from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa

from service.store import jobs, pipeline
from service.store.control_arm import control_item_ids
from service.store.project_settings import ProjectSettings
from service.store.session import read_session, write_session
from service.store.tables import Head, Job, Project
from tests import factories
from tests.worker import running
from tests.worker.jobs.scored_projects import Bench, ScoredProject, close_round, label, score_run_of
from worker.errors import GivesWay
from worker.evaluation.picks_gain import PicksGain
from worker.heads.linear import LinearHead
from worker.jobs import compare_with_random


def _control_of(bench: Bench, scored: ScoredProject) -> list[int]:
    with read_session(bench.engine) as session:
        return control_item_ids(session, scored.id, ProjectSettings(control_fraction=0.3))


def _queued(bench: Bench) -> list[str]:
    """Kinds of the jobs that wait."""
    with read_session(bench.engine) as session:
        return sorted(session.scalars(sa.select(Job.kind).where(Job.state == "queued")))


def _measured_round(bench: Bench, **settings: Any) -> ScoredProject:
    """A project with a round of 45 control labels and 35 of the strategy's, whose head is trained, and ranked by."""
    scored = bench.project(pool=300, settings={"control_fraction": 0.3, "strategy": "margin"} | settings)
    control = _control_of(bench, scored)
    others = [item for item in scored.pool if item not in set(control)]
    with write_session(bench.engine) as session:
        project, run = session.get_one(Project, scored.id), score_run_of(session, scored)
        ours = factories.make_ranking(session, project=project, score_run=run, strategy={"name": "margin"})
        label(session, scored, control[:45], arm="control")
        last = label(session, scored, others[:35], arm="selected", ranking_id=ours.id)
        close_round(session, scored, last, 80)
    bench.train_head(scored)
    return scored


def test_it_waits_behind_the_ranking(bench: Bench) -> None:
    scored = _measured_round(bench)

    assert bench.ranking(scored)[0].labels_used == 80
    assert "compare_with_random" in _queued(bench)
    assert bench.heads(scored)[0].metrics["random_curve"] == []
    assert bench.heads(scored)[0].metrics["picks_gain"] is None


@pytest.mark.parametrize(("test", "items"), [(0, 60), (50, 50)])
def test_control_labels_alone_tell_what_random_selection_reaches(bench: Bench, test: int, items: int) -> None:
    scored = bench.project(pool=200, test=test, settings={"control_fraction": 0.3})
    with write_session(bench.engine) as session:
        last = label(
            session, scored, control_item_ids(session, scored.id, ProjectSettings(control_fraction=0.3))
        )
        close_round(session, scored, last, 60)

    bench.train_head(scored)
    bench.compare(scored)

    curve = bench.heads(scored)[0].metrics["random_curve"]
    assert [point["labels"] for point in curve] == ([10, 20, 40] if not test else [15, 30, 60])
    assert {point["items"] for point in curve} == {items}
    assert curve[-1]["accuracy"] > 0.8
    assert all(point["accuracy_low"] <= point["accuracy"] <= point["accuracy_high"] for point in curve)


def test_what_the_strategy_asked_for_is_compared_with_control_labels(bench: Bench) -> None:
    """Not what was imported, nor what another strategy asked for."""
    scored = bench.project(pool=300, settings={"control_fraction": 0.3, "strategy": "margin"})
    control = _control_of(bench, scored)
    others = [item for item in scored.pool if item not in set(control)]
    with write_session(bench.engine) as session:
        project, run = session.get_one(Project, scored.id), score_run_of(session, scored)
        ours = factories.make_ranking(session, project=project, score_run=run, strategy={"name": "margin"})
        theirs = factories.make_ranking(
            session, project=project, score_run=run, version=2, strategy={"name": "random"}
        )
        label(session, scored, control[:60], arm="control")
        label(session, scored, others[:35], arm="selected", ranking_id=ours.id)
        label(session, scored, others[35:55], arm="selected", ranking_id=theirs.id)
        last = label(session, scored, others[55:75], arm="imported")
        close_round(session, scored, last, 135)

    bench.train_head(scored)
    bench.compare(scored)

    found = bench.heads(scored)[0].metrics["picks_gain"]
    assert (found["strategy"], found["labels"], found["items"]) == ("margin", 35, 60)
    assert found["low"] <= found["gain"] <= found["high"]


@pytest.mark.parametrize(("more", "made_anew"), [(5, False), (20, True)])
def test_it_is_measured_anew_when_the_control_labels_have_grown(
    bench: Bench, more: int, made_anew: bool
) -> None:
    """Until then a round has what was measured before; a head between the rounds has none."""
    scored = bench.project(pool=200, test=50, settings={"control_fraction": 0.3})
    control = _control_of(bench, scored)
    with write_session(bench.engine) as session:
        close_round(session, scored, label(session, scored, control[:40]), 40)
    bench.train_head(scored)
    bench.compare(scored)
    with write_session(bench.engine) as session:
        label(session, scored, np.setdiff1d(scored.pool, control)[:1].tolist())
    bench.train_head(scored)
    with write_session(bench.engine) as session:
        close_round(session, scored, label(session, scored, control[40 : 40 + more]), 40)
    bench.train_head(scored)

    first, between, second = (head.metrics["random_curve"] for head in bench.heads(scored))
    assert between == []
    assert first[-1]["labels"] == 40
    assert second == first
    assert ("compare_with_random" in _queued(bench)) == made_anew
    if made_anew:
        assert bench.compare(scored) == {"head": 3, "control_labels": 60}
        newest = bench.heads(scored)[2].metrics
        assert newest["random_curve"][-1]["labels"] == 60
        assert newest["measured_on"] == "test"  # the rest of the metrics stays


@pytest.mark.parametrize("change", ["head", "strategy", "classes"])
def test_what_was_measured_of_something_else_is_not_carried_on(bench: Bench, change: str) -> None:
    scored = _measured_round(bench)
    bench.compare(scored)
    with write_session(bench.engine) as session:
        project = session.get_one(Project, scored.id)
        if change == "classes":
            project.classes = [*project.classes, "bat"]
        else:
            chosen = {"head": "mlp", "strategy": "entropy"}[change]
            project.settings = project.settings | {change: {"name": chosen, "params": {}}}
        rest = np.setdiff1d(scored.pool, _control_of(bench, scored))[35:40].tolist()
        close_round(session, scored, label(session, scored, rest, arm="imported"), 5)
    bench.train_head(scored)

    first, second = (head.metrics for head in bench.heads(scored))
    assert first["random_curve"]
    assert first["picks_gain"]
    assert bool(second["random_curve"]) == (change == "strategy")
    assert second["picks_gain"] is None


def test_it_gives_way_between_two_fits_and_goes_on_after_them(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it finds is what it would have found in one go."""
    scored = _measured_round(bench)
    fits: list[int] = []
    fit = LinearHead.fit

    def fit_seen(self: LinearHead, view: Any, rng: np.random.Generator) -> Any:
        fits.append(len(view))
        if len(fits) == 4:
            with write_session(bench.engine) as session:
                pipeline.queue_rank(session, session.get_one(Project, scored.id))
        return fit(self, view, rng)

    monkeypatch.setattr(LinearHead, "fit", fit_seen)
    context = bench.claim_comparison(scored)
    with pytest.raises(GivesWay):
        running.run(context)
    assert len(fits) == 4
    jobs.release(bench.engine, context.job)
    rank = running.claim(bench.engine, bench.settings, bench.artifacts)
    assert rank.job.kind == "rank"
    running.run(rank)
    assert bench.heads(scored)[0].metrics["random_curve"] == []

    bench.compare(scored)

    assert len(fits) == 15
    in_parts = bench.heads(scored)[0].metrics
    with write_session(bench.engine) as session:
        pipeline.queue_compare_with_random(session, session.get_one(Project, scored.id))
    bench.compare(scored)
    assert len(fits) == 30  # nothing is kept once it is done
    assert bench.heads(scored)[0].metrics == in_parts


def test_it_does_not_give_way_to_what_its_worker_cannot_do(bench: Bench) -> None:
    """Nor to what is of no higher priority: each would get it again at once."""
    scored = _measured_round(bench)
    context = bench.claim_comparison(scored)
    context.has = frozenset(context.job.needs)
    with write_session(bench.engine) as session:
        project = session.get_one(Project, scored.id)
        pipeline.queue_rank(session, project)
        pipeline.queue_compare_with_random(session, project)

    running.run(context)

    assert bench.heads(scored)[0].metrics["random_curve"] != []


def test_a_newer_round_is_compared_in_place_of_one_that_gave_way(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    scored = _measured_round(bench)
    with write_session(bench.engine) as session:
        pipeline.queue_rank(session, session.get_one(Project, scored.id))
    context = bench.claim_comparison(scored)
    with pytest.raises(GivesWay):
        running.run(context)
    jobs.release(bench.engine, context.job)
    with write_session(bench.engine) as session:
        more = _control_of(bench, scored)[45:60]
        close_round(session, scored, label(session, scored, more, arm="control"), 15)
    running.run(running.claim(bench.engine, bench.settings, bench.artifacts))
    bench.train_head(scored)

    assert bench.compare(scored) == {"head": 2, "control_labels": 60}
    first, second = (head.metrics["random_curve"] for head in bench.heads(scored))
    assert first == []
    assert second[-1]["items"] == 60


@pytest.mark.parametrize("change", ["head", "classes", "scores"])
def test_a_head_that_the_project_has_done_with_is_not_compared(bench: Bench, change: str) -> None:
    scored = _measured_round(bench)
    with write_session(bench.engine) as session:
        project = session.get_one(Project, scored.id)
        if change == "head":
            project.settings = project.settings | {"head": {"name": "finetune", "params": {}}}
        elif change == "classes":
            project.classes = [*project.classes, "bat"]
        else:
            project.score_run_id = None

    assert bench.compare(scored)["head"] is None
    assert bench.heads(scored)[0].metrics["random_curve"] == []


def test_a_job_that_lost_its_lease_writes_nothing(bench: Bench) -> None:
    scored = _measured_round(bench)
    context = bench.claim_comparison(scored)
    with write_session(bench.engine) as session:
        session.execute(sa.update(Job).where(Job.id == context.job.id).values(token=Job.token + 1))

    with pytest.raises(jobs.LeaseLost):
        running.run(context)

    assert bench.heads(scored)[0].metrics["random_curve"] == []


@pytest.mark.parametrize("before", [-0.2, 0.1])
def test_the_pool_is_ranked_again_where_the_strategy_gets_another_share(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, before: float
) -> None:
    """Two measurements in a row that the strategy teaches less: random takes over, and no round is waited for."""
    scored = _measured_round(bench)
    found = {"gain": before, "low": before - 0.05, "high": before + 0.05, "labels": 20, "items": 30}
    with write_session(bench.engine) as session:
        head = session.scalars(sa.select(Head)).one()
        head.version = 2
        factories.make_head(
            session,
            project=session.get_one(Project, scored.id),
            score_run=score_run_of(session, scored),
            version=1,
            round_number=7,
            metrics={"random_curve": [], "picks_gain": {"strategy": "margin"} | found},
        )
    worse = PicksGain(-0.3, -0.4, -0.2, 35, 45)
    monkeypatch.setattr(compare_with_random, "picks_gain", lambda *_: worse)

    bench.compare(scored)

    assert ("rank" in _queued(bench)) == (before < 0)

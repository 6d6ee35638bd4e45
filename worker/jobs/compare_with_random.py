"""Job compare_with_random: what random selection reaches, and what the strategy's labels teach against as many random
ones, on the control labels of the newest round.

Written into the metrics of that round's head, as `random_curve` and `picks_gain` (`measure_head`). It takes up to
fifteen fits, for which no annotator should wait: between two of them it gives way to whatever is waited for, and goes
on after those it has done. Where the gain changes the strategy's share of the ranking, the pool is ranked again.

A head of another kind, for other classes or on other embeddings than the project's is not compared any more: the next
round has one.
"""

from dataclasses import asdict, dataclass
from functools import cache, partial
from typing import Any

import numpy as np
import sqlalchemy as sa
from sqlalchemy.orm import Session

from service.store import pipeline
from service.store.project_settings import ProjectSettings
from service.store.tables import Head, Project, ScoreRun
from worker.arrays import Ints
from worker.evaluation.known_items import KnownItems
from worker.evaluation.picks_gain import PicksGain, picks_gain, share_of_strategy
from worker.evaluation.random_baseline import random_curve
from worker.heads import Fit, FittedHead
from worker.heads.labeled_view import LabeledView
from worker.jobs.context import JobContext
from worker.jobs.kept_graph import pool_graph
from worker.jobs.probe_sets import of_control_arm
from worker.jobs.specs import chosen_head, labeled_items, labels_asked_by, test_items
from worker.jobs.train_head.measure_head import OF_A_ROUND, is_of, newest_head, on_alike
from worker.scoring.scored_items import ScoredItems

_FITS = 15  # at most
_LOOKED_BACK = 20  # rounds, for the newest measurements of what picks gain


@dataclass(frozen=True)
class _State:
    """The job's view of the database, read in one transaction."""

    project: Project
    settings: ProjectSettings
    score_run: ScoreRun
    head: Head  # of the newest round
    labeled: KnownItems  # by labels up to the head's last one
    test: KnownItems
    control: Ints  # labeled items that the control arm asked for
    picked_by: Ints  # labels that the project's strategy asked for

    @staticmethod
    def read(session: Session, project_id: int | None) -> "_State | None":
        project = session.get_one(Project, project_id)
        if project.score_run_id is None:
            return None
        settings = ProjectSettings.model_validate(project.settings)
        score_run = session.get_one(ScoreRun, project.score_run_id)
        head = newest_head(session, project.id, on_alike(score_run), OF_A_ROUND)
        if head is None or not is_of(head, project, settings):
            return None
        labeled = labeled_items(session, project.id, project.classes, project.label_kind)
        labeled = labeled.keep(labeled.decided_by <= head.last_label_id)
        return _State(
            project=project,
            settings=settings,
            score_run=score_run,
            head=head,
            labeled=labeled,
            test=test_items(session, project.id, project.classes, project.label_kind),
            control=labeled.ids[of_control_arm(session, project.id, settings, labeled)],
            picked_by=labels_asked_by(session, project.id, settings.strategy.name),
        )


def run(context: JobContext) -> dict[str, Any]:
    with context.read() as session:
        state = _State.read(session, context.job.project_id)
    if state is None or chosen_head(state.settings.head).needs_items:
        return {"head": None, "note": "There is no head of a round to compare."}
    scored = ScoredItems.open(context.artifacts, str(state.score_run.artifact))
    labeled = state.labeled.keep(scored.where(state.labeled.ids) >= 0)
    tested = state.test.keep(scored.where(state.test.ids) >= 0)
    test = (scored.embeddings_of(tested.ids), tested.classes) if len(tested) else None
    control = np.isin(labeled.ids, state.control)
    picked = np.isin(labeled.decided_by, state.picked_by) & ~control
    view = LabeledView(
        scored.embeddings_of(labeled.ids),
        labeled.classes,
        len(state.project.classes),
        make_graph=cache(partial(pool_graph, context, state.project, state.score_run, scored)),
    )
    fit, strategy = _KEPT.fit_of(context, state, labeled), state.settings.strategy.name
    gain_rng, curve_rng = (np.random.default_rng(seed) for seed in _seeds(state))
    gain = picks_gain(fit, view.keep(picked), view.keep(control), test, gain_rng)
    found = {
        "random_curve": random_curve(fit, view.keep(control), test, curve_rng),
        "picks_gain": asdict(gain) | {"strategy": strategy} if gain else None,
    }
    result = {"head": state.head.version, "control_labels": int(control.sum())}
    with context.finish(result) as session:
        # Locked, so that no class is renamed in the metrics at the same time.
        project = session.get_one(Project, state.project.id, with_for_update={"key_share": True})
        before = share_of_strategy(measured_gains(session, state.score_run, strategy))
        head = session.get_one(Head, state.head.id, populate_existing=True)
        head.metrics = head.metrics | found
        session.flush()
        if share_of_strategy(measured_gains(session, state.score_run, strategy)) != before:
            pipeline.queue_rank(session, project)
    _KEPT.forget()
    return result


def _seeds(state: _State) -> tuple[int, list[int]]:
    return state.settings.seed, [state.settings.seed, state.head.last_label_id]


def measured_gains(session: Session, score_run: ScoreRun, strategy: str) -> list[PicksGain]:
    """The gains of a strategy over random ones, the newest first, each as often as it was measured, though heads of
    rounds in between repeat it.
    """
    measured = sa.select(Head.metrics["picks_gain"]).where(
        on_alike(score_run),
        OF_A_ROUND,
        Head.metrics["picks_gain", "strategy"].as_string() == strategy,
    )
    found = session.scalars(measured.order_by(Head.version.desc()).limit(_LOOKED_BACK))
    gains = [PicksGain(**{k: v for k, v in one.items() if k != "strategy"}) for one in found]
    return list(dict.fromkeys(gains))


class _KeptFits:
    """The fits of the comparison that gave way last, in the runner's memory: run again, it makes the same in the same
    order, and takes these for the first ones.
    """

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        self._of: tuple[object, ...] = ()
        self._done: list[tuple[FittedHead, Any]] = []  # with the generator's state after it

    def fit_of(self, context: JobContext, state: _State, labeled: KnownItems) -> Fit:
        """The fits of the state's head; each begins by giving way."""
        of = (
            context.engine.url,
            state.head.id,
            state.score_run.id,
            state.settings,
            labeled.digest(),
            state.test.digest(),
            state.control.tobytes(),
            state.picked_by.tobytes(),
        )
        if self._of != of:
            self.forget()
            self._of = of
        kind, asked = chosen_head(state.settings.head), iter(range(_FITS))

        def fit(view: LabeledView, rng: np.random.Generator) -> FittedHead:
            number = next(asked)
            if number == len(self._done):
                context.give_way()
                context.report(number / _FITS, "comparing with random selection")
                self._done.append((kind.fit(view, rng), rng.bit_generator.state))
            fitted, rng.bit_generator.state = self._done[number]
            return fitted

        return fit


_KEPT = _KeptFits()

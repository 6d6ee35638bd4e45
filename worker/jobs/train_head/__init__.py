"""Job train_head: a head for each round closed since the newest measured one, then one on all labels, served from
now on; where labels became too few for a head, none is served. Where an import closed many rounds at once, some of them
stand for all (`ROUNDS_AT_ONCE`); the others stay without a head.

A head trains on the pool items that labels up to its last one decided. `measure_head` says how it is
measured, and whether it is promoted, that is, put to use. A round's metrics stay those of its own head, promoted or
not.

A head that needs items (`Head.needs_items`) takes minutes to train, so it is cross-fitted once, in its own
training, and its probabilities for all scored items are worked out then and stored beside it.

Random choices come from (seed of the project, last label), so a head can be trained again. A job that is run
again goes on after the newest round it measured.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import sqlalchemy as sa
from sqlalchemy.orm import Session

from service.store import outbox, pipeline
from service.store.class_names import ClassNames
from service.store.own_embeddings import is_own
from service.store.project_settings import ProjectSettings
from service.store.tables import Head, LabelCheck, PretextModel, Project, Round, ScoreRun, utc_now
from worker.arrays import Ints
from worker.errors import JobFailed, Unsuited
from worker.evaluation.known_items import KnownItems
from worker.evaluation.metrics import BY_CLASS, told_apart
from worker.heads import Head as HeadKind
from worker.heads import heads
from worker.heads.labeled_view import LabeledView
from worker.heads.pool_graph import PoolGraph
from worker.jobs import check_labels
from worker.jobs.context import JobContext
from worker.jobs.kept_graph import pool_graph
from worker.jobs.probe_sets import of_control_arm
from worker.jobs.specs import (
    chosen_head,
    labeled_items,
    store_probabilities,
    test_items,
)
from worker.jobs.train_head.answers import store_answers
from worker.jobs.train_head.decoded_pool import DecodedPool
from worker.jobs.train_head.measure_head import (
    OF_A_ROUND,
    PROMOTED,
    HeadMeasurer,
    Trained,
    newest_head,
    random_is_due,
)
from worker.pool.reader import ItemReader
from worker.scoring.scored_items import ScoredItems

# An import can close thousands of rounds. So many points show how accuracy grew; each is a head trained and measured,
# before the newest labels are in use.
ROUNDS_AT_ONCE = 20
_TRAINING = 0.8  # share of the progress of a head that needs items; the rest is predicting


@dataclass(frozen=True)
class _State:
    """The job's view of the database, read in one transaction."""

    project: Project
    settings: ProjectSettings
    score_run: ScoreRun
    no_network: str | None  # why there is none that a head on items could train further, in a sentence
    labeled: KnownItems
    test: KnownItems
    control: Ints  # labeled items that the control arm asked for
    unmeasured: list[Round]  # closed since the newest one that has a head
    newest: Head | None
    classes_changed: bool  # by a consensus, since the newest head

    @staticmethod
    def read(session: Session, project_id: int | None) -> "_State | None":
        project = session.get_one(Project, project_id)
        if project.score_run_id is None:
            return None
        settings = ProjectSettings.model_validate(project.settings)
        measured = sa.select(sa.func.max(Round.number)).where(
            Round.project_id == project.id, Round.head_id.is_not(None)
        )
        unmeasured = sa.select(Round).where(
            Round.project_id == project.id,
            Round.last_label_id.is_not(None),
            Round.number > sa.func.coalesce(measured.scalar_subquery(), 0),
        )
        newest = newest_head(session, project.id)
        check = session.get(LabelCheck, project.id)
        labeled = labeled_items(session, project.id, project.classes, project.label_kind)
        score_run = session.get_one(ScoreRun, project.score_run_id)
        return _State(
            project=project,
            settings=settings,
            score_run=score_run,
            no_network=_no_network(session, score_run),
            labeled=labeled,
            test=test_items(session, project.id, project.classes, project.label_kind),
            control=labeled.ids[of_control_arm(session, project.id, settings, labeled)],
            unmeasured=list(session.scalars(unmeasured.order_by(Round.number))),
            newest=newest,
            classes_changed=bool(check and check.changed and newest and check.created_at > newest.created_at),
        )

    def serves(self, labeled: KnownItems) -> bool:
        """True if training on all of `labeled` would give the newest head again."""
        newest = self.newest
        return (
            newest is not None
            and not self.classes_changed
            and newest.score_run_id == self.score_run.id
            and newest.kind == self.settings.head.model_dump()
            and newest.classes == self.project.classes
            and newest.last_label_id == int(labeled.decided_by.max(initial=0))
            and newest.trained_digest == labeled.digest()
        )


@dataclass(frozen=True)
class _Wanted:
    """A head to train on the labels up to `last_label_id`; `round_number` is the closed round it measures, if any."""

    last_label_id: int
    labels_used: int
    round_number: int | None


def run(context: JobContext) -> dict[str, Any] | None:
    with context.read() as session:
        state = _State.read(session, context.job.project_id)
    if state is None:
        return {"heads": [], "missing": "The pool has no scores yet; the head follows the first score run."}
    if state.no_network is not None and chosen_head(state.settings.head).needs_items:
        return {"heads": [], "missing": state.no_network}
    trainer = _Trainer(context, state)
    wanted, missing = trainer.wanted()
    versions = []
    for number, one in enumerate(wanted):

        def report(done: float, message: str, number: int = number) -> None:
            context.report((number + done) / len(wanted), f"head {number + 1} of {len(wanted)}: {message}")

        report(0.0, "training")
        versions.append(trainer.train(one, report))
    result = {"heads": versions, "missing": missing}
    with context.finish(result) as session:
        project = session.get_one(Project, state.project.id)
        served = newest_head(session, project.id, PROMOTED)
        if missing is not None:  # labels were withdrawn, and the head that learned from them goes too
            project.head_id = None
        elif served is not None and served.id != project.head_id:
            project.head_id = served.id
            told = {"head": served.version, "labels_used": served.labels_used}
            outbox.tell(session, project.id, "head.promoted", told)
        pipeline.queue_rank(session, project)
        if any(one.round_number is not None for one in wanted):
            check_labels.queue_if_due(session, project, len(state.labeled))
            if trainer.random_is_due(session):
                pipeline.queue_compare_with_random(session, project)
    return result


class _Trainer:
    def __init__(self, context: JobContext, state: _State) -> None:
        self._context, self._state = context, state
        self._head: HeadKind = chosen_head(state.settings.head)
        if state.project.label_kind == "multi" and not self._head.several:
            able = ", ".join(name for name, kind in heads().items() if kind.several)
            raise JobFailed(
                f"The head {self._head.name!r} tells one class of an item, and an item of this project may have "
                f"several. Choose one of {able} in the project's settings."
            )
        if self._head.needs_items and context.job.lane == "short":
            # The head was chosen while the job was queued, or before any worker announced it.
            raise Unsuited(f"Head {self._head.name!r} takes minutes to train.", lane="long")
        self._scored = scored = ScoredItems.open(context.artifacts, str(state.score_run.artifact))
        self._labeled = state.labeled.keep(scored.where(state.labeled.ids) >= 0)
        self._measurer = HeadMeasurer(
            context,
            state.project,
            state.settings,
            state.score_run,
            scored,
            test=state.test.keep(scored.where(state.test.ids) >= 0),
            control=state.control,
        )

    def wanted(self) -> tuple[list[_Wanted], str | None]:
        """In the order of their labels, the last on all labels; and what is missing for that one, in a
        sentence.
        """
        rounds = [
            _Wanted(
                last_label_id=closed.last_label_id,
                labels_used=closed.labels_before + (closed.labels or 0),
                round_number=closed.number,
            )
            for closed in self._state.unmeasured
            if closed.last_label_id is not None
        ]
        found = [one for one in _spread(rounds) if self._missing(self._training_of(one)) is None]
        last = int(self._labeled.decided_by.max(initial=0))
        missing = self._missing(self._labeled)
        covered = found and found[-1].last_label_id >= last
        if missing is None and not covered and (found or not self._state.serves(self._labeled)):
            found.append(_Wanted(last, self._state.project.labels_used, None))
        return found, missing

    def _training_of(self, wanted: _Wanted) -> KnownItems:
        return self._labeled.keep(self._labeled.decided_by <= wanted.last_label_id)

    def _missing(self, training: KnownItems) -> str | None:
        least = self._state.settings.retrain_min_labels
        if len(training) < least:
            return (
                f"A first head needs {least} labeled items (retrain_min_labels); there are {len(training)}."
            )
        if not told_apart(training.classes):
            if training.classes.ndim == 2:
                return "No class is on some labeled items and not on others yet; a head needs one that is."
            return "All labeled items are of one class; a head needs at least two classes."
        return None

    def random_is_due(self, session: Session) -> bool:
        """True if the head of the newest round is to be compared (`measure_head.random_is_due`)."""
        newest = newest_head(session, self._state.project.id, OF_A_ROUND)
        if newest is None or self._head.needs_items:
            return False
        control = int(np.isin(self._labeled.ids, self._state.control).sum())
        return random_is_due(newest, control, tested=len(self._measurer.test) > 0)

    def train(self, wanted: _Wanted, report: Callable[[float, str], None]) -> int:
        """Train, measure, store; returns the version."""
        started = time.perf_counter()
        training = self._training_of(wanted)
        state, rng = self._state, np.random.default_rng([self._state.settings.seed, wanted.last_label_id])
        trained = self._fit(training, rng, report)
        held_out, metrics = self._measurer.measure(trained, training, wanted.round_number is not None, rng)
        with self._context.read() as session:
            newest = newest_head(session, state.project.id)
            note = self._measurer.reason_against(session, held_out, len(training))
        metrics |= {"promoted": note is None, "note": note}
        seconds = time.perf_counter() - started
        version = newest.version + 1 if newest is not None else 1
        job = self._context.job
        artifact = f"heads/{state.project.id}/{version}-{job.id}-{job.token}.npz"
        with self._context.artifacts.writing(artifact) as file:
            np.savez(file, allow_pickle=False, **trained.fitted.arrays())
        if trained.everywhere is not None:
            store_probabilities(self._context.artifacts, artifact, self._scored.ids, trained.everywhere)
        if held_out is not None:
            store_answers(self._context.artifacts, artifact, held_out)
        with self._context.publish() as session:
            # Classes that were renamed while it was trained bear their new names; locked, so that none is renamed now.
            now = session.get_one(Project, state.project.id, with_for_update={"key_share": True})
            classes = ClassNames(now).each_now(state.project.classes)
            for by_class in BY_CLASS & metrics.keys():
                metrics[by_class] = dict(zip(classes, metrics[by_class].values(), strict=True))
            head = Head(
                project_id=state.project.id,
                version=version,
                kind=state.settings.head.model_dump(),
                classes=classes,
                score_run_id=state.score_run.id,
                artifact=artifact,
                labels_used=wanted.labels_used,
                trained_on=len(training),
                last_label_id=wanted.last_label_id,
                trained_digest=training.digest(),
                round_number=wanted.round_number,
                seed=state.settings.seed,
                metrics=metrics,
                seconds=seconds,
            )
            session.add(head)
            session.flush()
            if wanted.round_number is not None:
                closed = session.get_one(Round, (state.project.id, wanted.round_number))
                closed.head_id, closed.measured_at = head.id, utc_now()
                told = {name: metrics[name] for name in ("measured_on", "items", "accuracy")}
                if "mean_average_precision" in metrics:
                    told["mean_average_precision"] = metrics["mean_average_precision"]
                outbox.tell(
                    session,
                    state.project.id,
                    "round.measured",
                    {"round": closed.number, "head": version} | told,
                )
        return version

    def _fit(
        self, training: KnownItems, rng: np.random.Generator, report: Callable[[float, str], None]
    ) -> Trained:
        embeddings, classes = self._scored.embeddings_of(training.ids), self._state.project.classes
        view = LabeledView(embeddings, training.classes, len(classes), make_graph=lambda: self._graph)
        if not self._head.needs_items:
            return Trained(self._head, self._head.fit(view, rng), view)
        with ItemReader(self._context.settings) as reader:
            pool = DecodedPool(self._context, self._state.score_run, self._scored, reader)
            items = pool.labeled(
                self._scored.where(training.ids), lambda done, message: report(_TRAINING * done, message)
            )
            fitted = self._head.fit(replace(view, items=items), rng)
            everywhere = pool.probabilities_by(
                fitted, lambda done, message: report(_TRAINING + (1 - _TRAINING) * done, message)
            )
        return Trained(self._head, fitted, view, everywhere)

    @cached_property
    def _graph(self) -> PoolGraph:
        return pool_graph(self._context, self._state.project, self._state.score_run, self._scored)


def _no_network(session: Session, score_run: ScoreRun) -> str | None:
    if score_run.pretext_model_id is None:
        return "The head trains on the items, by the pretext model's backbone: it follows the first pretext model."
    if is_own(session.get_one(PretextModel, score_run.pretext_model_id)):
        return "The head trains on the items, by a backbone, and your embeddings came without one: choose another head."
    return None


def _spread(rounds: list[_Wanted]) -> list[_Wanted]:
    """At most ROUNDS_AT_ONCE of them, evenly by labels used, with the newest."""
    if len(rounds) <= ROUNDS_AT_ONCE:
        return rounds
    labels_used = [one.labels_used for one in rounds]
    rows = np.searchsorted(labels_used, np.linspace(labels_used[0], labels_used[-1], ROUNDS_AT_ONCE))
    return [rounds[row] for row in np.unique(rows)]

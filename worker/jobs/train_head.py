"""Job train_head: a head for every closed round that has none, then one on all labels, served from now on.

A head trains on the pool items that labels up to its last one decided. It is measured on the test split;
where there is none, a round's head is measured on the control items by cross-fitting: each is predicted by a
head that never saw it. (Between rounds five more trainings would only keep the next ranking waiting.)
`Head.metrics`:

    {"measured_on": "test" | "control" | null, "items", "accuracy", "accuracy_low", "accuracy_high" (95 %),
     "macro_f1", "nll", "ece", "recall": {class: share or null}, "confusion": [[true × predicted]],
     "temperature"}

Numbers are null, and the confusion empty, where nothing could be measured. Random choices come from (seed
of the project, last label), so a head can be trained again. A job that is run again goes on where it was.
"""

import time
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import sqlalchemy as sa
from sqlalchemy.orm import Session

from service.store import pipeline
from service.store.control_arm import control_item_ids
from service.store.project_settings import ProjectSettings
from service.store.tables import Head, Project, Round, ScoreRun, utc_now
from worker.heads import FittedHead, heads
from worker.heads import Head as HeadKind
from worker.jobs.choices import chosen
from worker.jobs.context import JobContext
from worker.jobs.pool import KnownItems, ScoredItems, labeled_items, test_items
from worker.measuring import Measures, measure
from worker.pool_view import Bools, Floats, Ints

_FOLDS = 5


@dataclass(frozen=True)
class _State:
    """What the database knows, read in one transaction."""

    project: Project
    settings: ProjectSettings
    score_run: ScoreRun
    labeled: KnownItems
    test: KnownItems
    control: Ints
    unmeasured: list[Round]  # closed, without a head
    newest: Head | None

    @staticmethod
    def read(session: Session, project_id: int | None) -> "_State | None":
        project = session.get_one(Project, project_id)
        if project.score_run_id is None:
            return None
        settings = ProjectSettings.model_validate(project.settings)
        unmeasured = sa.select(Round).where(
            Round.project_id == project.id, Round.last_label_id.is_not(None), Round.head_id.is_(None)
        )
        return _State(
            project=project,
            settings=settings,
            score_run=session.get_one(ScoreRun, project.score_run_id),
            labeled=labeled_items(session, project.id, project.classes),
            test=test_items(session, project.id, project.classes),
            control=np.array(control_item_ids(session, project.id, settings), np.int64),
            unmeasured=list(session.scalars(unmeasured.order_by(Round.number))),
            newest=_newest_head(session, project.id),
        )

    def serves(self, labeled: KnownItems) -> bool:
        """Whether the newest head is what training on all of `labeled` would give."""
        newest = self.newest
        return (
            newest is not None
            and newest.score_run_id == self.score_run.id
            and newest.kind == self.settings.head.model_dump()
            and newest.classes == self.project.classes
            and newest.last_label_id == int(labeled.decided_by.max(initial=0))
            and newest.trained_on == len(labeled)
        )


@dataclass(frozen=True)
class _Wanted:
    """A head to train; `round_number` is the closed round it measures, if any."""

    training: KnownItems
    last_label_id: int
    labels_used: int
    round_number: int | None


def run(context: JobContext) -> dict[str, Any] | None:
    with context.read() as session:
        state = _State.read(session, context.job.project_id)
    if state is None:
        return {"heads": [], "missing": "The pool has no scores yet; the head follows the first score run."}
    trainer = _Trainer(context, state)
    wanted, missing = trainer.wanted()
    versions = []
    for number, one in enumerate(wanted):
        context.report(number / len(wanted), f"training head {number + 1} of {len(wanted)}")
        versions.append(trainer.train(one))
    result = {"heads": versions, "missing": missing}
    with context.finish(result) as session:
        project = session.get_one(Project, state.project.id)
        newest = _newest_head(session, project.id)
        if newest is not None:
            project.head_id = newest.id
        pipeline.queue_rank(session, project)
    return result


class _Trainer:
    def __init__(self, context: JobContext, state: _State) -> None:
        self._context, self._state = context, state
        self._kind: HeadKind = chosen(heads(), state.settings.head, "head")
        self._scored = scored = ScoredItems.open(context.artifacts, state.score_run)
        self._labeled = state.labeled.keep(scored.where(state.labeled.ids) >= 0)
        self._test = state.test.keep(scored.where(state.test.ids) >= 0)

    def wanted(self) -> tuple[list[_Wanted], str | None]:
        """In the order of their labels, the last on all labels; and what is missing for that one, in a
        sentence.
        """
        rounds = [
            _Wanted(
                training=self._labeled.keep(self._labeled.decided_by <= closed.last_label_id),
                last_label_id=closed.last_label_id,
                labels_used=closed.labels_before + (closed.labels or 0),
                round_number=closed.number,
            )
            for closed in self._state.unmeasured
            if closed.last_label_id is not None
        ]
        found = [one for one in rounds if self._missing(one.training) is None]
        last = int(self._labeled.decided_by.max(initial=0))
        missing = self._missing(self._labeled)
        covered = found and found[-1].last_label_id >= last
        if missing is None and not covered and (found or not self._state.serves(self._labeled)):
            found.append(_Wanted(self._labeled, last, self._state.project.labels_used, None))
        return found, missing

    def _missing(self, training: KnownItems) -> str | None:
        least = self._state.settings.retrain_min_labels
        if len(training) < least:
            return (
                f"A first head needs {least} labeled items (retrain_min_labels); there are {len(training)}."
            )
        if len(np.unique(training.classes)) < 2:
            return "All labeled items are of one class; a head needs at least two classes."
        return None

    def train(self, wanted: _Wanted) -> int:
        """Train, measure, store; returns the version."""
        started = time.perf_counter()
        state, rng = self._state, np.random.default_rng([self._state.settings.seed, wanted.last_label_id])
        embeddings = self._embeddings(wanted.training)
        fitted = self._fit(embeddings, wanted.training.classes, rng)
        metrics = self._measure(fitted, wanted, embeddings, rng)
        seconds = time.perf_counter() - started
        with self._context.read() as session:
            newest = _newest_head(session, state.project.id)
        version = newest.version + 1 if newest is not None else 1
        job = self._context.job
        artifact = f"heads/{state.project.id}/{version}-{job.id}-{job.token}.npz"
        with self._context.artifacts.writing(artifact) as file:
            np.savez(file, allow_pickle=False, **fitted.arrays())
        with self._context.publish() as session:
            head = Head(
                project_id=state.project.id, version=version, kind=state.settings.head.model_dump(),
                classes=state.project.classes, score_run_id=state.score_run.id, artifact=artifact,
                labels_used=wanted.labels_used, trained_on=len(wanted.training),
                last_label_id=wanted.last_label_id, round_number=wanted.round_number,
                seed=state.settings.seed, metrics=metrics, seconds=seconds,
            )  # fmt: skip
            session.add(head)
            session.flush()
            if wanted.round_number is not None:
                closed = session.get_one(Round, (state.project.id, wanted.round_number))
                closed.head_id, closed.measured_at = head.id, utc_now()
        return version

    def _embeddings(self, known: KnownItems) -> Floats:
        """(m, d) float32"""
        return self._scored.embeddings[self._scored.where(known.ids)].astype(np.float32)

    def _fit(self, embeddings: Floats, classes: Ints, rng: np.random.Generator) -> FittedHead:
        return self._kind.fit(embeddings, classes, len(self._state.project.classes), rng)

    def _measure(
        self, fitted: FittedHead, wanted: _Wanted, embeddings: Floats, rng: np.random.Generator
    ) -> dict[str, Any]:
        """`Head.metrics`"""
        training = wanted.training
        control = np.isin(training.ids, self._state.control)
        measured_on, measures = None, None
        if len(self._test):
            measured_on = "test"
            measures = measure(fitted.probabilities(self._embeddings(self._test)), self._test.classes)
        elif wanted.round_number is not None and control.any():
            measured_on = "control"
            measures = self._measure_by_cross_fitting(control, embeddings, training.classes, rng)
        metrics: dict[str, Any] = asdict(measures) if measures is not None else dict(_NOTHING_MEASURED)
        recall = metrics["recall"] or [None] * len(self._state.project.classes)
        metrics["recall"] = dict(zip(self._state.project.classes, recall, strict=True))
        temperature = fitted.arrays().get("temperature")
        metrics["temperature"] = None if temperature is None else float(temperature)
        return {"measured_on": measured_on, **metrics}

    def _measure_by_cross_fitting(
        self, control: Bools, embeddings: Floats, classes: Ints, rng: np.random.Generator
    ) -> Measures:
        """On the control rows among the training items: each predicted by a head that never saw it."""
        rows = rng.permutation(np.flatnonzero(control))
        probabilities = np.empty((len(classes), len(self._state.project.classes)), np.float32)
        for held_out in np.array_split(rows, min(_FOLDS, len(rows))):
            seen = np.ones(len(classes), np.bool_)
            seen[held_out] = False
            fitted = self._fit(embeddings[seen], classes[seen], rng)
            probabilities[held_out] = fitted.probabilities(embeddings[held_out])
        return measure(probabilities[rows], classes[rows])


_NOTHING_MEASURED: dict[str, Any] = {
    "items": 0, "accuracy": None, "accuracy_low": None, "accuracy_high": None, "macro_f1": None, "nll": None,
    "ece": None, "recall": [], "confusion": [],
}  # fmt: skip


def _newest_head(session: Session, project_id: int) -> Head | None:
    query = sa.select(Head).where(Head.project_id == project_id).order_by(Head.version.desc()).limit(1)
    return session.scalar(query)

"""Job train_head: a head for every closed round that has none, then one on all labels, served from now on.

A head trains on the pool items that labels up to its last one decided. It is measured on the test split;
where there is none, a round's head is measured on the control items by cross-fitting: each is predicted by a
head that never saw its label. (Between rounds more trainings would only keep the next ranking waiting.)
`Head.metrics`:

    {"measured_on": "test" | "control" | null, "items", "accuracy", "accuracy_low", "accuracy_high" (95 %),
     "macro_f1", "nll", "ece", "recall": {class: share or null}, "confusion": [[true × predicted]],
     "pretext_loss_correlation": {"rho", "low", "high", "items"} or null: of the pretext loss and the head's own,
     "random_curve": see `random_curve`; of a round's head, where there are enough control labels,
     "trained": name of the head, or of the one `auto` chose, "temperature",
     "promoted": whether it was put to use, "note": why not, or null}

Numbers are null, and the confusion empty, where nothing could be measured.

A head is promoted unless it is worse, beyond noise, than the newest promoted head that was measured: the 95 %
interval of the difference in accuracy on the items both were measured on lies below 0. A head between rounds
that is not measured itself goes with the newest measured one, so labels that spoiled a round's head are not
let in by the next. Heads for other embeddings or other classes are not compared: those before cannot be used
any more. A round's metrics stay those of its own head, promoted or not.

Random choices come from (seed of the project, last label), so a head can be trained again. A job that is run
again goes on where it was.
"""

import time
from dataclasses import dataclass
from functools import cached_property
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
from worker.heads.pool_graph import PoolGraph
from worker.jobs.choices import chosen
from worker.jobs.context import JobContext
from worker.jobs.head_measurements import (
    HeldOut,
    compare,
    cross_fitted,
    nothing_measured,
    random_curve,
    store_answers,
)
from worker.jobs.pool import KnownItems, ScoredItems, item_ids, labeled_items, test_items
from worker.pool_view import Floats, Ints


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
        served = _newest_head(session, project.id, _PROMOTED)
        if served is not None:
            project.head_id = served.id
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
        held_out, metrics = self._measure(fitted, wanted, embeddings, rng)
        with self._context.read() as session:
            newest = _newest_head(session, state.project.id)
            note = self._reason_against(session, held_out)
        metrics |= {"promoted": note is None, "note": note}
        seconds = time.perf_counter() - started
        version = newest.version + 1 if newest is not None else 1
        job = self._context.job
        artifact = f"heads/{state.project.id}/{version}-{job.id}-{job.token}.npz"
        with self._context.artifacts.writing(artifact) as file:
            np.savez(file, allow_pickle=False, **fitted.arrays())
        if held_out is not None:
            store_answers(self._context.artifacts, artifact, held_out)
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
        pool = self._pool if self._kind.uses_pool else None
        return self._kind.fit(embeddings, classes, len(self._state.project.classes), rng, pool)

    @cached_property
    def _pool(self) -> PoolGraph:
        """Without the test split and what was set aside."""
        with self._context.read() as session:
            left_out = [item_ids(session, self._state.project.id, which) for which in ("test", "aside")]
        rows = np.flatnonzero(~self._scored.among(np.concatenate(left_out)))
        return PoolGraph(self._scored.embeddings, np.random.default_rng(self._state.settings.seed), rows)

    def _measure(
        self, fitted: FittedHead, wanted: _Wanted, embeddings: Floats, rng: np.random.Generator
    ) -> tuple[HeldOut | None, dict[str, Any]]:
        """What was measured, and `Head.metrics` but for the promotion."""
        training, names = wanted.training, self._state.project.classes
        control = np.isin(training.ids, self._state.control)
        held_out, curve = None, []
        if len(self._test):
            probabilities = fitted.probabilities(self._embeddings(self._test))
            held_out = HeldOut("test", self._test.ids, self._test.classes, probabilities)
        elif wanted.round_number is not None and control.any():
            rows, probabilities = cross_fitted(
                lambda inputs, classes: self._fit(inputs, classes, rng),
                np.flatnonzero(control), embeddings, training.classes, rng,
            )  # fmt: skip
            held_out = HeldOut("control", training.ids[rows], training.classes[rows], probabilities)
        if wanted.round_number is not None:
            curve = self._random_curve(embeddings[control], training.classes[control], rng)
        figures = self._figures(held_out)
        figures["recall"] = dict(zip(names, figures["recall"] or [None] * len(names), strict=True))
        trained = {"trained": fitted.name, "temperature": fitted.temperature}
        return held_out, {**figures, "random_curve": curve, **trained}

    def _figures(self, held_out: HeldOut | None) -> dict[str, Any]:
        if held_out is None:
            return nothing_measured()
        return held_out.figures(self._scored.losses[self._scored.where(held_out.ids)])

    def _random_curve(
        self, embeddings: Floats, classes: Ints, rng: np.random.Generator
    ) -> list[dict[str, Any]]:
        """Made anew once there are a quarter more control labels: it takes up to nine fits, and a ranking waits."""
        test = (self._embeddings(self._test), self._test.classes) if len(self._test) else None
        with self._context.read() as session:
            before = _newest_head(session, self._state.project.id, *self._alike, _MEASURED)
        kind = self._state.settings.head.model_dump()
        if before is not None and before.kind == kind and self._comparable(before):
            curve: list[dict[str, Any]] = before.metrics["random_curve"]
            if curve and len(classes) < 1.25 * curve[-1]["labels" if test else "items"]:
                return curve
        return random_curve(
            lambda inputs, known: self._fit(inputs, known, rng), embeddings, classes, test, rng
        )

    @property
    def _alike(self) -> tuple[sa.ColumnElement[bool], ...]:
        """Heads of the same embeddings."""
        return (Head.score_run_id == self._state.score_run.id,)

    def _comparable(self, head: Head) -> bool:
        return head.classes == self._state.project.classes

    def _reason_against(self, session: Session, held_out: HeldOut | None) -> str | None:
        """Why not to promote a head, in a sentence; None where nothing speaks against it."""
        alike = (*self._alike, _MEASURED)
        if held_out is None:
            newest = _newest_head(session, self._state.project.id, *alike)
            return newest.metrics.get("note") if newest is not None and self._comparable(newest) else None
        before = _newest_head(session, self._state.project.id, *alike, _PROMOTED)
        if before is None or not self._comparable(before):
            return None
        if before.metrics["measured_on"] != held_out.measured_on:
            return None
        compared = compare(self._context.artifacts, before.artifact, held_out)
        if compared is None or compared[3] >= 0:
            return None
        items, gained, low, high = compared
        return (
            f"Not promoted: {-100 * gained:.1f} points less accurate than head {before.version} on the same "
            f"{items} {held_out.measured_on} items (95 % interval {-100 * high:.1f} to {-100 * low:.1f}). The head "
            "before it stays in use; look at the newest labels, or at the project's head if you changed it."
        )


_PROMOTED = Head.metrics["promoted"].as_boolean()
_MEASURED = Head.metrics["measured_on"].as_string().is_not(None)


def _newest_head(session: Session, project_id: int, *which: sa.ColumnElement[bool]) -> Head | None:
    query = sa.select(Head).where(Head.project_id == project_id, *which)
    return session.scalar(query.order_by(Head.version.desc()).limit(1))

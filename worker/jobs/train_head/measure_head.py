"""Measurement of a head, and reasons against promoting it.

On the test split; where there is none, a round's head is measured on the labeled items that the control arm asked for,
by cross-fitting: each is predicted by a head that never saw its label. (Between rounds more trainings would only keep
the next ranking waiting.)
`Head.metrics`:

    {"measured_on": "test" | "control" | null, "items", "accuracy", "accuracy_low", "accuracy_high" (95 %),
     "macro_f1", "nll", "ece", "recall": {class: share or null}, "confusion": [[true × predicted]],
     "reliability": [{"items", "sureness", "accuracy"}] by rising sureness,
     "pretext_loss_correlation": {"rho", "low", "high", "items"} or null: of the pretext loss and the head's own,
     "random_curve": see `random_curve`; of a round's head, where there are enough control labels and the head
     needs no items. As measured before, until job compare_with_random has measured it anew,
     "picks_gain": {"gain", "low", "high", "labels", "items", "strategy"} or null: see `PicksGain`; as the curve,
     "trained": name of the head, or of the one `auto` chose, "temperature",
     "promoted": whether it was put to use, "note": why not, or null}

Where an item may have several classes, accuracy is null, and these are there instead, each with …_low and …_high:
"mean_average_precision", "macro_f1", "subset_accuracy" (items with all classes right; promotion and `picks_gain` go by
it), "average_precision": {class: share or null}, and "confusion_by_class": {class: {"true_positives",
"false_negatives", "false_positives", "true_negatives"}}. `random_curve` is of the mean average precision.

Numbers are null, and the confusion empty, where nothing could be measured; for more than 200 classes it is empty, too.

A head is promoted unless it is worse, beyond noise, than the newest promoted head that was measured: the 95 %
interval of the difference in accuracy on the items both were measured on lies below 0. A head between rounds
that is not measured itself goes with the newest measured one, so labels that spoiled a round's head are not
let in by the next. Heads of another pretext model or for other classes are not compared: those before cannot be used
any more. Nor is a head that learned from more than twice as many items: most of its labels were withdrawn.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import sqlalchemy as sa
from sqlalchemy.orm import Session

from service.store.project_settings import ProjectSettings
from service.store.tables import Head, Project, ScoreRun
from worker.arrays import Floats, Ints
from worker.evaluation.held_out import HeldOut, answers_held_out, gained, nothing_measured
from worker.evaluation.known_items import KnownItems
from worker.evaluation.metrics import BY_CLASS
from worker.evaluation.random_baseline import LEAST_LABELS
from worker.heads import FittedHead
from worker.heads import Head as HeadKind
from worker.heads.labeled_view import LabeledView
from worker.jobs.context import JobContext
from worker.jobs.train_head.answers import load_answers
from worker.scoring.scored_items import ScoredItems

PROMOTED = Head.metrics["promoted"].as_boolean()
OF_A_ROUND = Head.round_number.is_not(None)
_MEASURED = Head.metrics["measured_on"].as_string().is_not(None)


def on_alike(score_run: ScoreRun) -> sa.ColumnElement[bool]:
    """Heads on embeddings by the same pretext model, in whichever of its score runs; of a provisional run on its own
    only, for each has features of its own.
    """
    if score_run.pretext_model_id is None:
        return Head.score_run_id == score_run.id
    runs = sa.select(ScoreRun.id).where(ScoreRun.pretext_model_id == score_run.pretext_model_id)
    return Head.score_run_id.in_(runs)


def newest_head(session: Session, project_id: int, *which: sa.ColumnElement[bool]) -> Head | None:
    query = sa.select(Head).where(Head.project_id == project_id, *which)
    return session.scalar(query.order_by(Head.version.desc()).limit(1))


def is_of(head: Head, project: Project, settings: ProjectSettings) -> bool:
    """True if it is of the project's kind of head, and for its classes."""
    return head.kind == settings.head.model_dump() and head.classes == project.classes


def random_is_due(head: Head, control: int, tested: bool) -> bool:
    """True if job compare_with_random has something new to tell of a round's head: control labels were enough for the
    first time, or have grown by a quarter. tested: there is a test split
    """
    curve = head.metrics["random_curve"]
    if not curve:
        return control >= LEAST_LABELS
    return control >= 1.25 * int(curve[-1]["labels" if tested else "items"])


@dataclass(frozen=True)
class Trained:
    """A head, fitted to a view of the labeled items (of which only the embeddings are kept).

    everywhere  (n, c) probabilities of all scored items, of a head that needs items; None where embeddings are enough
                to ask it again
    """

    head: HeadKind
    fitted: FittedHead
    view: LabeledView
    everywhere: Floats | None = None

    def probabilities(self, scored: ScoredItems, ids: Ints) -> Floats:
        """(m, c) Probabilities of scored items (m,)."""
        if self.everywhere is not None:
            return self.everywhere[scored.where(ids)]
        return self.fitted.probabilities(scored.embeddings_of(ids))


@dataclass(frozen=True)
class HeadMeasurer:
    """For the heads of a project on one score run. test and control: the items whose labels measure."""

    context: JobContext
    project: Project
    settings: ProjectSettings
    score_run: ScoreRun
    scored: ScoredItems
    test: KnownItems
    control: Ints

    def measure(
        self, trained: Trained, training: KnownItems, of_round: bool, rng: np.random.Generator
    ) -> tuple[HeldOut | None, dict[str, Any]]:
        """The held-out answers, and `Head.metrics` but for the promotion."""
        names = self.project.classes
        control = np.isin(training.ids, self.control)
        held_out: HeldOut | None = None
        if len(self.test):
            held_out = HeldOut(
                "test", self.test.ids, self.test.classes, trained.probabilities(self.scored, self.test.ids)
            )
        elif of_round and control.any():
            held_out = self._on_control(trained, np.flatnonzero(control), training, rng)
        against_random: dict[str, Any] = {"random_curve": [], "picks_gain": None}
        if of_round and not trained.head.needs_items:
            against_random = self._against_random_before()
        figures = self._figures(held_out)
        for by_class in BY_CLASS & figures.keys():
            figures[by_class] = dict(zip(names, figures[by_class] or [None] * len(names), strict=True))
        told = {"trained": trained.fitted.name, "temperature": trained.fitted.temperature}
        return held_out, {**figures, **against_random, **told}

    def _on_control(
        self, trained: Trained, rows: Ints, training: KnownItems, rng: np.random.Generator
    ) -> HeldOut | None:
        """Held-out answers on rows (k,) of the training items, by heads that did not see their labels; None where it
        trained without folds.
        """
        answers = answers_held_out(trained.head, trained.fitted, trained.view, rows, rng)
        if answers is None:
            return None
        rows, probabilities = answers
        return HeldOut("control", training.ids[rows], training.classes[rows], probabilities)

    def _figures(self, held_out: HeldOut | None) -> dict[str, Any]:
        if held_out is None:
            return nothing_measured()
        return held_out.figures(self.scored.losses[self.scored.where(held_out.ids)])

    def _against_random_before(self) -> dict[str, Any]:
        """As measured for an earlier round, by the same head on the same embeddings."""
        with self.context.read() as session:
            before = newest_head(session, self.project.id, self._alike, OF_A_ROUND)
        if before is None or not is_of(before, self.project, self.settings):
            return {"random_curve": [], "picks_gain": None}
        gain = before.metrics.get("picks_gain")
        same = gain is not None and gain["strategy"] == self.settings.strategy.name
        return {"random_curve": before.metrics["random_curve"], "picks_gain": gain if same else None}

    @property
    def _alike(self) -> sa.ColumnElement[bool]:
        """Heads of the same embeddings."""
        return on_alike(self.score_run)

    def reason_against(self, session: Session, held_out: HeldOut | None, trained_on: int) -> str | None:
        """Why not to promote a head that learned from so many items, in a sentence; None where nothing speaks
        against it.
        """
        found = [self._alike, _MEASURED] + ([PROMOTED] if held_out is not None else [])
        before = newest_head(session, self.project.id, *found)
        if before is None or before.classes != self.project.classes or before.trained_on > 2 * trained_on:
            return None
        if held_out is None:
            note: str | None = before.metrics.get("note")
            return note
        if before.metrics["measured_on"] != held_out.measured_on:
            return None
        answers = load_answers(self.context.artifacts, before.artifact)
        compared = gained(held_out, *answers) if answers is not None else None
        if compared is None or compared[3] >= 0:
            return None
        items, gain, low, high = compared
        counted = ", counting items with all classes right" if held_out.classes.ndim == 2 else ""
        return (
            f"Not promoted: {-100 * gain:.1f} points less accurate than head {before.version} on the same "
            f"{items} {held_out.measured_on} items{counted} (95 % interval {-100 * high:.1f} to {-100 * low:.1f}). The "
            "head before it stays in use; look at the newest labels, or at the project's head if you changed it."
        )

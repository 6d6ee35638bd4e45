"""Job check_labels: are the labels right? After a closed round when it is due, and when asked for.

Linear heads on frozen embeddings say what each labeled item is without having seen its label (cross-fitting, five
folds). With that
- items that several annotators labeled get the consensus class that CROWDLAB infers, where one of them gave it: at
  once they had the majority's. If that changes classes, a new head is trained;
- annotators get a quality, and the project its agreement;
- items whose class the heads contradict become suspects. What several labeled is suspect only where CROWDLAB doubts
  the consensus: otherwise the same items would be asked again for ever.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import sqlalchemy as sa
from sqlalchemy.orm import Session

from service.store import pipeline
from service.store.class_names import ClassNames
from service.store.project_settings import ProjectSettings
from service.store.tables import Item, Label, LabelCheck, Project, ScoreRun, Suspect, utc_now
from worker.arrays import Floats, Ints
from worker.evaluation.known_items import KnownItems
from worker.evaluation.label_quality import Agreement, Consensus, agreement, consensus, doubtful
from worker.heads.labeled_view import LabeledView
from worker.heads.linear import held_out_probabilities
from worker.jobs.context import JobContext
from worker.jobs.specs import labeled_items
from worker.scoring.scored_items import ScoredItems

_DUE_FROM, _DUE_AGAIN = 100, 1.5  # labeled items; times as many as the check before knew
_LEAST_ITEMS = 20  # labeled; with fewer the heads know too little to contradict anybody
_LEAST_SHARED = 10  # items that several labeled; with fewer the majority stays
_DOUBTED = 0.5  # CROWDLAB's quality of a consensus below which it is suspect
_MOST_SUSPECTS = 1_000


@dataclass(frozen=True)
class _State:
    """The job's view of the database, read in one transaction."""

    project: Project
    score_run: ScoreRun
    labeled: KnownItems
    votes: list[tuple[int, str, int]]  # item, annotator, class; of items that several labeled, by item
    gold: Ints
    last_label_id: int

    @staticmethod
    def read(session: Session, project_id: int | None) -> "_State | None":
        project = session.get_one(Project, project_id)
        if project.score_run_id is None:
            return None
        return _State(
            project=project,
            score_run=session.get_one(ScoreRun, project.score_run_id),
            labeled=labeled_items(session, project.id, project.classes, "single"),
            votes=_shared_votes(session, project),
            gold=np.array(
                session.scalars(
                    sa.select(Item.id).where(Item.project_id == project.id, sa.text("items.gold"))
                ).all(),
                np.int64,
            ),
            last_label_id=session.scalar(
                sa.select(sa.func.max(Label.id)).where(Label.project_id == project.id)
            )
            or 0,
        )


def _shared_votes(session: Session, project: Project) -> list[tuple[int, str, int]]:
    votes = sa.and_(
        Label.project_id == project.id,
        sa.text("labels.current"),
        Label.used,
        Label.class_name.in_(project.classes),
    )
    shared = sa.select(Label.item_id).where(votes).group_by(Label.item_id).having(sa.func.count() > 1)
    rows = session.execute(
        sa.select(Label.item_id, Label.annotator, Label.class_name)
        .join(Item, Item.id == Label.item_id)
        .where(votes, Label.item_id.in_(shared), Item.state == "done", Item.split == "pool", ~Item.gold)
        .order_by(Label.item_id, Label.id)
    )
    index = {name: number for number, name in enumerate(project.classes)}
    return [(item, annotator, index[str(name)]) for item, annotator, name in rows]


def queue_if_due(session: Session, project: Project, items: int) -> None:
    """After a closed round, `items` being labeled: always where several label an item, else now and then. Not where an
    item has several classes, of which the check knows nothing.
    """
    if project.label_kind == "multi":
        return
    check = session.get(LabelCheck, project.id)
    due = items >= (_DUE_AGAIN * check.items if check is not None else _DUE_FROM)
    if due or ProjectSettings.model_validate(project.settings).overlap > 1:
        pipeline.queue_check_labels(session, project)


def run(context: JobContext) -> dict[str, Any]:
    with context.read() as session:
        state = _State.read(session, context.job.project_id)
    if state is None:
        return {"missing": "The pool has no scores yet; labels are checked after the first score run."}
    scored = ScoredItems.open(context.artifacts, str(state.score_run.artifact))
    known = state.labeled.keep(scored.where(state.labeled.ids) >= 0)
    if len(known) < _LEAST_ITEMS or len(np.unique(known.classes)) < 2:
        return {"missing": f"Checking labels takes {_LEAST_ITEMS} labeled items of at least two classes."}
    view = LabeledView(scored.embeddings_of(known.ids), known.classes, len(state.project.classes))
    rng = np.random.default_rng([state.project.settings.get("seed", 0), state.last_label_id])
    context.report(0.1, "asking heads that did not see the labels")
    probabilities = held_out_probabilities(view, rng)
    crowd = _Crowd.judge(state, known, probabilities)
    classes = crowd.classes(known)
    suspects = _suspects(state, known, classes, crowd, probabilities)
    result = {"items": len(known), "shared_items": len(crowd.rows), "suspects": len(suspects)}
    with context.finish(result) as session:
        project = session.get_one(Project, state.project.id, with_for_update={"key_share": True})
        names = [ClassNames(project).or_same(name) for name in state.project.classes]  # they may have changed
        changed = _change_classes(session, names, known, classes)
        _replace_check(session, project, crowd.report(state, known, classes, changed))
        _replace_suspects(session, project, _called(suspects, names))
        if changed:
            pipeline.queue_train_head(session, project)
        result["changed"] = changed
    return result


@dataclass(frozen=True)
class _Crowd:
    """Items that several labeled: rows (k,) among the known items, votes (k, m) by annotator, -1 for none."""

    rows: Ints
    votes: Ints
    annotators: list[str]
    consensus: Consensus | None
    agreement: Agreement | None

    @staticmethod
    def judge(state: _State, known: KnownItems, probabilities: Floats) -> "_Crowd":
        row_of = {item: row for row, item in enumerate(known.ids.tolist())}
        given = [(row_of[item], annotator, name) for item, annotator, name in state.votes if item in row_of]
        rows = np.unique(np.array([row for row, _, _ in given], np.int64))
        annotators = sorted({annotator for _, annotator, _ in given})
        column = {annotator: number for number, annotator in enumerate(annotators)}
        votes = np.full((len(rows), len(annotators)), -1)
        for row, annotator, name in given:
            votes[np.searchsorted(rows, row), column[annotator]] = name
        if not len(rows):
            return _Crowd(rows, votes, annotators, None, None)
        enough = len(rows) >= _LEAST_SHARED
        return _Crowd(
            rows,
            votes,
            annotators,
            consensus(votes, probabilities[rows]) if enough else None,
            agreement(votes, probabilities.shape[1]),
        )

    def classes(self, known: KnownItems) -> Ints:
        """(n,) Classes of the known items: the consensus where somebody voted for it, else the current class."""
        found = known.classes.copy()
        if self.consensus is not None:
            wanted = self.consensus.classes
            voted = (self.votes == wanted[:, None]).any(axis=1)
            found[self.rows[voted]] = wanted[voted]
        return found

    def report(self, state: _State, known: KnownItems, classes: Ints, changed: int) -> dict[str, Any]:
        """Columns of `LabelCheck`."""
        equal = self.votes == classes[self.rows][:, None]
        annotators = {
            name: {
                "shared": int((self.votes[:, number] >= 0).sum()),
                "agreed": int(equal[:, number].sum()),
                "quality": float(self.consensus.annotators[number]) if self.consensus is not None else None,
            }
            for number, name in enumerate(self.annotators)
        }
        return {
            "last_label_id": state.last_label_id,
            "items": len(known),
            "shared_items": len(self.rows),
            "agreement": self.agreement.pairs if self.agreement else None,
            "alpha": self.agreement.alpha if self.agreement else None,
            "annotators": annotators,
            "changed": changed,
            "created_at": utc_now(),
        }


def _suspects(
    state: _State, known: KnownItems, classes: Ints, crowd: _Crowd, probabilities: Floats
) -> list[dict[str, Any]]:
    """Rows of `Suspect`, the worst ones, with the numbers of their classes."""
    flags, quality = doubtful(classes, probabilities)
    if crowd.consensus is not None:
        quality[crowd.rows] = crowd.consensus.quality
        flags[crowd.rows] = crowd.consensus.quality < _DOUBTED
    likeliest = probabilities.argmax(axis=1)
    flags &= (likeliest != classes) & ~np.isin(known.ids, state.gold)
    worst = np.flatnonzero(flags)
    worst = worst[np.argsort(quality[worst], kind="stable")][:_MOST_SUSPECTS]
    return [
        {
            "item_id": int(known.ids[row]),
            "project_id": state.project.id,
            "class_name": int(classes[row]),
            "suggested_class": int(likeliest[row]),
            "probability": float(probabilities[row, likeliest[row]]),
            "quality": float(quality[row]),
        }
        for row in worst
    ]


def _called(suspects: list[dict[str, Any]], names: list[str]) -> list[dict[str, Any]]:
    """With the names of their classes; without those that contradict nothing, now that both are one class."""
    rows = [row | {each: names[row[each]] for each in ("class_name", "suggested_class")} for row in suspects]
    return [row for row in rows if row["class_name"] != row["suggested_class"]]


def _change_classes(session: Session, names: list[str], known: KnownItems, classes: Ints) -> int:
    """Change the classes of items that are as they were read; the number changed."""
    changed = 0
    for row in np.flatnonzero(classes != known.classes):
        if names[known.classes[row]] == names[classes[row]]:
            continue
        updated = session.execute(
            sa.update(Item)
            .where(
                Item.id == int(known.ids[row]),
                Item.state == "done",
                Item.decided_by == int(known.decided_by[row]),
            )
            .where(Item.class_name == names[known.classes[row]])
            .values(class_name=names[classes[row]])
            .returning(Item.id)
        )
        changed += len(updated.all())
    return changed


def _replace_check(session: Session, project: Project, values: dict[str, Any]) -> None:
    session.execute(sa.delete(LabelCheck).where(LabelCheck.project_id == project.id))
    session.add(LabelCheck(project_id=project.id, **values))


def _replace_suspects(session: Session, project: Project, rows: list[dict[str, Any]]) -> None:
    session.execute(sa.delete(Suspect).where(Suspect.project_id == project.id))
    if rows:
        session.execute(sa.insert(Suspect), rows)

"""Job check_labels: are the labels right? After a closed round when it is due, and when asked for.

Linear heads on frozen embeddings say what each labeled item is without having seen its label (cross-fitting, five
folds). With that
- items that several annotators labeled get the consensus class that CROWDLAB infers, where one of them gave it: at
  once they had the majority's. If that changes classes, a new head is trained;
- annotators get a quality, and the project its agreement;
- items whose class the heads contradict become suspects. What several labeled is suspect only where CROWDLAB doubts
  the consensus: otherwise the same items would be asked again for ever.

Where an item has several classes, each is a question of its own, and is asked so: whether the item has it. A suspect is
an item with a class in doubt; its suggested classes are the labeled ones but for those.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import sqlalchemy as sa
from sqlalchemy.orm import Session

from service.store import class_sets, pipeline
from service.store.class_names import ClassNames
from service.store.project_settings import ProjectSettings
from service.store.tables import Item, Label, LabelCheck, Project, ScoreRun, Suspect, utc_now
from worker.arrays import Floats, Ints
from worker.evaluation.known_items import KnownItems
from worker.evaluation.label_quality import (
    Agreement,
    Consensus,
    agreement,
    consensus,
    consensus_of_several,
    doubtful,
    doubtful_of_several,
)
from worker.evaluation.metrics import told_apart
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


Classes = int | tuple[int, ...]  # the number of a class; of several an item, theirs


@dataclass(frozen=True)
class _State:
    """The job's view of the database, read in one transaction."""

    project: Project
    score_run: ScoreRun
    labeled: KnownItems
    votes: list[tuple[int, str, Classes]]  # item, annotator, class; of items that several labeled, by item
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
            labeled=labeled_items(session, project.id, project.classes, project.label_kind),
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


def _shared_votes(session: Session, project: Project) -> list[tuple[int, str, Classes]]:
    multi = project.label_kind == "multi"
    votes = sa.and_(
        Label.project_id == project.id,
        sa.text("labels.current"),
        Label.used,
        Label.class_name.is_not(None) if multi else Label.class_name.in_(project.classes),
    )
    shared = sa.select(Label.item_id).where(votes).group_by(Label.item_id).having(sa.func.count() > 1)
    rows = session.execute(
        sa.select(Label.item_id, Label.annotator, Label.class_name)
        .join(Item, Item.id == Label.item_id)
        .where(votes, Label.item_id.in_(shared), Item.state == "done", Item.split == "pool", ~Item.gold)
        .order_by(Label.item_id, Label.id)
    )
    index = {name: number for number, name in enumerate(project.classes)}

    def numbered(text: str) -> Classes:
        if not multi:
            return index[text]
        return tuple(index[name] for name in class_sets.classes_in(text) if name in index)

    return [(item, annotator, numbered(str(text))) for item, annotator, text in rows]


def queue_if_due(session: Session, project: Project, items: int) -> None:
    """After a closed round, `items` being labeled: always where several label an item, else now and then."""
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
    if len(known) < _LEAST_ITEMS or not told_apart(known.classes):
        wanted = "of at least two classes"
        if known.classes.ndim == 2:
            wanted = "and a class that is on some and not on others"
        return {"missing": f"Checking labels takes {_LEAST_ITEMS} labeled items {wanted}."}
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
    """Items that several labeled: rows (k,) among the known items, votes (k, m) by annotator, -1 for none; of several
    classes an item (k, m, c), 1 for each that the annotator gave, else 0.
    """

    rows: Ints
    votes: Ints
    annotators: list[str]
    consensus: Consensus | None
    agreement: Agreement | None

    @staticmethod
    def judge(state: _State, known: KnownItems, probabilities: Floats) -> "_Crowd":
        row_of = {item: row for row, item in enumerate(known.ids.tolist())}
        given = [(row_of[item], annotator, said) for item, annotator, said in state.votes if item in row_of]
        rows = np.unique(np.array([row for row, _, _ in given], np.int64))
        annotators = sorted({annotator for _, annotator, _ in given})
        column = {annotator: number for number, annotator in enumerate(annotators)}
        votes = np.full((len(rows), len(annotators), *known.classes.shape[1:]), -1)
        for row, annotator, said in given:
            place = np.searchsorted(rows, row), column[annotator]
            if isinstance(said, tuple):
                votes[place] = 0
                votes[(*place, list(said))] = 1
            else:
                votes[place] = said
        if not len(rows):
            return _Crowd(rows, votes, annotators, None, None)
        enough = len(rows) >= _LEAST_SHARED
        decide = consensus_of_several if votes.ndim == 3 else consensus
        return _Crowd(
            rows,
            votes,
            annotators,
            decide(votes, probabilities[rows]) if enough else None,
            agreement(votes, probabilities.shape[1]),
        )

    def classes(self, known: KnownItems) -> Ints:
        """(n,) Classes of the known items: the consensus where somebody voted for it, else the current class; of
        several an item, (n, c), so with each.
        """
        found = known.classes.copy()
        if self.consensus is not None:
            wanted = self.consensus.classes
            voted = (self.votes == wanted[:, None]).any(axis=1)
            found[self.rows] = np.where(voted, wanted, found[self.rows])
        return found

    def report(self, state: _State, known: KnownItems, classes: Ints, changed: int) -> dict[str, Any]:
        """Columns of `LabelCheck`."""
        equal, labeled = self.votes == classes[self.rows][:, None], self.votes >= 0
        if self.votes.ndim == 3:
            equal, labeled = (np.asarray(each.all(axis=2)) for each in (equal, labeled))
        annotators = {
            name: {
                "shared": int(labeled[:, number].sum()),
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
    several = classes.ndim == 2
    flags, quality = (doubtful_of_several if several else doubtful)(classes, probabilities)
    if crowd.consensus is not None:
        quality[crowd.rows] = crowd.consensus.quality
        flags[crowd.rows] = crowd.consensus.quality < _DOUBTED
    suggested = (probabilities >= 0.5).astype(np.int64) if several else probabilities.argmax(axis=1)
    flags &= suggested != classes
    sureness = (
        np.where(suggested == 1, probabilities, 1 - probabilities) if several else probabilities.max(axis=1)
    )
    if several:  # an item is as doubtful as its most doubtful class
        suggested = np.where(flags, suggested, classes)
        place = np.arange(len(classes)), np.where(flags, quality, np.inf).argmin(axis=1)
        flags, quality, sureness = np.asarray(flags.any(axis=1)), quality[place], sureness[place]
    worst = np.flatnonzero(flags & ~np.isin(known.ids, state.gold))
    worst = worst[np.argsort(quality[worst], kind="stable")][:_MOST_SUSPECTS]
    return [
        {
            "item_id": int(known.ids[row]),
            "project_id": state.project.id,
            "class_name": _numbers(classes[row]),
            "suggested_class": _numbers(suggested[row]),
            "probability": float(sureness[row]),
            "quality": float(quality[row]),
        }
        for row in worst
    ]


def _numbers(of_item: Ints) -> Classes:
    """A row of classes (n,), or of (n, c)."""
    return tuple(np.flatnonzero(of_item).tolist()) if of_item.ndim else int(of_item)


def _text(classes: Classes, names: list[str]) -> str:
    """As items carry it."""
    if isinstance(classes, tuple):
        return class_sets.joined(names[number] for number in classes)
    return names[classes]


def _called(suspects: list[dict[str, Any]], names: list[str]) -> list[dict[str, Any]]:
    """With the names of their classes; without those that contradict nothing, now that both are one class."""
    rows = [
        row | {each: _text(row[each], names) for each in ("class_name", "suggested_class")}
        for row in suspects
    ]
    return [row for row in rows if row["class_name"] != row["suggested_class"]]


def _change_classes(session: Session, names: list[str], known: KnownItems, classes: Ints) -> int:
    """Change the classes of items that are as they were read; the number changed."""
    changed = 0
    differs = classes != known.classes
    for row in np.flatnonzero(differs.any(axis=1) if differs.ndim == 2 else differs):
        before, after = (_text(_numbers(each[row]), names) for each in (known.classes, classes))
        if before == after:
            continue
        updated = session.execute(
            sa.update(Item)
            .where(
                Item.id == int(known.ids[row]),
                Item.state == "done",
                Item.decided_by == int(known.decided_by[row]),
            )
            .where(Item.class_name == before)
            .values(class_name=after)
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

"""Job rank: the project's strategy orders the available items; the top of the order becomes the new ranking.

Of each group of duplicates the strategy sees one, and nothing that the reject head bars (`left_out`). Where the
gate says no-go of the embeddings, `random` stands in for the strategy (docs/decisions/0010). When labels have grown
enough since it last judged, the gate is asked again. The first ranking of a score run queues its similarity index, and
the first by a head stores what that head thinks of all items (`service.store.item_map`).

Where a user's own model has sent predictions, these stand in for the head's (`service/models/own_predictions.py`).

Random choices come from (seed of the project, labels used), so the same state gives the same ranking again.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import sqlalchemy as sa
from sqlalchemy.orm import Session

from service.store import class_sets, outbox, pipeline, planner_stats, similarity_index
from service.store.class_names import ClassNames
from service.store.control_arm import control_item_ids
from service.store.ids import public_id
from service.store.item_map import Guesses
from service.store.project_settings import Choice, ProjectSettings
from service.store.tables import (
    Head,
    Item,
    OwnPredictions,
    Project,
    RankedItem,
    Ranking,
    Reservation,
    ScoreRun,
)
from worker.arrays import Bools, Bytes, Floats, Ints
from worker.errors import JobFailed
from worker.evaluation.gate import is_due
from worker.evaluation.known_items import KnownItems
from worker.evaluation.picks_gain import PicksGain, share_of_strategy
from worker.jobs.compare_with_random import measured_gains
from worker.jobs.context import JobContext
from worker.jobs.rank.exclusions import NO_COPIES, LeftOut, bar, barred_items, copies_of, left_out
from worker.jobs.specs import (
    chosen_head,
    item_ids,
    labeled_items,
    modality_of,
    own_probabilities,
    probabilities_by,
)
from worker.jobs.train_head.measure_head import on_alike
from worker.registry import plug_in_from
from worker.scoring.scored_items import ScoredItems, open_parts, open_sketches
from worker.selection.pool_view import PoolView, Selection
from worker.selection.selections import NotFinite, mixed
from worker.strategies import ColdStart, Strategy, strategies

# Enough for several rounds, so that serving never waits; few enough that a ranking is stored at once.
_ROUNDS, _AT_LEAST, _AT_MOST = 4, 200, 20_000
PROVISIONAL = "Provisional: by {}, until there is a pretext model."
_AT_RANDOM = Choice(name="random")
_HELD = sa.select(sa.func.count()).where(Reservation.state == sa.literal_column("'open'"))
_KEPT = 3  # newest rankings whose items are kept, beside those that open reservations came from


@dataclass(frozen=True)
class _State:
    """The job's view of the pool in the database, read in one transaction."""

    project: Project
    settings: ProjectSettings
    score_run: ScoreRun
    head: Head | None  # the served one, where it knows the items of the score run
    own: OwnPredictions | None  # which count in place of the head's
    labeled: KnownItems  # but for the control arm
    labels: int  # with the control arm
    done: Ints
    broken: Ints  # rejected by an annotator
    aside: Ints  # cannot be served: broken, quarantined, withdrawn
    control: Ints  # kept for the control arm
    test: Ints
    held: int  # open reservations: their items are available, and no one else gets them
    copies: Ints  # (m, 2) a duplicate and the representative of its group; none where they are not collapsed
    loss_weight: float  # see `PoolView`
    gains: list[PicksGain]  # of the project's strategy over random picks, the newest first

    @property
    def provisional(self) -> bool:
        """True if the ranking goes by raw features, as there is no pretext model yet."""
        return self.score_run.pretext_model_id is None

    @property
    def no_go(self) -> str | None:
        """Why no ranking should follow the embeddings, in a sentence."""
        found = self.score_run.gate
        return str(found["reason"]) if found is not None and found["verdict"] == "no-go" else None

    @staticmethod
    def read(session: Session, project_id: int | None) -> "_State | None":
        project = session.get_one(Project, project_id)
        if project.score_run_id is None:
            return None
        settings = ProjectSettings.model_validate(project.settings)
        score_run = session.get_one(ScoreRun, project.score_run_id)
        control = np.array(control_item_ids(session, project.id, settings), np.int64)
        labeled = labeled_items(session, project.id, project.classes, project.label_kind)
        return _State(
            project=project,
            settings=settings,
            score_run=score_run,
            head=_head_for(session, project.head_id, score_run),
            own=session.get(OwnPredictions, project.id),
            labeled=labeled.keep(~np.isin(labeled.ids, control)),
            labels=len(labeled),
            done=item_ids(session, project.id, "done"),
            broken=item_ids(session, project.id, "broken"),
            aside=item_ids(session, project.id, "aside"),
            control=control,
            test=item_ids(session, project.id, "test"),
            held=session.scalar(_HELD.where(Reservation.project_id == project.id)) or 0,
            copies=copies_of(session, project.score_run_id) if settings.collapse_duplicates else NO_COPIES,
            loss_weight=_loss_weight(session, score_run),
            gains=measured_gains(session, score_run, settings.strategy.name),
        )


def _head_for(session: Session, head_id: int | None, score_run: ScoreRun) -> Head | None:
    """The head, where it knows the embeddings of the score run: those by the same pretext model are the same. The
    probabilities of a head that needs items are stored, for those of its own score run only.
    """
    query = sa.select(Head).where(Head.id == head_id, on_alike(score_run))
    head = session.scalar(query)
    if head is None or head.score_run_id == score_run.id:
        return head
    return None if chosen_head(Choice.model_validate(head.kind)).needs_items else head


def _loss_weight(session: Session, score_run: ScoreRun) -> float:
    """As the newest head that was measured with losses of the same pretext model found it."""
    measured = sa.select(Head.metrics).where(
        on_alike(score_run),
        Head.metrics["pretext_loss_correlation", "rho"].as_float().is_not(None),
    )
    metrics = session.scalar(measured.order_by(Head.version.desc()).limit(1))
    if metrics is None:
        return 0.0
    low, high = (float(metrics["pretext_loss_correlation"][end]) for end in ("low", "high"))
    return max(low, 0.0) + min(high, 0.0)


def run(context: JobContext) -> dict[str, Any] | None:
    started = time.perf_counter()
    with context.read() as session:
        state = _State.read(session, context.job.project_id)
    if state is None:
        return {"items": 0, "missing": "The pool has no scores yet; the ranking follows the first score run."}
    context.report(0.1, "reading embeddings")
    scored = ScoredItems.open(context.artifacts, str(state.score_run.artifact))
    scored = scored.keep(~scored.among(state.test))
    with _naming(context, scored):
        unseen = _left_out(state, scored)
    seen = scored.keep(unseen.seen)
    pool = _pool_view(context, state, seen, unseen.stands_for[unseen.seen])
    context.report(0.4, "ordering items")
    with _naming(context, seen):
        choice, note, selection = _select(state, pool)
    if not pool.available.any() and not unseen.seen.all():
        note = "What is left is barred as probably broken, or a duplicate: it is served at random."
    if state.own is not None:
        by_yours = f"By your own predictions of {state.own.items:,} items."
        note = f"{by_yours} {note}" if note else by_yours
    if state.provisional:
        by_weights = open_parts(context.artifacts, str(state.score_run.artifact)) is not None
        provisional = PROVISIONAL.format("pretrained weights" if by_weights else "raw features")
        note = f"{provisional} {note}" if note else provisional
    rows = _ranked_items(state, seen, pool, selection)
    barred = barred_items(scored, unseen)
    result = {
        "items": len(rows),
        "strategy": choice.name,
        "note": note,
        "barred": len(barred),
        "duplicates": int(unseen.copies.sum()),
    }
    bar(context, state.project.id, barred)
    _store_guesses(context, state, scored, unseen.seen, pool)
    indexed = similarity_index.is_there(context.artifacts, str(state.score_run.artifact))
    with context.finish(result) as session:
        version = session.scalar(
            sa.select(sa.func.max(Ranking.version)).where(Ranking.project_id == state.project.id)
        )
        ranking = Ranking(
            project_id=state.project.id,
            version=(version or 0) + 1,
            strategy=choice.model_dump(),
            seed=state.settings.seed,
            score_run_id=state.score_run.id,
            head_id=state.head.id if state.head is not None else None,
            labels_used=state.project.labels_used,
            items=len(rows),
            note=note,
            seconds=time.perf_counter() - started,
        )
        session.add(ranking)
        session.flush()
        names = ClassNames(session.get_one(Project, state.project.id))  # some may have other names by now
        for row in rows:
            if (predicted := row["predicted_class"]) is not None:
                row["predicted_class"] = names.text_now(predicted)
        if rows:
            session.execute(sa.insert(RankedItem), [{"ranking_id": ranking.id, **row} for row in rows])
        if len(rows) >= planner_stats.MANY_ROWS:
            planner_stats.refresh(session, "ranked_items")
        project = session.get_one(Project, state.project.id)
        project.ranking_id = ranking.id
        outbox.tell(session, project.id, "ranking.ready", _told(ranking))
        _forget_old_items(session, ranking)
        if not state.provisional and is_due(state.score_run.gate, state.labels):
            pipeline.queue_probe_pretext(session, project)
        if not indexed:
            pipeline.queue_index_items(session, project)
    return result


def _store_guesses(
    context: JobContext, state: _State, scored: ScoredItems, seen: Bools, pool: PoolView
) -> None:
    """Probabilities by the ranking's head, in place of those that the ranking before has left."""
    artifact = str(state.score_run.artifact)
    if state.head is None or pool.probabilities is None:
        return
    if context.artifacts.exists(Guesses.name(artifact, state.head.version)):
        return
    with context.read() as session:
        before = session.scalar(
            sa.select(Head.version)
            .join(Ranking, Ranking.head_id == Head.id)
            .where(Ranking.id == state.project.ranking_id)
        )
    everything = ScoredItems.open(context.artifacts, artifact)
    rows = everything.where(scored.ids[seen])
    guesses = Guesses.of(state.project.classes, everything.ids, rows, pool.probabilities, pool.several)
    guesses.store(context.artifacts, artifact, state.head.version)
    if before is not None and before != state.head.version:
        context.artifacts.delete(Guesses.name(artifact, before))


def _told(ranking: Ranking) -> dict[str, Any]:
    """To webhooks."""
    return {
        "ranking": public_id("r", ranking.id),
        "version": ranking.version,
        "items": ranking.items,
        "strategy": ranking.strategy["name"],
        "labels_used": ranking.labels_used,
    }


@contextmanager
def _naming(context: JobContext, scored: ScoredItems) -> Iterator[None]:
    """A value that is not finite is the score run's fault: says which item's."""
    try:
        yield
    except NotFinite as error:
        with context.read() as session:
            key = session.get_one(Item, int(scored.ids[error.row])).key
        raise JobFailed(
            f"The score run holds values of {key!r} that are not finite numbers. "
            "Train the pretext model again."
        ) from error


def _free(state: _State, scored: ScoredItems) -> Bools:
    """(n,) True if the item could be ranked."""
    return ~scored.among(np.concatenate([state.done, state.aside, state.control]))


def _left_out(state: _State, scored: ScoredItems) -> LeftOut:
    return left_out(
        scored,
        free=_free(state, scored),
        done=scored.among(state.done),
        broken=scored.among(state.broken),
        copies=state.copies,
        rng=np.random.default_rng([state.settings.seed, state.project.labels_used]),
    )


def _pool_view(context: JobContext, state: _State, scored: ScoredItems, stands_for: Floats) -> PoolView:
    classes = np.full(len(scored.ids), -1)
    rows = scored.where(state.labeled.ids)
    members = None
    if state.project.label_kind == "multi":
        classes[rows[rows >= 0]] = 0
        members = np.zeros((len(scored.ids), len(state.project.classes)), np.int64)
        members[rows[rows >= 0]] = state.labeled.classes[rows >= 0]
    else:
        classes[rows[rows >= 0]] = state.labeled.classes[rows >= 0]
    probabilities = None
    if state.head is not None:
        probabilities = probabilities_by(context.artifacts, state.head, state.project, scored)
    if state.own is not None:
        probabilities = own_probabilities(context.artifacts, state.own, state.project, scored, probabilities)
    return PoolView(
        embeddings=scored.embeddings,
        pretext_losses=scored.losses,
        available=_free(state, scored),
        classes=classes,
        probabilities=probabilities,
        n_classes=len(state.project.classes),
        round_size=state.settings.round_size,
        labels_used=state.project.labels_used,
        loss_weight=state.loss_weight,
        appearance=_appearance(context, state, scored),
        stands_for=stands_for,
        class_names=tuple(state.project.classes),
        members=members,
    )


def _appearance(context: JobContext, state: _State, scored: ScoredItems) -> Bytes | None:
    """(n, f) Appearance of the scored items, None where sketches do not tell; copied only where these are not all of
    the score run's.
    """
    sketcher = modality_of(state.project).sketcher
    if sketcher is None:
        return None
    artifact = str(state.score_run.artifact)
    everything = sketcher.appearance(open_sketches(context.artifacts, artifact))
    if everything is None or len(everything) == len(scored.ids):
        return everything
    rows = ScoredItems.open(context.artifacts, artifact).where(scored.ids)
    return np.asarray(everything[rows])


def _strategy(choice: Choice, setting: str) -> Strategy:
    """Raises `Unsuited` and `JobFailed`."""
    return plug_in_from(strategies(), choice.name, choice.params, setting)


def _select(state: _State, pool: PoolView) -> tuple[Choice, str | None, Selection]:
    """By the project's strategy, or by its cold-start strategy with a note that says why."""
    wanted, stand_in = state.settings.strategy, state.settings.cold_start
    strategy = _strategy(wanted, "strategy")
    note = None
    if state.no_go is not None and wanted.name != _AT_RANDOM.name:
        note = f"{_AT_RANDOM.name} stands in for {wanted.name}, because the gate says no-go: {state.no_go}"
        wanted, strategy = _AT_RANDOM, _strategy(_AT_RANDOM, "strategy")
    share = share_of_strategy(state.gains) if wanted.name != _AT_RANDOM.name else 1.0
    if share < 1:
        note = f"{wanted.name} asks for {share:.0%} of the items, and random for the others: {_said(state.gains[0])}"
    if share == 0:
        note = f"{_AT_RANDOM.name} took over from {wanted.name}: {_said(state.gains[0])}"
        wanted, strategy = _AT_RANDOM, _strategy(_AT_RANDOM, "strategy")
    n = max(_ROUNDS * pool.round_size, _AT_LEAST) + state.held
    n = min(n, _AT_MOST, int(pool.available.sum()))
    if n == 0:
        return wanted, "No item is available.", Selection(np.empty(0, np.int64), np.empty(0, np.float32))

    def rng() -> np.random.Generator:
        return np.random.default_rng([state.settings.seed, state.project.labels_used])

    try:
        selection = strategy.select(pool, n, rng())
        return wanted, note, selection if share in (0, 1) else mixed(selection, pool, share, rng())
    except ColdStart:
        note = f"{wanted.name} needs a head and there is none yet; {stand_in.name} stood in."
    try:
        return stand_in, note, _strategy(stand_in, "cold_start").select(pool, n, rng())
    except ColdStart as error:
        raise JobFailed(
            f"Both strategy {wanted.name!r} and cold_start {stand_in.name!r} need a head, and there is none "
            "yet. Set the project's cold_start to 'shortlist' or 'random'."
        ) from error


def _said(found: PicksGain) -> str:
    return (
        f"heads on {found.labels} of the labels that it asked for are {-100 * found.gain:.1f} points less accurate "
        f"than on as many random ones (95 % interval {-100 * found.high:.1f} to {-100 * found.low:.1f}, on "
        f"{found.items} items)."
    )


def _ranked_items(
    state: _State, scored: ScoredItems, pool: PoolView, selection: Selection
) -> list[dict[str, Any]]:
    """Rows of `RankedItem`, without the ranking's id; with the head's prediction where there is a head."""
    rows: list[dict[str, Any]] = [
        {
            "rank": rank,
            "item_id": item,
            "score": score,
            "predicted_class": None,
            "predicted_probability": None,
        }
        for rank, (item, score) in enumerate(
            zip(scored.ids[selection.items].tolist(), selection.scores.tolist(), strict=True), start=1
        )
    ]
    if pool.probabilities is not None:
        probabilities = pool.probabilities[selection.items]
        if pool.several:
            _predict_sets(rows, probabilities, state.project.classes)
            return rows
        likeliest, highest = probabilities.argmax(axis=1).tolist(), probabilities.max(axis=1).tolist()
        for row, index, probability in zip(rows, likeliest, highest, strict=True):
            row["predicted_class"], row["predicted_probability"] = state.project.classes[index], probability
    return rows


def _predict_sets(rows: list[dict[str, Any]], probabilities: Floats, classes: list[str]) -> None:
    """The likely classes of each item, and the probability of just these, as if classes came independently."""
    likely = probabilities >= 0.5
    exactly = np.maximum(probabilities, 1 - probabilities).prod(axis=1).tolist()
    for row, found, probability in zip(rows, likely, exactly, strict=True):
        row["predicted_class"] = class_sets.joined(classes[index] for index in np.flatnonzero(found))
        row["predicted_probability"] = probability


def _forget_old_items(session: Session, newest: Ranking) -> None:
    """Rankings stay on record; their items go once nobody is being served from them any more."""
    served = sa.select(Reservation.ranking_id).where(
        Reservation.project_id == newest.project_id,
        Reservation.state == sa.literal_column("'open'"),
        Reservation.ranking_id.is_not(None),
    )
    old = sa.select(Ranking.id).where(
        Ranking.project_id == newest.project_id,
        Ranking.version <= newest.version - _KEPT,
        Ranking.id.not_in(served),
    )
    session.execute(
        sa.delete(RankedItem)
        .where(RankedItem.ranking_id.in_(old))
        .execution_options(synchronize_session=False)
    )

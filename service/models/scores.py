"""The score run that is being served: pretext losses, as a histogram and item by item."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import sqlalchemy as sa
from sqlalchemy.orm import Session

from service.errors import GoneMeanwhile, NoScoreRun
from service.store.ids import public_id
from service.store.own_embeddings import is_own
from service.store.project_settings import ProjectSettings
from service.store.tables import Item, Json, PretextModel, Project, RankedItem, Score, ScoreRun

MOST_COUNTED = 50_000  # labeled items; more would keep each call waiting
_DONE = sa.text("items.state = 'done' AND items.split = 'pool'")  # as its index says it


@dataclass(frozen=True)
class ItemScore:
    item_id: int
    key: str
    split: str
    pretext_loss: float
    percentile: float
    spread: float | None


def current(session: Session, project: Project) -> tuple[ScoreRun, PretextModel]:
    """Raises `NoScoreRun` before the first one is complete."""
    if project.score_run_id is None:
        raise NoScoreRun(project=public_id("p", project.id))
    score_run = session.get_one(ScoreRun, project.score_run_id)
    if score_run.pretext_model_id is None:  # provisional: it has no losses
        raise NoScoreRun(project=public_id("p", project.id))
    return score_run, session.get_one(PretextModel, score_run.pretext_model_id)


@dataclass(frozen=True)
class Histogram:
    """Pool items by pretext loss: `counts[k]` between `edges[k]` and `edges[k + 1]`.

    labeled   of these, those that are labeled; None where these are more than `MOST_COUNTED`
    ranked    of these, the next `round_size` of the ranking that nobody has labeled
    """

    edges: list[float]
    counts: list[int]
    labeled: list[int] | None
    ranked: list[int]


def histogram(session: Session, project: Project, score_run: ScoreRun) -> Histogram | None:
    """None where the run has no losses."""
    if score_run.histogram is None:
        return None
    edges = score_run.histogram["edges"]

    def by_bin(losses: Sequence[float]) -> list[int]:
        counts: list[int] = np.histogram(np.array(losses, np.float64), edges)[0].tolist()
        return counts

    of_run = sa.select(Score.pretext_loss).where(Score.score_run_id == score_run.id)
    labeled = session.scalars(
        of_run.join(Item, Item.id == Score.item_id)
        .where(Item.project_id == project.id, _DONE)
        .limit(MOST_COUNTED + 1)
    ).all()
    ranked = session.scalars(
        of_run.join(RankedItem, RankedItem.item_id == Score.item_id)
        .join(Item, Item.id == RankedItem.item_id)
        .where(RankedItem.ranking_id == project.ranking_id, Item.state == "available")
        .order_by(RankedItem.rank)
        .limit(ProjectSettings.model_validate(project.settings).round_size)
    ).all()
    return Histogram(
        edges=edges,
        counts=score_run.histogram["counts"],
        labeled=by_bin(labeled) if len(labeled) <= MOST_COUNTED else None,
        ranked=by_bin(ranked),
    )


_SPACES = {
    "trained": "by the pretext model alone, though there are pretrained weights",
    "pretrained": "by pretrained weights alone",
    "joined": "by the pretext model, joined with those by pretrained weights",
}
_SOURCES = {
    "file": "a file that the worker's settings name",
    "extra": "an extra that is installed",
    "cache": "the hub's cache",
    "hub": "the hub",
}


def embeddings_told(model: PretextModel | None) -> str:
    """A sentence on what embeddings come from, by a pretext model or without one; it says why there are no pretrained
    weights, where these were looked for.
    """
    if model is None:
        return "Embeddings: provisional, until there is a pretext model; the ranking says by what."
    if is_own(model):
        return f"Embeddings: yours, {model.config['dimensions']:,} dimensions."
    weights = model.config.get("foundation")
    if weights is not None:
        space, source = _SPACES[model.config["space"]], _SOURCES[weights["source"]]
        return f"Embeddings: {space} ({weights['network']}, from {source}, sha256 {weights['sha256'][:12]}…)."
    tried = model.diagnostics.get("foundation", {}).get("tried", [])
    return " ".join([f"Embeddings: by the pretext model ({model.backbone}).", *tried])


def gates(session: Session, project: Project, models: list[PretextModel]) -> dict[int, Json]:
    """By number of the model: what the gate last said of its embeddings, on the labels of this project."""
    query = sa.select(ScoreRun.pretext_model_id, ScoreRun.gate).where(
        ScoreRun.project_id == project.id,
        ScoreRun.pretext_model_id.in_([model.id for model in models]),
        ScoreRun.gate.is_not(None),
    )
    return {row.pretext_model_id or 0: row.gate for row in session.execute(query.order_by(ScoreRun.id))}


def page(session: Session, score_run_id: int, after: int, limit: int) -> list[ItemScore]:
    """By item number, after item `after`. Raises `GoneMeanwhile` once the score run is removed: what is missing would
    look like the end.
    """
    query = (
        sa.select(Score.item_id, Item.key, Item.split, Score.pretext_loss, Score.percentile, Score.spread)
        .join(Item, Item.id == Score.item_id)
        .where(Score.score_run_id == score_run_id, Score.item_id > after)
        .order_by(Score.item_id)
        .limit(limit)
    )
    found = [ItemScore(*row) for row in session.execute(query)]
    score_run = session.get(ScoreRun, score_run_id)
    if score_run is None or score_run.state == "removed":
        raise GoneMeanwhile
    return found

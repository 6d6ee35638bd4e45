"""Job map_items: the map of the served score run, on which people see the pool as points.

Items lie near those that are near in the space that strategies look in, as the similarity index holds it. Of more than
200,000 items a random 200,000 are shown. The arrays are described in `service.store.item_map`. A score run has one
map, drawn when somebody asks for it, behind trainings: it takes minutes where the pool is large.
"""

from typing import Any

import numpy as np

from service.store import item_map, similarity_index
from service.store.item_map import ItemMap
from service.store.similarity_index import SimilarityIndex
from service.store.tables import Project, ScoreRun
from worker.arrays import Bytes, Floats
from worker.device import use_threads
from worker.jobs.context import JobContext
from worker.scoring.layout import two_dimensions
from worker.scoring.scored_items import ScoredItems

_READ = 0.05  # share of the progress
_DIRECTIONS = 50  # main ones that neighbours are sought in
_SAMPLE = 20_000  # items that tell them
_SET_ASIDE = (
    0.001  # of the points, at each edge: what lies farther out is moved there, so that it squeezes no other
)


def run(context: JobContext) -> dict[str, Any]:
    use_threads(context.settings.threads)
    with context.read() as session:
        project = session.get_one(Project, context.job.project_id)
        score_run = session.get(ScoreRun, project.score_run_id) if project.score_run_id is not None else None
    artifact = str(score_run.artifact) if score_run is not None else ""
    if score_run is None or item_map.is_there(context.artifacts, artifact):
        return {"items": 0, "note": "There is nothing to map."}
    if not similarity_index.is_there(context.artifacts, artifact):
        return {"items": 0, "note": "The map follows the similarity index, which is being made."}
    scored = ScoredItems.open(context.artifacts, artifact)
    rng = np.random.default_rng(0)
    rows = np.arange(len(scored.ids))
    if len(rows) > item_map.LARGEST:
        rows = np.sort(rng.choice(rows, item_map.LARGEST, replace=False))
    points = _points(SimilarityIndex.open(context.artifacts, artifact), scored, rows, rng)
    context.report(_READ, "drawing the map")
    places = two_dimensions(
        points,
        rng,
        context.settings.threads,
        lambda done: context.report(_READ + (1 - _READ) * done, "drawing the map"),
    )
    ItemMap(scored.ids[rows], _on_the_sheet(places), _percentiles(scored.losses[rows])).store(
        context.artifacts, artifact
    )
    return {"items": len(rows)}


def _points(index: SimilarityIndex, scored: ScoredItems, rows: Any, rng: np.random.Generator) -> Floats:
    """(n, k) float32, k at most 50: the places of the similarity index along their main directions."""
    stored = index.rows_of(scored.ids[rows])
    sample = np.sort(rng.choice(stored, min(len(stored), _SAMPLE), replace=False))
    places = index.places[sample].astype(np.float32)
    middle = places.mean(axis=0)
    _, directions = np.linalg.eigh((places - middle).T @ (places - middle))
    kept = np.ascontiguousarray(directions[:, ::-1][:, :_DIRECTIONS])
    found = np.empty((len(stored), kept.shape[1]), np.float32)
    for start in range(0, len(stored), _SAMPLE):
        part = slice(start, start + _SAMPLE)
        found[part] = (index.places[stored[part]].astype(np.float32) - middle) @ kept
    return found


def _on_the_sheet(places: Floats) -> Any:
    """(n, 2) uint16: as large as fits, with the same scale along both sides."""
    low, high = np.quantile(places, [_SET_ASIDE, 1 - _SET_ASIDE], axis=0)
    scale = max(float((high - low).max()), 1e-12)
    found = (places - (low + high) / 2) / scale + 0.5
    return np.rint(np.clip(found, 0, 1) * item_map.SIDE).astype(np.uint16)


def _percentiles(losses: Floats) -> Bytes:
    """(n,) -> (n,) uint8; those of a provisional score run are no losses."""
    found = np.full(len(losses), item_map.UNKNOWN, np.uint8)
    known = np.isfinite(losses)
    if known.any() and np.ptp(losses[known]) > 0:
        ranks = np.empty(int(known.sum()))
        ranks[np.argsort(losses[known], kind="stable")] = np.linspace(0, item_map.LOSS_STEPS, len(ranks))
        found[known] = np.rint(ranks)
    return found

"""Job score_foundation: a provisional score run by pretrained weights, minutes after an import and before a pretext
model is there.

It takes the place of the run by raw features, and gives way to the first of a pretext model, as that one does. What an
earlier run of this job knows is copied, so that items that come later cost no more than themselves. Its arrays are
those of `score_pool`, without losses; a worker that has no weights says so and leaves the ranking by raw features.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from service.store.artifacts import Artifacts
from service.store.pipeline import SCORING
from service.store.project_settings import ProjectSettings
from service.store.tables import Job, Project
from worker.arrays import Bytes, Halves
from worker.device import choose_device, use_threads
from worker.jobs.context import JobContext
from worker.jobs.score_raw import (
    NOT_NEEDED,
    Overtaken,
    begin,
    is_provisional,
    known_facts,
    newest_item,
    read_items,
    sample,
    serve,
    served_artifact,
    store,
    unless_overtaken,
)
from worker.jobs.specs import modality_of
from worker.scoring.foundation_net import FoundationNet
from worker.scoring.scored_items import ScoredItems, open_parts, open_sketches
from worker.scoring.space import Frame

_POOL = {"cpu": 10_000, "cuda": 100_000}  # items at most: two minutes on two cores
_TEST = 2_000


def run(context: JobContext) -> dict[str, Any]:
    use_threads(context.settings.threads)
    device = choose_device(context.settings.device)
    with context.read() as session:
        project = session.get_one(Project, context.job.project_id)
        on_its_way = session.scalar(SCORING.where(Job.project_id == project.id).limit(1)) is not None
        if on_its_way or not is_provisional(session, project):
            return {"items": 0, "note": NOT_NEEDED}
        served = served_artifact(session, project)
        ids, pool = sample(session, project, _POOL["cpu" if device.type == "cpu" else "cuda"], _TEST)
        newest = newest_item(session, project)
        known = known_facts(session, ids)
    modality = modality_of(project).for_raw_features(known)
    if modality.foundation is None or not pool.any():
        return {"items": 0, "note": "There is nothing to score, or no pretrained network for it."}
    context.report(0, "looking for pretrained weights")
    search = modality.foundation.find(context.settings)
    if search.weights is None:
        return {"items": 0, "note": " ".join(search.tried)}
    net = FoundationNet.of(search.weights.data, modality, device)
    seed = ProjectSettings.model_validate(project.settings).seed
    weights = np.frombuffer(bytes.fromhex(search.weights.sha256), np.uint8)
    before = _Before.open(context.artifacts, served, weights)
    rows = before.scored.where(ids) if before is not None else np.full(len(ids), -1)
    try:
        found = read_items(context, net.modality, ids[rows < 0], seed, _embedded(context, net))
    except Overtaken:
        return {"items": 0, "note": NOT_NEEDED}
    read, pretrained, sketches = found
    kept = rows >= 0
    if before is not None:
        order = np.argsort(np.concatenate([np.flatnonzero(kept), np.flatnonzero(~kept)[read]]))
        pretrained = np.concatenate([before.pretrained[rows[kept]], pretrained])[order]
        sketches = np.concatenate([before.sketches[rows[kept]], sketches])[order]
    kept[np.flatnonzero(rows < 0)[read]] = True
    ids, pool = ids[kept], pool[kept]
    if not pool.any():
        return {"items": 0, "note": "No item of the pool can be read."}
    nothing = np.empty((len(ids), 0), np.float16)  # by a pretext model
    embeddings = Frame.fitted(nothing, pretrained).embeddings("pretrained", nothing, pretrained)
    score_run = begin(context, project, newest)
    artifact = f"scores/{score_run.id}/arrays-{context.job.token}"
    more: dict[str, npt.NDArray[Any]] = {"trained": nothing, "pretrained": pretrained, "weights": weights}
    store(context, artifact, ids, embeddings, sketches, more)
    network, source = modality.foundation.name, search.weights.source
    return serve(
        context,
        score_run,
        net.modality,
        ids,
        pool,
        artifact,
        embeddings.shape[1],
        more={"network": network, "source": source, "sha256": search.weights.sha256},
    )


@dataclass(frozen=True)
class _Before:
    """The arrays of an earlier run by the same weights."""

    scored: ScoredItems
    pretrained: Halves
    sketches: Bytes

    @staticmethod
    def open(artifacts: Artifacts, artifact: str | None, weights: Bytes) -> "_Before | None":
        if artifact is None or not artifacts.exists(f"{artifact}/weights.npy"):
            return None
        if not np.array_equal(np.load(artifacts.local_path(f"{artifact}/weights.npy")), weights):
            return None
        parts = open_parts(artifacts, artifact)
        assert parts is not None
        return _Before(ScoredItems.open(artifacts, artifact), parts[1], open_sketches(artifacts, artifact))


def _embedded(
    context: JobContext, net: FoundationNet
) -> Callable[[Iterator[Tensor], np.random.Generator], Halves]:
    def embeddings(parts: Iterator[Tensor], _: np.random.Generator) -> Halves:
        found = [net.embeddings(part) for part in unless_overtaken(context, parts)]
        return np.concatenate(found) if found else np.empty((0, net.dimensions), np.float16)

    return embeddings

"""Job probe_pretext: the gate of the embeddings that are served, judged on the labels so far (`worker.gate`).

The verdict stands in `ScoreRun.gate`. After a no-go the pool is ranked at random; and where the untrained
backbone did better, it is stored as the next version of the pretext model, and the pool is scored by it.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import sqlalchemy as sa
import structlog
import torch
from sqlalchemy.orm import Session
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

from service.store import pipeline
from service.store.tables import Item, PretextModel, Project, ScoreRun
from worker import gate
from worker.device import autocast, choose_device, to_device, use_threads
from worker.jobs.context import JobContext
from worker.jobs.item_pixels import ItemPixels
from worker.jobs.pool import KnownItems, ScoredItems, labeled_items
from worker.jobs.pretext_net import is_untrained, new_net, on_device, store_net, untrained_version
from worker.modalities.image import normalised
from worker.pool_view import Floats, Ints

_SIDE = 32  # of the pixels that are compared
_BATCH = 64

log = structlog.get_logger()


@dataclass(frozen=True)
class _State:
    score_run: ScoreRun
    model: PretextModel
    labeled: KnownItems

    @staticmethod
    def read(session: Session, project_id: int | None) -> "_State | None":
        project = session.get_one(Project, project_id)
        if project.score_run_id is None:
            return None
        score_run = session.get_one(ScoreRun, project.score_run_id)
        return _State(
            score_run=score_run,
            model=session.get_one(PretextModel, score_run.pretext_model_id),
            labeled=labeled_items(session, project.id, project.classes),
        )


def run(context: JobContext) -> dict[str, Any] | None:
    with context.read() as session:
        state = _State.read(session, context.job.project_id)
    if state is None:
        return None
    use_threads(context.settings.threads)
    found = _judge(context, state)
    before = (state.score_run.gate or {}).get("verdict")
    instead = found.better == "untrained"
    artifact = f"pretext/{state.model.id}/untrained-{context.job.token}.safetensors"
    if instead:
        store_net(new_net(state.model), state.model, context.artifacts, artifact)
    if found.verdict == "no-go":
        log.warning(
            "pretext gate", project=context.job.project_id, verdict=found.verdict, reason=found.reason
        )
    with context.finish(found.as_json()) as session:
        project = session.get_one(Project, context.job.project_id)
        session.get_one(ScoreRun, state.score_run.id).gate = found.as_json()
        if project.score_run_id == state.score_run.id:
            if instead:
                model = session.get_one(PretextModel, state.model.id)
                standing_in = untrained_version(session, model, project.id, artifact, found.reason)
                pipeline.queue_score_pool(session, project, standing_in.id)
            if "no-go" in (before, found.verdict) and before != found.verdict:
                pipeline.queue_rank(session, project)
    return None


def _judge(context: JobContext, state: _State) -> gate.Gate:
    scored = ScoredItems.open(context.artifacts, state.score_run)
    labeled = state.labeled.keep(scored.where(state.labeled.ids) >= 0)
    of_pool = len(state.labeled)
    rng = np.random.default_rng([state.model.config["seed"], of_pool])
    chosen = np.sort(rng.permutation(len(labeled))[: gate.AT_MOST])
    pixels, readable = _pixels(context, labeled.ids[chosen], state.model.config["image_size"])
    ids, classes = labeled.ids[chosen][readable], labeled.classes[chosen][readable]
    if not gate.enough(classes):
        return gate.too_few(of_pool)
    rivals: dict[gate.Rival, Floats] = {}
    if not is_untrained(state.model):
        rivals["untrained"] = _untrained_embeddings(context, state.model, pixels)
    small = adaptive_avg_pool2d(pixels.float(), min(pixels.shape[-1], _SIDE))
    rivals["pixels"] = small.flatten(1).numpy()
    trained = scored.embeddings[scored.where(ids)].astype(np.float32)
    return gate.judge(trained, rivals, classes, of_pool)


def _pixels(context: JobContext, ids: Ints, image_size: int) -> tuple[Tensor, Ints]:
    """(m, 3, s, s) uint8 of the items that can be read, and which of the ids (n,) those are, (m,)."""
    with context.read() as session:
        rows = session.execute(sa.select(Item.id, Item.uri).where(Item.id.in_(ids.tolist())))
        uris = {row.id: row.uri for row in rows}
    known = np.array([number for number, item_id in enumerate(ids.tolist()) if item_id in uris], np.int64)
    with ItemPixels(context.settings) as item_pixels:
        decoded = item_pixels.decode([uris[int(item_id)] for item_id in ids[known]], image_size)
    found = [one.pixels for one in decoded if one.pixels is not None]
    if not found:
        return torch.empty((0, 3, image_size, image_size), dtype=torch.uint8), np.empty(0, np.int64)
    return torch.stack(found), known[[one.pixels is not None for one in decoded]]


def _untrained_embeddings(context: JobContext, model: PretextModel, pixels: Tensor) -> Floats:
    """(m, d)"""
    device = choose_device(context.settings.device)
    backbone: nn.Module = on_device(new_net(model), device).eval().get_submodule("backbone")
    with torch.no_grad(), autocast(device):
        parts = [
            backbone(normalised(to_device(part, device))).float().cpu()
            for part in torch.split(pixels, _BATCH)
        ]
    return torch.cat(parts).numpy()

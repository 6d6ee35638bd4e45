"""Job probe_pretext: the gate of the embeddings that are served, judged on the labels so far.

What no strategy chose judges them: the test split, where it is large enough, as for heads; else the items that the
control arm asked for; else all labels, if all of them were drawn at random. All labels teach the probes.

The verdict stands in `ScoreRun.gate`. After a no-go the pool is ranked at random; and where the untrained
backbone did better, it is stored as the next version of the pretext model, and the pool is scored by it, unless it
is about to be scored by a newer one: that one is judged in its turn.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import structlog
import torch
from sqlalchemy.orm import Session
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

from service.store import pipeline
from service.store.tables import PretextModel, Project, ScoreRun
from worker.arrays import Floats, Ints
from worker.device import autocast, choose_device, to_device, use_threads
from worker.evaluation import gate
from worker.jobs.context import JobContext
from worker.jobs.pretext_net import is_untrained, new_net, on_device, store_net, untrained_version
from worker.jobs.probe_sets import Judges
from worker.jobs.specs import ScoredItems
from worker.modalities.image.pixels import normalised
from worker.models.layers import at_layer
from worker.pool.parts import pixels_of
from worker.pool.reader import ItemPixels

_SIDE = 32  # of the pixels that are compared

log = structlog.get_logger()


@dataclass(frozen=True)
class _State:
    score_run: ScoreRun
    model: PretextModel
    judges: Judges

    @staticmethod
    def read(session: Session, project_id: int | None) -> "_State | None":
        project = session.get_one(Project, project_id)
        if project.score_run_id is None:
            return None
        score_run = session.get_one(ScoreRun, project.score_run_id)
        return _State(
            score_run=score_run,
            model=session.get_one(PretextModel, score_run.pretext_model_id),
            judges=Judges.read(session, project),
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
            if instead and pipeline.model_to_serve(session, project) == state.model.id:
                model = session.get_one(PretextModel, state.model.id)
                standing_in = untrained_version(session, model, project.id, artifact, found.reason)
                pipeline.queue_score_pool(session, project, standing_in.id)
            if "no-go" in (before, found.verdict) and before != found.verdict:
                pipeline.queue_rank(session, project)
    return None


def _judge(context: JobContext, state: _State) -> gate.Gate:
    scored = ScoredItems.open(context.artifacts, state.score_run)
    labels = len(state.judges.labeled)
    if not gate.enough(state.judges.labeled.classes):
        return gate.too_few(labels, labels)
    judges = state.judges.among(scored)
    rng = np.random.default_rng([state.model.config["seed"], labels])
    sample = judges.by_test_split(rng) or judges.by_labels(rng)
    if sample is None:
        return gate.too_few_unbiased(labels, int(judges.unbiased.sum()), judges.control_share)
    small, untrained, readable = _features(context, state.model, sample.ids)
    sample = sample.keep(readable)
    if not sample.enough:
        return gate.too_few(labels, min(int(sample.taught.sum()), int(sample.judged.sum())))
    rivals: dict[gate.Rival, Floats] = {"pixels": small}
    if untrained is not None:
        rivals["untrained"] = untrained
    trained = scored.embeddings[scored.where(sample.ids)].astype(np.float32)
    return gate.judge(trained, rivals, sample.classes, sample.taught, sample.judged, sample.judged_on, labels)


def _features(context: JobContext, model: PretextModel, ids: Ints) -> tuple[Floats, Floats | None, Ints]:
    """Of the items that can be read: their pixels, small, (m, p); their embeddings by the untrained backbone, (m, d),
    None where that is the model itself; and which of the ids (n,) they are, (m,).
    """
    side: int = model.config["image_size"]
    device = choose_device(context.settings.device)
    backbone: nn.Module | None = None
    if not is_untrained(model):
        whole = on_device(new_net(model), device).eval().get_submodule("backbone")
        backbone = at_layer(whole, model.config.get("layer"))
    small, embeddings, readable = [], [], [np.empty(0, np.int64)]
    with ItemPixels(context.settings) as item_pixels, torch.no_grad(), autocast(device):
        for rows, pixels in pixels_of(context, item_pixels, ids, side):
            readable.append(rows)
            small.append(adaptive_avg_pool2d(pixels.float(), min(side, _SIDE)).flatten(1))
            if backbone is not None:
                embeddings.append(backbone(normalised(to_device(pixels, device))).float().cpu())
    return _joined(small), _joined(embeddings) if backbone is not None else None, np.concatenate(readable)


def _joined(parts: list[Tensor]) -> Floats:
    return torch.cat(parts).numpy() if parts else np.empty((0, 1), np.float32)

"""Job probe_pretext: the gate of the embeddings that are served, judged on the labels so far.

What no strategy chose judges them: the test split, where it is large enough, as for heads; else the items that the
control arm asked for; else all labels, if all of them were drawn at random. All labels teach the probes.

The verdict stands in `ScoreRun.gate`. After a no-go the pool is ranked at random. Where another space of the
embeddings did surely better (by pretrained weights, by the pretext model, by both joined), or after a no-go the
untrained backbone, this becomes the next version of the pretext model, and the pool is scored by it, unless it is
about to be scored by a newer one: that one is judged in its turn. Another space takes seconds, as all is copied.

It takes seconds and follows a ranking, so it gives way to heads and rankings that are asked for meanwhile.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
import structlog
import torch
from sqlalchemy.orm import Session
from torch import Tensor

from service.store import pipeline
from service.store.own_embeddings import is_own
from service.store.tables import PretextModel, Project, ScoreRun
from worker.arrays import Floats, Ints
from worker.device import autocast, choose_device, to_device, use_threads
from worker.evaluation import gate
from worker.jobs.context import JobContext
from worker.jobs.probe_sets import Judges
from worker.jobs.score_pool.foundation import load_frame
from worker.jobs.specs import (
    is_untrained,
    modality_of,
    refs_of,
    spec_of,
    store_net,
    untrained_version,
    version_in_space,
)
from worker.modalities import Modality
from worker.models.layers import at_layer
from worker.models.nets import new_net, on_device
from worker.pool.parts import decoded_parts
from worker.pool.reader import ItemReader
from worker.scoring.scored_items import ScoredItems, open_parts

log = structlog.get_logger()

_GIVES_WAY = 3  # times at most: it begins from the start, and some worker is never without labels


@dataclass(frozen=True)
class _State:
    score_run: ScoreRun
    model: PretextModel
    judges: Judges
    raw_modality: (
        Modality  # items as their raw features are made of, where no pretext model says how to see them
    )

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
            raw_modality=modality_of(project).for_raw_features(),
        )


def run(context: JobContext) -> dict[str, Any] | None:
    with context.read() as session:
        state = _State.read(session, context.job.project_id)
    if state is None:
        return None
    use_threads(context.settings.threads)
    found = _judge(context, state)
    before = (state.score_run.gate or {}).get("verdict")
    artifact = f"pretext/{state.model.id}/untrained-{context.job.token}.safetensors"
    if found.better == "untrained":
        store_net(new_net(spec_of(state.model)), state.model, context.artifacts, artifact)
    if found.verdict == "no-go":
        log.warning(
            "pretext gate", project=context.job.project_id, verdict=found.verdict, reason=found.reason
        )
    with context.finish(found.as_json()) as session:
        project = session.get_one(Project, context.job.project_id)
        session.get_one(ScoreRun, state.score_run.id).gate = found.as_json()
        if project.score_run_id == state.score_run.id:
            if found.better is not None and pipeline.model_to_serve(session, project) == state.model.id:
                model = session.get_one(PretextModel, state.model.id)
                if found.better == "untrained":
                    standing_in = untrained_version(session, model, project.id, artifact, found.reason)
                else:
                    standing_in = version_in_space(session, model, project.id, found.better, found.reason)
                pipeline.queue_score_pool(session, project, standing_in.id)
            if "no-go" in (before, found.verdict) and before != found.verdict:
                pipeline.queue_rank(session, project)
    return None


def _judge(context: JobContext, state: _State) -> gate.Gate:
    scored = ScoredItems.open(context.artifacts, str(state.score_run.artifact))
    labels, several = len(state.judges.labeled), state.judges.labeled.classes.ndim == 2
    if not gate.enough(state.judges.labeled.classes):
        return gate.too_few(labels, labels, several)
    judges = state.judges.among(scored)
    rng = np.random.default_rng([state.model.config["seed"], labels])
    sample = judges.by_test_split(rng) or judges.by_labels(rng)
    if sample is None:
        return gate.too_few_unbiased(labels, int(judges.unbiased.sum()), judges.control_share, several)
    raw, untrained, readable = _features(context, state, sample.ids, rng)
    sample = sample.keep(readable)
    if not sample.enough:
        return gate.too_few(labels, min(int(sample.taught.sum()), int(sample.judged.sum())), several)
    context.give_way(_GIVES_WAY)
    rivals: dict[gate.Rival, Floats] = {"raw": raw}
    if untrained is not None:
        rivals["untrained"] = untrained
    spaces, served = _spaces(context, state, scored, sample.ids)
    rivals |= {name: values for name, values in spaces.items() if name != served}
    return gate.judge(
        spaces[served], rivals, sample.classes, sample.taught, sample.judged, sample.judged_on, labels, served
    )


def _spaces(
    context: JobContext, state: _State, scored: ScoredItems, ids: Ints
) -> tuple[dict[gate.Space, Floats], gate.Space]:
    """Embeddings (n, d) of scored items in each space that there is, and the one that is served."""
    rows, config = scored.where(ids), state.model.config
    parts = open_parts(context.artifacts, str(state.score_run.artifact))
    served: gate.Space = config.get("space", "trained")
    if parts is None:
        return {served: scored.embeddings[rows].astype(np.float32)}, served
    frame = load_frame(context.artifacts, config["frame"])
    trained, pretrained = (part[rows] for part in parts)
    spaces: tuple[gate.Space, ...] = get_args(gate.Space)
    return {name: frame.embeddings(name, trained, pretrained).astype(np.float32) for name in spaces}, served


def _features(
    context: JobContext, state: _State, ids: Ints, rng: np.random.Generator
) -> tuple[Floats, Floats | None, Ints]:
    """Features of the items that can be read: raw, (m, p); embeddings by the untrained backbone, (m, d), None where
    that is the model itself or there is no backbone; and the items' rows (m,) in the ids (n,).
    """
    device, backbone = choose_device(context.settings.device), None
    if is_own(state.model):
        modality = state.raw_modality
    else:
        spec = spec_of(state.model)
        modality = spec.make_modality()
        if not is_untrained(state.model):
            whole = on_device(new_net(spec), device).eval().get_submodule("backbone")
            backbone = at_layer(whole, spec.layer)
    embeddings, readable = list[Tensor](), [np.empty(0, np.int64)]
    with context.read() as session:
        refs = refs_of(session, ids)

    def parts() -> Iterator[Tensor]:
        for rows, items in decoded_parts(reader, modality, ids, refs):
            context.give_way(_GIVES_WAY)
            readable.append(rows)
            if backbone is not None:
                embeddings.append(backbone(modality.prepare(to_device(items, device))).float().cpu())
            yield items

    with ItemReader(context.settings) as reader, torch.no_grad(), autocast(device):
        raw = modality.raw_features(parts(), rng)
    untrained = torch.cat(embeddings).numpy() if embeddings else np.empty((0, 1), np.float32)
    return raw, untrained if backbone is not None else None, np.concatenate(readable)

"""The layer of its backbone that a pretext model's embeddings are taken from: chosen once, before its first score run.

It stands in `PretextModel.config["layer"]`, null for the backbone's own output, and why in `diagnostics["layer"]`.
Without labels a modality's own backbone (`small`) gives its own output, which joins its middle and its end, and so
do pretrained weights; of other networks it is the layer whose embeddings have the largest effective rank (RankMe).
With labels that may judge, another layer is taken if it surely probes better (docs/decisions/0016).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import sqlalchemy as sa
import torch
from torch import Tensor, nn

from service.store.tables import PretextModel, Project, ScoreRun
from worker.device import autocast, to_device
from worker.evaluation.diagnostics import of_embeddings
from worker.evaluation.gate import credit, judged_classes, linear_probe
from worker.jobs.context import JobContext
from worker.jobs.probe_sets import Judges, Sample
from worker.jobs.specs import open_net, refs_of, spec_of
from worker.jobs.train_pretext.pool import TrainingPool
from worker.modalities import Modality
from worker.models.layers import candidates, embeddings_at, joins_layers
from worker.pool.parts import decoded_parts
from worker.pool.reader import ItemReader

_WATCHED = 512  # items whose embeddings' rank is compared
_BATCH = 64
_OUTPUT = "output"  # the name of a backbone's own output, where a layer's name is wanted

Layer = str | None
Embeddings = dict[Layer, Tensor]  # (n, c) each, of the same items


@dataclass(frozen=True)
class _Choice:
    """by: default, rank (by layer in `measured`) or labels (accuracies in `measured`, on `items` that judge)."""

    layer: Layer
    by: str
    measured: dict[str, float]
    items: int = 0

    def told(self) -> dict[str, Any]:
        return {"by": self.by, "measured": self.measured, "items": self.items}


_DEFAULT = _Choice(None, "default", {})


def settle_layer(context: JobContext, model: PretextModel, device: torch.device) -> PretextModel:
    """The model with its layer."""
    if "layer" in model.config:
        return model
    with context.read() as session:
        runs = sa.select(ScoreRun.id).where(
            ScoreRun.pretext_model_id == model.id, ScoreRun.state == "complete"
        )
        scored = session.scalar(runs.limit(1)) is not None
        judges = Judges.read(session, session.get_one(Project, context.job.project_id))
    # Embeddings that are there already stay comparable with those to come.
    found = _DEFAULT if scored else _choose(context, model, device, judges)
    with context.publish() as session:
        row = session.get_one(PretextModel, model.id, with_for_update=True)
        if "layer" not in row.config:
            row.config = row.config | {"layer": found.layer}
            row.diagnostics = row.diagnostics | {"layer": found.told()}
    return row


def _choose(context: JobContext, model: PretextModel, device: torch.device, judges: Judges) -> _Choice:
    seed, modality = model.config["seed"], spec_of(model).make_modality()
    backbone = open_net(model, context.artifacts, device).get_submodule("backbone")
    layers: list[Layer] = [None, *candidates(backbone)]
    default = _DEFAULT
    with ItemReader(context.settings) as reader:
        if not joins_layers(backbone) and not model.config.get("pretrained"):
            watched = TrainingPool(context, reader, seed).sample(modality, _WATCHED)[0]
            default = by_rank(_embedded(modality, backbone, layers, torch.split(watched, _BATCH), device))
        sample = judges.by_labels(np.random.default_rng([seed, len(judges.labeled)]))
        if sample is None:
            return default
        with context.read() as session:
            refs = refs_of(session, sample.ids)
        parts = list(decoded_parts(reader, modality, sample.ids, refs))
    sample = sample.keep(np.concatenate([rows for rows, _ in parts]) if parts else np.empty(0, np.int64))
    if not sample.enough:
        return default
    return by_labels(
        _embedded(modality, backbone, layers, (items for _, items in parts), device), sample, default
    )


@torch.no_grad()
def _embedded(
    modality: Modality,
    backbone: nn.Module,
    layers: list[Layer],
    parts: Iterable[Tensor],
    device: torch.device,
) -> Embeddings:
    """Decoded parts (m, *item_shape) -> by layer (n, c) float32, less layers whose values a score run cannot hold."""
    found: dict[Layer, list[Tensor]] = {layer: [] for layer in layers}
    for part in parts:
        with autocast(device):
            at = embeddings_at(backbone, layers, modality.prepare(to_device(part, device)))
        for layer, values in at.items():
            found[layer].append(values.half().float().cpu())
    joined = {layer: torch.cat(values) for layer, values in found.items() if values}
    return {layer: values for layer, values in joined.items() if values.isfinite().all()}


def by_rank(embeddings: Embeddings) -> _Choice:
    """The largest effective rank; where they are as large, the first of the layers. Without any, the own output, of
    which the score run will say what is wrong.
    """
    if not embeddings:
        return _DEFAULT
    ranks: dict[Layer, float] = {
        layer: of_embeddings(values)["rank_me"] for layer, values in embeddings.items()
    }
    return _Choice(max(ranks, key=lambda layer: ranks[layer]), "rank", _named(ranks))


def by_labels(embeddings: Embeddings, sample: Sample, default: _Choice) -> _Choice:
    """The best-probing layer among those that are surely better than the default's: the 95 % interval of the paired
    difference lies above 0.
    """
    if default.layer not in embeddings:
        return default
    classes = judged_classes(sample.classes, sample.taught, sample.judged)
    credits = {
        layer: credit(linear_probe(values.numpy(), classes, sample.taught), classes, sample.judged)
        for layer, values in embeddings.items()
    }
    better = [layer for layer in credits if credits[layer].beyond(credits[default.layer])[1] > 0]
    accuracies = {layer: found.accuracy for layer, found in credits.items()}
    best = max(better, key=lambda layer: accuracies[layer], default=default.layer)
    return _Choice(best, "labels", _named(accuracies), int(sample.judged.sum()))


def _named(values: dict[Layer, float]) -> dict[str, float]:
    return {layer or _OUTPUT: value for layer, value in values.items()}

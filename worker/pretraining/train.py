"""A pretext model's spec to its training: in the job's own process, or as one of several trainers."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from worker.arrays import Floats
from worker.evaluation.diagnostics import Diagnostics
from worker.modalities import Batch
from worker.models.nets import on_device
from worker.models.spec import ModelSpec
from worker.pool.dataset import Dataset
from worker.pretraining.loop import State, Training
from worker.pretraining.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class Callbacks:
    """Receivers of a training's news; see `Training`."""

    save: Callable[[State], None]
    save_interval_s: float
    report: Callable[[float, str], None]
    warn: Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A network, and how it came to be."""

    net: nn.Module
    untrained: Diagnostics
    trained: Diagnostics
    history: list[Diagnostics]


def train(
    spec: ModelSpec,
    recipe: Recipe,
    net: nn.Module,
    dataset: Dataset,
    sample: Tensor,
    traits: dict[str, Floats],
    device: torch.device,
    callbacks: Callbacks,
    resume: State | None,
) -> Trained:
    """`net` is new; the others as in `Training`. Raises `Diverged`."""
    modality = spec.make_modality()

    def prepare(items: Tensor, generator: torch.Generator | None) -> Batch:
        return modality.prepare(items if generator is None else modality.augment(items, generator))

    training = Training(
        net=on_device(net, device),
        task=spec.make_task(),
        dataset=dataset,
        recipe=recipe,
        device=device,
        prepare=prepare,
        sample=sample,
        traits=traits,
        least_spread=modality.least_spread,
        least_rank=modality.least_rank,
        save=callbacks.save,
        save_interval_s=callbacks.save_interval_s,
        report=callbacks.report,
        warn=callbacks.warn,
    )
    trained = training.run(resume)
    return Trained(
        net=training.result, untrained=training.untrained, trained=trained, history=training.history
    )

"""A pretext model's row to its training: in the job's own process, or as one of several trainers."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from service.store.tables import PretextModel
from worker.arrays import Floats
from worker.evaluation.diagnostics import Diagnostics
from worker.jobs.pretext_net import on_device, task_of
from worker.modalities.image.pixels import augmented, normalised
from worker.pool.dataset import Dataset
from worker.pretraining.loop import State, Training
from worker.pretraining.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class Told:
    """Where a training's news go; see `Training`."""

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
    model: PretextModel,
    net: nn.Module,
    dataset: Dataset,
    sample: Tensor,
    traits: dict[str, Floats],
    device: torch.device,
    told: Told,
    resume: State | None,
) -> Trained:
    """`net` is new; the others as in `Training`. Raises `Diverged`."""
    task = task_of(model)
    recipe = Recipe(**{name: model.config[name] for name in Recipe.__dataclass_fields__})

    def prepare(pixels: Tensor, generator: torch.Generator | None) -> Tensor:
        return normalised(augmented(pixels, generator, task.flips) if generator else pixels)

    training = Training(
        net=on_device(net, device), task=task, dataset=dataset, recipe=recipe, device=device, prepare=prepare,
        sample=sample, traits=traits, save=told.save, save_interval_s=told.save_interval_s,
        report=told.report, warn=told.warn,
    )  # fmt: skip
    trained = training.run(resume)
    return Trained(
        net=training.result, untrained=training.untrained, trained=trained, history=training.history
    )

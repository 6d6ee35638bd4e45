"""Pretext tasks: self-supervised; their loss and backbone are used. One file each, registered by being there."""

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from worker.registry import plug_ins, rooms_of


class PretextTask(BaseModel, ABC):
    """Fields are the parameters; the docstring is the help people read, with paper and link.

    Training takes the mean of `losses`, scoring keeps the vector, so what is trained and what ranks cannot
    drift apart. The loop calls `losses`, its optimizer, `after_step`; and `settle` once, when it has ended.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: ClassVar[str]
    modalities: ClassVar[frozenset[str]] = frozenset({"image"})
    flips: ClassVar[bool] = True  # whether a mirrored item is as good to train on
    largest_batch: ClassVar[int | None] = None  # more than that costs memory or time and teaches no better
    scoring_views: ClassVar[int] = 1  # with generators seeded 0, 1, …; an item has their mean and spread

    @abstractmethod
    def make_net(self, backbone: nn.Module, dimensions: int, image_size: int) -> nn.Module:
        """Backbone plus pretext head. The result has the attribute `backbone`, to be taken out again."""

    @abstractmethod
    def losses(self, net: nn.Module, batch: Tensor, generator: torch.Generator) -> Tensor:
        """batch (n, 3, s, s) float, normalised -> (n,) float32, one loss an item.

        All randomness from `generator`. While training, the batch may be a part of one that several trainers
        share: what compares items asks `worker.collectives` for everyone's. In eval mode an item's loss depends on
        nothing but the item, the net and the generator's state: whatever is drawn then is drawn once for the
        whole batch.
        """

    def after_step(self, net: nn.Module, done: float) -> None:
        """Called after each step of the optimizer, with the share of the steps done: teachers follow here.

        What it moves are parameters without gradients or buffers, so that checkpoints hold them.
        """

    def settle(self, net: nn.Module, sample: Tensor, generator: torch.Generator) -> None:
        """Called once after training, in eval mode, without gradients: fix what scoring compares items with.

        sample (m, 3, s, s) float, normalised: up to 2,048 random items of the pool. What is kept goes into
        buffers of the net, so that the stored model has it.
        """

    def measures(self, net: nn.Module, batch: Tensor) -> dict[str, float]:
        """What else tells whether training works, for people to read; in eval mode, without gradients."""
        return {}


def pretext_tasks() -> dict[str, type[PretextTask]]:
    return plug_ins(PretextTask, "worker.pretext", *rooms_of("worker.modalities", "pretext"))

"""Pretext tasks: self-supervised; their loss and backbone are used. One file each, registered by being there."""

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from worker.registry import plug_ins, rooms_of

if TYPE_CHECKING:  # modalities stand above, as they bring tasks of their own
    from worker.modalities import Modality


class PretextNet(nn.Module):
    """A backbone beside a task's own layers; `modality` makes the views of the items that it was built for."""

    def __init__(self, backbone: nn.Module, modality: "Modality") -> None:
        super().__init__()
        self.backbone = backbone
        self.modality = modality


class PretextTask(BaseModel, ABC):
    """Fields are the parameters; the docstring is the help people read, with paper and link.

    Training takes the mean of `losses`, scoring keeps the vector, so what is trained and what ranks cannot
    drift apart. The loop calls `losses`, its optimizer, `after_step`; and `finalise` once, when it has ended.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: ClassVar[str]
    modalities: ClassVar[frozenset[str] | None] = (
        None  # it is made for; None: it needs views only, which all have
    )
    largest_batch: ClassVar[int | None] = None  # more than that costs memory or time and teaches no better
    scoring_views: ClassVar[int] = 1  # with generators seeded 0, 1, …; an item has their mean and spread

    @abstractmethod
    def make_net(self, backbone: nn.Module, dimensions: int, modality: "Modality") -> nn.Module:
        """Backbone plus pretext head, for items of the modality, which is resolved. The result has the attribute
        `backbone`, to be taken out again.
        """

    @abstractmethod
    def losses(self, net: nn.Module, batch: Tensor, generator: torch.Generator) -> Tensor:
        """batch of n items, as the modality prepares them -> (n,) float32, one loss an item.

        All randomness from `generator`. While training, the batch may be a part of one that several trainers
        share: what compares items asks `worker.collectives` for those of all ranks. In eval mode an item's loss depends
        on nothing but the item, the net and the generator's state: whatever is drawn then is drawn once for the
        whole batch.
        """

    def token_losses(
        self, net: nn.Module, batch: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor] | None:
        """The losses of tokens, where an item's loss is their mean: (n, L) float32, 0 for those that were not
        asked about, and which were, (n, L) bool. Scoring then takes `mean_over_tokens` of it in place of `losses`, and
        keeps where the highest stand. None for all other tasks.
        """
        return None

    def after_step(self, net: nn.Module, done: float) -> None:
        """Called after each step of the optimizer, with the share of the steps done: teachers follow here.

        What it moves are parameters without gradients or buffers, so that checkpoints hold them.
        """

    def finalise(self, net: nn.Module, sample: Tensor, generator: torch.Generator) -> None:
        """Called once after training, in eval mode, without gradients: fix what scoring compares items with.

        sample: prepared, up to 2,048 random items of the pool. What is kept goes into
        buffers of the net, so that the stored model has it.
        """

    def diagnostics(self, net: nn.Module, batch: Tensor) -> dict[str, float]:
        """Further measures of whether training works, for people to read; in eval mode, without gradients."""
        return {}


def mean_over_tokens(losses: Tensor, asked: Tensor) -> Tensor:
    """(n, L) -> (n,): normalised by how many tokens were asked about, so that long items have no higher losses."""
    return losses.sum(1) / asked.sum(1).clamp_min(1)


def pretext_tasks(modality: str | None = None) -> dict[str, type[PretextTask]]:
    """All, or those that suit the items of a modality."""
    base: type[PretextTask] = PretextTask  # type: ignore[type-abstract]  # its subclasses are what is looked for
    found = plug_ins(base, "worker.pretext", *rooms_of("worker.modalities", "pretext"))
    if modality is None:
        return found
    return {
        name: task for name, task in found.items() if task.modalities is None or modality in task.modalities
    }

"""Modalities: kinds of items. One folder each; being there is registering (`worker.registry`).

Everything outside a modality's folder computes with what is declared here, and asks it for tensors.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from typing import Any, ClassVar, Self

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from service.content.contract import Facts, Limits
from worker.arrays import Bytes, Floats, Ints
from worker.errors import JobFailed
from worker.modalities.foundation import Foundation
from worker.registry import plug_ins

# What a network is given: a tensor, or a frozen set of tensors with len(), [rows] and .to(device).
Batch = Any


class BackboneUnusable(JobFailed):
    """There is no such backbone, or it cannot be built so; the sentence says what to do."""


class Sketcher(ABC):
    """Small descriptions of items, kept of every one, exact enough to tell whether two items are the same.

    most_of_strangers  share of what random pairs differ by that is still no difference, at most
    """

    most_of_strangers: ClassVar[float] = 0.1

    @abstractmethod
    def sketch(self, items: Tensor) -> Bytes:
        """(n, *item_shape) as decoded -> (n, f) uint8."""

    @abstractmethod
    def places(self, sketches: Bytes) -> Floats:
        """(n, f) -> (n, p) float32: sketches of near-duplicates lie near each other by Euclidean distance."""

    @abstractmethod
    def differences(self, sketches: Bytes, first: Ints, others: Ints) -> Floats:
        """Sketches (n, f), rows (m,) and (m, k) -> (m, k) float32: 0 for equal items, higher = less alike."""

    @abstractmethod
    def changed_slightly(self, items: Tensor, generator: torch.Generator) -> Tensor:
        """As decoded, in and out: each item changed so little that it is still the same to anybody. How far sketches
        of such twins differ sets the threshold for near-duplicates.
        """

    def appearance(self, sketches: Bytes) -> Bytes | None:
        """(n, f) -> (n, a) levels that say what items look like, which selection joins with their embeddings; None
        where a sketch says nothing but whether two items are equal.
        """
        return None


class Modality(BaseModel, ABC):
    """A kind of item. Its fields are the settings that are open until a sample of the pool is known; resolved, they
    stand in `PretextModel.config["input"]`.

    A decoded item is one tensor of one shape, so that decoded pools can be cached in memory, mapped from the disk
    and shared between processes, whatever they hold.

    dtype              of decoded items
    default_task       the pretext task where a project names none
    default_backbone   the backbone that `auto` trains
    foundation         a network with pretrained weights for these items; None where there is none
    items_seen         by device, in all epochs of a pretraining for which a project sets none
    least_spread       of the embeddings, as a share of the untrained network's: less is a sign of collapse
    least_rank         the same of their effective rank
    pretrained_rate    AdamW's learning rate where a pretraining goes on from a backbone's pretrained weights; None: the
                       same as from none
    packages           beyond those of every worker, without which these items cannot be decoded
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: ClassVar[str]
    dtype: ClassVar[torch.dtype]
    default_task: ClassVar[str]
    default_backbone: ClassVar[str] = "small"
    foundation: ClassVar[Foundation | None] = None
    # On a CPU it takes 40 s on 2 cores with `small` at 28 x 28 pixels; more epochs over the 8,000 images of the example
    # did not make their embeddings better.
    items_seen: ClassVar[dict[str, int]] = {"cpu": 16_000, "cuda": 1_000_000}
    least_spread: ClassVar[float] = 0.7
    least_rank: ClassVar[float] = 0.5
    pretrained_rate: ClassVar[float | None] = None
    packages: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def resolved(self, facts: Sequence[Facts], device: torch.device) -> Self:
        """With every open setting decided, by the facts of a sample of the pool and the device."""

    @property
    @abstractmethod
    def item_shape(self) -> tuple[int, ...]:
        """The shape of a decoded item, once resolved."""

    @abstractmethod
    def decode(self, data: bytes, limits: Limits) -> tuple[Tensor, Facts]:
        """The item as one tensor (*item_shape), and what else reading it told. Raises `BadItem`."""

    @abstractmethod
    def prepare(self, items: Tensor) -> Batch:
        """(n, *item_shape) as decoded, on the device -> what a backbone takes, on the same device."""

    def augment(self, items: Tensor, generator: torch.Generator) -> Tensor:
        """As decoded, in and out, on the device: what training does to every item before any task sees it."""
        return items

    @abstractmethod
    def view(
        self,
        batch: Batch,
        generator: torch.Generator,
        *,
        each: bool,
        strength: float = 0.5,
        share: tuple[float, float] = (0.2, 1.0),
        size: int | None = None,
    ) -> Batch:
        """A random view of each item of a prepared batch: what contrastive tasks compare.

        each      one set of random numbers an item; else one for the whole batch, so that an item's view does not
                  depend on its batch
        strength  of the change
        share     of the item that a view shows, at least and at most
        size      of the view, where a modality has views of several sizes; see `small_view`
        """

    def small_view(self, backbone: nn.Module) -> int | None:
        """The size of views that cost much less than whole items, where this backbone takes them."""
        return None

    @abstractmethod
    def dummy(self, n: int) -> Tensor:
        """(n, *item_shape) made-up decoded items, the same each time: for shapes, for tuning, for tests."""

    @abstractmethod
    def make_backbone(self, name: str, pretrained: bool) -> tuple[nn.Module, int]:
        """The network, prepared batch -> (n, d) float, and d. Raises `BackboneUnusable`."""

    def for_foundation(self) -> "Modality":
        """Resolved, and as large as the foundation wants items, which are decoded anew for it."""
        return self

    @abstractmethod
    def for_raw_features(self, facts: Sequence[Facts] = ()) -> Self:
        """Resolved, and as small as raw features and sketches need: items are decoded anew for them, before anything
        else is known of the pool than the facts of a sample.
        """

    @abstractmethod
    def raw_features(self, items: Iterable[Tensor], rng: np.random.Generator) -> Floats:
        """Decoded items, a part (m, *item_shape) at a time -> features (n, p) float32 that cost no training. The gate
        compares trained embeddings with it, and the first ranking comes from it.
        """

    def spans(self, data: bytes, limits: Limits, places: Ints) -> Ints:
        """The characters of a text that the decoded numbers at `places` (k,) stand for, -1 for none
        -> (k, 2) the first and the one after the last, -1 where there are none. Raises `BadItem`.
        """
        return np.full((len(places), 2), -1)

    def traits(self, items: Tensor, sizes: Ints) -> dict[str, Floats]:
        """Decoded items and the sizes of their files in bytes -> traits (m,) that losses must not merely follow."""
        return {}

    @property
    def sketcher(self) -> Sketcher | None:
        """None where only equal bytes are copies. Rankings ask it of a modality that is not resolved, to read sketches
        that were made before.
        """
        return None


def modalities() -> dict[str, type[Modality]]:
    """The modalities whose items this worker can decode, by name."""
    base: type[Modality] = Modality  # type: ignore[type-abstract]  # its subclasses are what is looked for
    found = plug_ins(base, "worker.modalities")
    return {name: kind for name, kind in found.items() if all(map(find_spec, kind.packages))}

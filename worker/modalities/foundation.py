"""Foundations: networks with pretrained weights, beside the backbone that a pretext task trains on the pool.

They are looked for in several places, and each that has none says why in a sentence.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import safetensors.torch
from torch import Tensor, nn

from service.settings import Settings

Source = Literal["file", "extra", "cache", "hub"]
State = dict[str, Tensor]


class NoWeights(Exception):
    """A place has no usable weights; the sentence says why."""


@dataclass(frozen=True)
class Weights:
    """data: safetensors, under the names that the network has for them; sha256: of `data`, so that equal weights have
    one name, wherever they come from.
    """

    data: bytes
    source: Source

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()


@dataclass(frozen=True)
class Search:
    """tried: a sentence for each place that had none, in their order."""

    weights: Weights | None
    tried: tuple[str, ...]


class Foundation(ABC):
    """name: of the network; batch: items that it takes at once, by kind of device"""

    name: ClassVar[str]
    batch: ClassVar[dict[str, int]]

    @abstractmethod
    def places(self, settings: Settings) -> Sequence[tuple[Source, Callable[[], State]]]:
        """The places where its weights may lie, best first; reading one raises `NoWeights`."""

    @abstractmethod
    def make(self, state: State) -> nn.Module:
        """The network in eval mode, (n, *item_shape) as `Modality.for_foundation` decodes -> (n, d)."""

    def find(self, settings: Settings) -> Search:
        """The weights of the first place that has them; any failure of a place is a sentence."""
        if settings.pretrained == "off":
            return Search(None, ("Pretrained weights are switched off (SHORTLIST_PRETRAINED).",))
        tried: list[str] = []
        for source, read in self.places(settings):
            try:
                return Search(Weights(safetensors.torch.save(read()), source), tuple(tried))
            except NoWeights as error:
                tried.append(str(error))
        return Search(None, tuple(tried))

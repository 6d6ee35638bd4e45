"""Pairs of two items of any kinds: what both modalities make of their half, side by side in one tensor."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar, Self

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from service.content.contract import Facts, Limits
from service.content.pair import EITHER, IMAGE_AND_TEXT, Kind, halves, names_of
from worker.arrays import Floats, Ints
from worker.modalities import Batch, Modality, Sketcher
from worker.modalities.audio import Audio
from worker.modalities.graph import Graph
from worker.modalities.image import Image
from worker.modalities.pair.backbones import make_backbone
from worker.modalities.pair.sketches import BothSketches
from worker.modalities.pair.tensors import bytes_of, decoded_halves, joined, joined_prepared, prepared_halves
from worker.modalities.text import Text
from worker.modalities.video import Video

_MODALITIES: Mapping[str, type[Modality]] = {
    "image": Image,
    "text": Text,
    "audio": Audio,
    "video": Video,
    "graph": Graph,
}


class Pair(Modality):
    """Two items that belong together, an image and a text where nobody says otherwise. A decoded pair is a vector of
    bytes, the first half's and then the second's; a prepared one a vector of floats, so that caches, batches and views
    treat it as any other item.
    """

    name: ClassVar[str] = "pair"
    dtype: ClassVar[torch.dtype] = torch.uint8
    default_task: ClassVar[str] = "view_matching"
    items_seen: ClassVar[dict[str, int]] = {"cpu": 40_000, "cuda": 2_000_000}
    least_spread: ClassVar[float] = 0.25

    pair_of: tuple[Kind, Kind] = Field(IMAGE_AND_TEXT, description="Kinds of both halves.")
    image_size: int | None = Field(None, ge=8, le=1024, description="Pixels a side of the images.")
    bits: int = Field(16, ge=1, le=16, description="That the grey values of 16-bit images take.")
    tokens: int | None = Field(None, ge=1, le=4_096, description="Tokens that are read of an image's text.")
    first: dict[str, Any] = Field(
        {}, description="Settings of the first half, where it has others than these."
    )
    second: dict[str, Any] = Field(
        {}, description="Settings of the second half, where it has others than these."
    )

    @cached_property
    def parts(self) -> tuple[Modality, Modality]:
        """The modalities of both halves."""
        if self.pair_of == IMAGE_AND_TEXT:
            return Image(image_size=self.image_size, bits=self.bits), Text(tokens=self.tokens)
        first, second = (
            _MODALITIES[kind].model_validate(
                ({"image_size": self.image_size} if kind == "image" and self.image_size else {}) | own
            )
            for kind, own in zip(self.pair_of, (self.first, self.second), strict=True)
        )
        return first, second

    def resolved(self, facts: Sequence[Facts], device: torch.device) -> Self:
        found = [
            part.resolved([fact.get(name, fact) for fact in facts], device)
            for part, name in zip(self.parts, EITHER, strict=True)
        ]
        return self._of(*found)

    def _of(self, first: Modality, second: Modality) -> Self:
        """A pair of these halves."""
        if isinstance(first, Image) and isinstance(second, Text):
            own: dict[str, Any] = {
                "image_size": first.image_size,
                "bits": first.bits,
                "tokens": second.tokens,
            }
        else:
            own = {name: part.model_dump() for name, part in zip(EITHER, (first, second), strict=True)}
        return type(self).model_validate(self.model_dump() | own)  # a copy would keep the parts of before

    @property
    def item_shape(self) -> tuple[int, ...]:
        return (sum(map(bytes_of, self.parts)),)

    def decode(self, data: bytes, limits: Limits) -> tuple[Tensor, Facts]:
        decoded = [part.decode(half, limits) for part, half in zip(self.parts, halves(data), strict=True)]
        (first, of_first), (second, of_second) = decoded
        facts = (
            of_first | of_second
            if self.pair_of == IMAGE_AND_TEXT
            else {"first": of_first, "second": of_second}
        )
        return joined(first[None], second[None])[0], facts

    def halves(self, items: Tensor) -> tuple[Tensor, Tensor]:
        """As decoded -> both halves as their modalities decode them, (n, *item_shape) each."""
        return decoded_halves(items, self.parts)

    def prepare(self, items: Tensor) -> Batch:
        first, second = self.halves(items)
        return joined_prepared(self.parts[0].prepare(first), self.parts[1].prepare(second))

    def augment(self, items: Tensor, generator: torch.Generator) -> Tensor:
        """Each half as its modality does it: a text says nothing of a mirrored picture that it does not say of the
        other.
        """
        first, second = self.halves(items)
        return joined(self.parts[0].augment(first, generator), self.parts[1].augment(second, generator))

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
        seen = [
            part.view(half, generator, each=each, strength=strength, share=share)
            for part, half in zip(self.parts, prepared_halves(batch, self.parts), strict=True)
        ]
        return joined_prepared(*seen)

    def dummy(self, n: int) -> Tensor:
        first, second = self.parts
        return joined(first.dummy(n), second.dummy(n))

    def make_backbone(self, name: str, pretrained: bool) -> tuple[nn.Module, int]:
        return make_backbone(name, pretrained, dict(zip(names_of(self.pair_of), self.parts, strict=True)))

    def for_raw_features(self, facts: Sequence[Facts] = ()) -> Self:
        found = [
            part.for_raw_features([fact.get(name, fact) for fact in facts])
            for part, name in zip(self.parts, EITHER, strict=True)
        ]
        return self._of(*found)

    def raw_features(self, items: Iterable[Tensor], rng: np.random.Generator) -> Floats:
        """The raw features of both halves, each with a total variance of 1."""
        parts = self.parts
        large = 0 if bytes_of(parts[0]) >= bytes_of(parts[1]) else 1
        kept: list[Tensor] = []  # the halves that take less room; the others are read a part at a time

        def streamed() -> Iterator[Tensor]:
            for part in items:
                both = self.halves(part)
                kept.append(both[1 - large])
                yield both[large]

        found = {large: parts[large].raw_features(streamed(), rng)}
        found[1 - large] = parts[1 - large].raw_features(kept, rng)
        scaled = [found[half] / max(float(np.sqrt(found[half].var(0).sum())), 1e-6) for half in (0, 1)]
        return np.concatenate(scaled, axis=1)

    def traits(self, items: Tensor, sizes: Ints) -> dict[str, Floats]:
        """Both halves' traits; of pairs other than of an image and a text with the half's name before each."""
        found: dict[str, Floats] = {}
        for part, half, name in zip(self.parts, self.halves(items), names_of(self.pair_of), strict=True):
            before = "" if self.pair_of == IMAGE_AND_TEXT else f"{name}_"
            own = part.traits(half, sizes)
            found |= {trait if trait == "file_size" else before + trait: own[trait] for trait in own}
        return found

    @property
    def sketcher(self) -> Sketcher:
        return BothSketches(self.parts, self.pair_of, self.halves)

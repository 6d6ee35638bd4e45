"""Pairs of an image and a text: what both modalities make of their half, side by side in one tensor."""

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import ClassVar, Self

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from service.content.contract import Facts, Limits
from service.content.pair import halves
from worker.arrays import Floats, Ints
from worker.modalities import Batch, Modality, Sketcher
from worker.modalities.image import Image
from worker.modalities.pair.backbones import make_backbone
from worker.modalities.pair.sketches import BothSketches
from worker.modalities.text import Text


class Pair(Modality):
    """Images with texts that belong to them. A decoded pair is a vector of bytes, the pixels first, then the token ids;
    a prepared one a vector of floats, so that caches, batches and views treat it as any other item.
    """

    name: ClassVar[str] = "pair"
    dtype: ClassVar[torch.dtype] = torch.uint8
    default_task: ClassVar[str] = "view_matching"
    items_seen: ClassVar[dict[str, int]] = {"cpu": 40_000, "cuda": 2_000_000}
    least_spread: ClassVar[float] = 0.25

    image_size: int | None = Field(None, ge=8, le=1024, description="Pixels a side of the images.")
    bits: int = Field(16, ge=1, le=16, description="That the grey values of 16-bit images take.")
    tokens: int | None = Field(None, ge=1, le=4_096, description="Tokens that are read of a text.")

    @property
    def image(self) -> Image:
        return Image(image_size=self.image_size, bits=self.bits)

    @property
    def text(self) -> Text:
        return Text(tokens=self.tokens)

    def resolved(self, facts: Sequence[Facts], device: torch.device) -> Self:
        return self._of(self.image.resolved(facts, device), self.text.resolved(facts, device))

    def _of(self, image: Image, text: Text) -> Self:
        return self.model_copy(
            update={"image_size": image.image_size, "bits": image.bits, "tokens": text.tokens}
        )

    @property
    def item_shape(self) -> tuple[int, ...]:
        return (math.prod(self.image.item_shape) + 4 * math.prod(self.text.item_shape),)

    def decode(self, data: bytes, limits: Limits) -> tuple[Tensor, Facts]:
        image, text = halves(data)
        pixels, of_image = self.image.decode(image, limits)
        ids, of_text = self.text.decode(text, limits)
        return _joined(pixels[None], ids[None])[0], of_image | of_text

    def halves(self, items: Tensor) -> tuple[Tensor, Tensor]:
        """As decoded -> (n, 3, s, s) uint8 and (n, L) int32."""
        shape = self.image.item_shape
        pixels, ids = items[:, : math.prod(shape)], items[:, math.prod(shape) :]
        return pixels.reshape(-1, *shape), ids.contiguous().view(torch.int32)

    def prepare(self, items: Tensor) -> Batch:
        pixels, ids = self.halves(items)
        return self._prepared(self.image.prepare(pixels), self.text.prepare(ids))

    def _prepared(self, images: Tensor, ids: Tensor) -> Tensor:
        return torch.cat([images.reshape(len(images), -1), ids.to(images.dtype)], 1)

    def augment(self, items: Tensor, generator: torch.Generator) -> Tensor:
        """The images alone: a text says nothing of a mirrored picture that it does not say of the other."""
        pixels, ids = self.halves(items)
        return _joined(self.image.augment(pixels, generator), ids)

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
        images, ids = parts(batch, self.image.side)
        return self._prepared(
            self.image.view(images, generator, each=each, strength=strength, share=share),
            self.text.view(ids, generator, each=each, strength=strength, share=share),
        )

    def dummy(self, n: int) -> Tensor:
        return _joined(self.image.dummy(n), self.text.dummy(n))

    def make_backbone(self, name: str, pretrained: bool) -> tuple[nn.Module, int]:
        return make_backbone(name, pretrained, self.image, self.text)

    def for_raw_features(self, facts: Sequence[Facts] = ()) -> Self:
        return self._of(self.image.for_raw_features(facts), self.text.for_raw_features(facts))

    def raw_features(self, items: Iterable[Tensor], rng: np.random.Generator) -> Floats:
        """The raw features of both halves, each with a total variance of 1."""
        texts: list[Tensor] = []  # token ids take little room, pixels are read a part at a time

        def images() -> Iterator[Tensor]:
            for part in items:
                pixels, ids = self.halves(part)
                texts.append(ids)
                yield pixels

        found = [self.image.raw_features(images(), rng), self.text.raw_features(texts, rng)]
        return np.concatenate([one / max(float(np.sqrt(one.var(0).sum())), 1e-6) for one in found], axis=1)

    def traits(self, items: Tensor, sizes: Ints) -> dict[str, Floats]:
        pixels, ids = self.halves(items)
        return self.image.traits(pixels, sizes) | self.text.traits(ids, sizes)

    @property
    def sketcher(self) -> Sketcher:
        return BothSketches(None if self.image_size is None else math.prod(self.image.item_shape))


def parts(batch: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """As prepared -> images (n, 3, s, s) float and token ids (n, L) int64."""
    pixels = 3 * side * side
    images = batch[:, :pixels].reshape(-1, 3, side, side).contiguous(memory_format=torch.channels_last)
    return images, batch[:, pixels:].long()


def _joined(pixels: Tensor, ids: Tensor) -> Tensor:
    return torch.cat([pixels.reshape(len(pixels), -1), ids.contiguous().view(torch.uint8)], 1)

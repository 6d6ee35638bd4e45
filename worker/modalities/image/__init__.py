"""Images: bytes in, pixels out."""

from collections.abc import Iterable, Sequence
from typing import ClassVar, Self

import numpy as np
import torch
from PIL.Image import Resampling
from pydantic import Field
from torch import Tensor, nn

from service.content.contract import Facts, Limits
from service.content.image import bits_of, facts_of, open_scaled
from worker.arrays import Floats, Ints
from worker.modalities import Modality
from worker.modalities.image import gradients
from worker.modalities.image.backbones import make_backbone
from worker.modalities.image.crop_side import crop_side
from worker.modalities.image.foundation import SIDE, ImageFoundation
from worker.modalities.image.pixels import augmented, image_size_for, normalised, to_pixels
from worker.modalities.image.sketches import ImageSketcher
from worker.modalities.image.views import view


class Image(Modality):
    """Pictures of any size, seen as squares: the centre, resized. A decoded item is (3, s, s) uint8, a prepared one
    (3, s, s) float32 with zero mean and unit variance over ImageNet.
    """

    name: ClassVar[str] = "image"
    dtype: ClassVar[torch.dtype] = torch.uint8
    default_task: ClassVar[str] = "rotation"
    foundation: ClassVar[ImageFoundation] = ImageFoundation()

    image_size: int | None = Field(None, ge=8, le=1024, description="pixels a side")
    bits: int = Field(16, ge=1, le=16, description="that the values of the pool's 16-bit files take")

    def resolved(self, facts: Sequence[Facts], device: torch.device) -> Self:
        bits = bits_of(facts) or self.bits
        if self.image_size is not None:
            return self.model_copy(update={"bits": bits})
        sides = [min(one["width"], one["height"]) for one in facts if one.get("width") and one.get("height")]
        size = image_size_for(float(np.median(sides)) if sides else 1e6, device)
        return self.model_copy(update={"image_size": size, "bits": bits})

    @property
    def side(self) -> int:
        assert self.image_size is not None
        return self.image_size

    @property
    def item_shape(self) -> tuple[int, ...]:
        return (3, self.side, self.side)

    def decode(self, data: bytes, limits: Limits) -> tuple[Tensor, Facts]:
        image, size = open_scaled(data, limits.max_pixels, self.side, self.bits)
        return to_pixels(image, self.side), facts_of(image, *size)

    def prepare(self, items: Tensor) -> Tensor:
        return normalised(items)

    def augment(self, items: Tensor, generator: torch.Generator) -> Tensor:
        return augmented(items, generator)

    def view(
        self,
        batch: Tensor,
        generator: torch.Generator,
        *,
        each: bool,
        strength: float = 0.5,
        share: tuple[float, float] = (0.2, 1.0),
        size: int | None = None,
    ) -> Tensor:
        return view(batch, generator, each=each, strength=strength, scale=share, side=size)

    def small_view(self, backbone: nn.Module) -> int:
        return crop_side(backbone, self.side)

    def dummy(self, n: int) -> Tensor:
        generator = torch.Generator().manual_seed(0)
        return torch.randint(0, 256, (n, *self.item_shape), dtype=torch.uint8, generator=generator)

    def make_backbone(self, name: str, pretrained: bool) -> tuple[nn.Module, int]:
        return make_backbone(name, pretrained, self.side)

    def for_foundation(self) -> "Image":
        return _Bicubic(image_size=SIDE, bits=self.bits)

    def for_raw_features(self, facts: Sequence[Facts] = ()) -> Self:
        side = min(self.image_size or gradients.SIDE, gradients.SIDE)
        return self.model_copy(update={"image_size": side, "bits": bits_of(facts) or self.bits})

    def raw_features(self, items: Iterable[Tensor], rng: np.random.Generator) -> Floats:
        """Histograms of oriented gradients, and a thumbnail."""
        parts = [gradients.gradients(part) for part in items]
        found: Floats = torch.cat(parts or [gradients.gradients(self.dummy(1))[:0]]).numpy()
        return found

    def traits(self, items: Tensor, sizes: Ints) -> dict[str, Floats]:
        values = items.flatten(1).float()
        return {
            "pixel_variance": values.var(1, correction=0).numpy(),
            "brightness": values.mean(1).numpy(),
            "file_size": sizes.astype(np.float32),
        }

    @property
    def sketcher(self) -> ImageSketcher:
        return ImageSketcher()


class _Bicubic(Image):
    """Resized as the images were that pretrained weights come from."""

    def decode(self, data: bytes, limits: Limits) -> tuple[Tensor, Facts]:
        image, size = open_scaled(data, limits.max_pixels, self.side, self.bits)
        return to_pixels(image, self.side, Resampling.BICUBIC), facts_of(image, *size)

"""Sketches of pairs: those of both halves. A copy is a pair of which both are."""

import numpy as np
import torch
from torch import Tensor

from worker.arrays import Bytes, Floats, Ints
from worker.modalities import Sketcher
from worker.modalities.image.sketches import ImageSketcher
from worker.modalities.text.sketches import MinHash

_OF_TEXT = 128  # bytes, the last of a sketch
_GREY = 16.0  # levels that two images differ by and are as far apart as two texts without a common word


class BothSketches(Sketcher):
    """A thumbnail and a MinHash. pixels: bytes of a decoded item that are its image's; None to read sketches only."""

    most_of_strangers = MinHash.most_of_strangers

    def __init__(self, pixels: int | None) -> None:
        self._pixels = pixels
        self._image, self._text = ImageSketcher(), MinHash()

    def _halves(self, items: Tensor) -> tuple[Tensor, Tensor]:
        if self._pixels is None:
            raise ValueError("`image_size` is open: ask `resolved` first")
        side = round((self._pixels / 3) ** 0.5)
        pixels, ids = items[:, : self._pixels], items[:, self._pixels :]
        return pixels.reshape(-1, 3, side, side), ids.contiguous().view(torch.int32)

    def sketch(self, items: Tensor) -> Bytes:
        pixels, ids = self._halves(items)
        return np.concatenate([self._image.sketch(pixels), self._text.sketch(ids)], axis=1)

    def places(self, sketches: Bytes) -> Floats:
        """Both halves' places, those of images brought to the scale of texts'."""
        found = self._image.places(np.ascontiguousarray(sketches[:, :-_OF_TEXT]))
        scale = max(float(np.sqrt(found.var(axis=0).sum())), 1e-6) if len(found) else 1.0
        words = self._text.places(sketches[:, -_OF_TEXT:])
        return np.concatenate([found / scale, words / np.sqrt(max(words.shape[1], 1))], axis=1)

    def differences(self, sketches: Bytes, first: Ints, others: Ints) -> Floats:
        """The difference of the halves which differ more, 0 to 1."""
        images = np.ascontiguousarray(sketches[:, :-_OF_TEXT])
        texts = np.ascontiguousarray(sketches[:, -_OF_TEXT:])
        of_image = np.minimum(self._image.differences(images, first, others) / _GREY, 1)
        found: Floats = np.maximum(of_image, self._text.differences(texts, first, others))
        return found

    def changed_slightly(self, items: Tensor, generator: torch.Generator) -> Tensor:
        pixels, ids = self._halves(items)
        images = self._image.changed_slightly(pixels, generator)
        texts = self._text.changed_slightly(ids, generator)
        return torch.cat([images.reshape(len(images), -1), texts.contiguous().view(torch.uint8)], 1)

    def appearance(self, sketches: Bytes) -> Bytes:
        """The thumbnails of the images."""
        return np.ascontiguousarray(sketches[:, :-_OF_TEXT])

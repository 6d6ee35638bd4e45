"""Sketches of pairs: those of both halves. A copy is a pair of which both are."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from service.content.pair import IMAGE_AND_TEXT, Kinds
from worker.arrays import Bytes, Floats, Ints
from worker.modalities import Modality, Sketcher
from worker.modalities.pair.tensors import joined
from worker.modalities.text.sketches import MinHash

_OF_TEXT = 128  # bytes, the last of a sketch of an image and a text
_WIDTH = 2  # bytes before other sketches, which say how long the first half's is
# What two halves differ by that are as far apart as two texts without a common word: grey levels of images and videos,
# levels of recordings; of graphs and texts shares.
_FAR = {"image": 16.0, "video": 16.0, "audio": 32.0, "graph": 1.0, "text": 1.0}


class BothSketches(Sketcher):
    """halves: decoded pairs -> both halves as decoded; asked only where sketches are made."""

    most_of_strangers = MinHash.most_of_strangers

    def __init__(
        self,
        parts: tuple[Modality, Modality],
        kinds: Kinds,
        halves: Callable[[Tensor], tuple[Tensor, Tensor]],
    ) -> None:
        found = [part.sketcher for part in parts]
        assert found[0] is not None
        assert found[1] is not None
        self._first, self._second = found[0], found[1]
        self._kinds, self._halves = kinds, halves

    def sketch(self, items: Tensor) -> Bytes:
        first, second = self._halves(items)
        both = [self._first.sketch(first), self._second.sketch(second)]
        if self._kinds == IMAGE_AND_TEXT:
            return np.concatenate(both, axis=1)
        width = np.frombuffer(both[0].shape[1].to_bytes(_WIDTH, "big"), np.uint8)
        return np.concatenate([np.tile(width, (len(items), 1)), *both], axis=1)

    def _split(self, sketches: Bytes) -> tuple[Bytes, Bytes]:
        start, end = 0, sketches.shape[1] - _OF_TEXT
        if self._kinds != IMAGE_AND_TEXT:
            start = _WIDTH
            end = start + (int.from_bytes(sketches[0, :_WIDTH].tobytes(), "big") if len(sketches) else 0)
        return np.ascontiguousarray(sketches[:, start:end]), np.ascontiguousarray(sketches[:, end:])

    def places(self, sketches: Bytes) -> Floats:
        """Both halves' places, each with a total variance of 1."""
        first, second = self._split(sketches)
        return np.concatenate(
            [_scaled(self._first.places(first)), _scaled(self._second.places(second))], axis=1
        )

    def differences(self, sketches: Bytes, first: Ints, others: Ints) -> Floats:
        """The difference of the halves which differ more, 0 to 1."""
        both = zip((self._first, self._second), self._split(sketches), self._kinds, strict=True)
        apart = [
            np.minimum(sketcher.differences(half, first, others) / _FAR[kind], 1)
            for sketcher, half, kind in both
        ]
        found: Floats = np.maximum(*apart)
        return found

    def changed_slightly(self, items: Tensor, generator: torch.Generator) -> Tensor:
        first, second = self._halves(items)
        return joined(
            self._first.changed_slightly(first, generator), self._second.changed_slightly(second, generator)
        )

    def appearance(self, sketches: Bytes) -> Bytes | None:
        """The appearance of the first half which has one."""
        first, second = self._split(sketches)
        found = self._first.appearance(first)
        return found if found is not None else self._second.appearance(second)


def _scaled(places: Floats) -> Floats:
    found: Floats = places / max(float(np.sqrt(places.var(axis=0).sum())), 1e-6) if len(places) else places
    return found

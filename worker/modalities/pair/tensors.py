"""Pairs in one tensor: both halves side by side, and each as its modality has it.

A decoded pair is a vector of bytes, the first half's and then the second's; a prepared one a vector of floats.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from worker.modalities import Modality
from worker.modalities.image import Image


def bytes_of(part: Modality) -> int:
    """Bytes that a decoded half takes."""
    return math.prod(part.item_shape) * part.dtype.itemsize


def joined(first: Tensor, second: Tensor) -> Tensor:
    """Both as decoded, (n, *item_shape) each -> (n, bytes) uint8."""
    return torch.cat([half.contiguous().view(len(half), -1).view(torch.uint8) for half in (first, second)], 1)


def decoded_halves(items: Tensor, parts: Sequence[Modality]) -> tuple[Tensor, Tensor]:
    """(n, bytes) uint8 -> both as decoded. Cloned, as numbers of several bytes begin at a place that is a multiple of
    these.
    """
    place = bytes_of(parts[0])
    first, second = (
        half.clone(memory_format=torch.contiguous_format).view(part.dtype).reshape(-1, *part.item_shape)
        for part, half in zip(parts, (items[:, :place], items[:, place:]), strict=True)
    )
    return first, second


def joined_prepared(first: Tensor, second: Tensor) -> Tensor:
    """Both as prepared -> (n, numbers) float32."""
    return torch.cat([half.reshape(len(half), -1).float() for half in (first, second)], 1)


def prepared_halves(batch: Tensor, parts: Sequence[Modality]) -> tuple[Tensor, Tensor]:
    """(n, numbers) -> both as prepared, (n, *item_shape) each."""
    sizes = [math.prod(part.item_shape) for part in parts]
    first, second = (
        _as_prepared(flat.reshape(-1, *part.item_shape), part)
        for part, flat in zip(parts, torch.split(batch, sizes, 1), strict=True)
    )
    return first, second


def _as_prepared(half: Tensor, part: Modality) -> Tensor:
    if part.dtype != torch.uint8:
        return half.long()  # ids
    return half.contiguous(
        memory_format=torch.channels_last if isinstance(part, Image) else torch.contiguous_format
    )

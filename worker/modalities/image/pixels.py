"""Images: decoded picture to pixels, pixels to batches. Only here and in the tasks are items images."""

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from worker.device import constant

_LARGEST = {"cpu": 64, "cuda": 224}
_SMALLEST = 8
_PAD = 3

# ImageNet's, so that pretrained backbones see what they were trained on.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


def image_size_for(median_side: float, device: torch.device) -> int:
    """The side of a network's input: squares of the pool's median short side, at most 64 on a CPU, 224 on a GPU."""
    largest = _LARGEST["cpu" if device.type == "cpu" else "cuda"]
    return int(min(max(round(median_side), _SMALLEST), largest))


def to_pixels(
    image: Image.Image, size: int, resampling: Image.Resampling = Image.Resampling.BILINEAR
) -> Tensor:
    """The centre square, resized: (3, size, size) uint8.

    Cropping keeps shapes as they are; squeezing would tell a rotation task which way an image was long.
    """
    if image.size != (size, size):
        side = min(image.size)
        left, top = (image.width - side) / 2, (image.height - side) / 2
        image = image.resize((size, size), resampling, (left, top, left + side, top + side))
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()


def normalised(pixels: Tensor) -> Tensor:
    """(n, 3, s, s) uint8 -> float32, zero mean and unit variance over ImageNet."""
    mean, std = (constant(values, pixels.device).view(1, 3, 1, 1) for values in (MEAN, STD))
    return (pixels.float() / 255 - mean) / std


def augmented(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Each image shifted by up to 3 pixels, its border reflected, and flipped half of the time.

    (n, 3, s, s) uint8 in and out; one gather for the batch, on its device.
    """
    n, _, size, _ = pixels.shape
    shifts = torch.randint(-_PAD, _PAD + 1, (2, n, 1), generator=generator, device=pixels.device)
    rows, columns = _reflected(shifts + torch.arange(size, device=pixels.device), size)
    flip = torch.rand((n, 1), generator=generator, device=pixels.device) < 0.5
    columns = torch.where(flip, columns.flip(1), columns)
    image = torch.arange(n, device=pixels.device)[:, None, None]
    # Indexing (n, s, s, 3) leaves the colours together, which is what channels_last wants.
    return pixels.permute(0, 2, 3, 1)[image, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def _reflected(index: Tensor, size: int) -> Tensor:
    return (size - 1) - ((size - 1) - index.abs()).abs()

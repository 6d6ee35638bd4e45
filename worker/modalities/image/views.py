"""Views of images: crops, mirrored, recoloured and blurred, that show the same thing.

A whole batch at once, on its device, on normalised floats. All numbers come from the generator: one set an
item where `each`, else one set for the whole batch, so that an item's view does not depend on its batch.
"""

import math
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional

from worker.device import constant
from worker.modalities.image.pixels import normalised

_RATIO = 4 / 3  # of a crop's sides, at most
_WEIGHTS = (0.299, 0.587, 0.114)  # ITU-R BT.601
_LUMA = torch.tensor(_WEIGHTS)
_GREY = _LUMA.expand(3, 3)  # the matrix that makes colours grey
_YUV = torch.stack([_LUMA, 0.492 * (torch.eye(3)[2] - _LUMA), 0.877 * (torch.eye(3)[0] - _LUMA)])
_QUARTER = torch.tensor([[0.0, 0, 0], [0, 0, -1], [0, 1, 0]])
_TURN = torch.linalg.inv(_YUV) @ _QUARTER @ _YUV  # takes the brightness away and turns the hue by 90 degrees
_JITTERED, _GREYED, _BLURRED = 0.8, 0.2, 0.5  # probabilities
_SMALLEST_BLURRED = 64  # pixels; a blur in proportion does nothing to smaller images


def view(
    images: Tensor,
    generator: torch.Generator,
    *,
    each: bool,
    scale: tuple[float, float] = (0.2, 1.0),
    side: int | None = None,
    strength: float = 0.5,
) -> Tensor:
    """A random view of each image: (n, 3, s, s) -> (n, 3, side, side), channels_last; `side` is s by default.

    scale     share of the area that a crop shows
    strength  of the colour jitter

    The augmentations of SimCLR, with its probabilities (Chen et al. 2020, https://arxiv.org/abs/2002.05709,
    appendix A); the hue is turned in YUV, and all changes of colour are one matrix an image.
    """
    rows = len(images) if each else 1
    boxes = random_boxes(rows, generator, scale, images.device)
    cropped = crops(images, boxes, side or images.shape[-1])
    made = blurred(recoloured(cropped, generator, rows, strength), generator, rows)
    return made.contiguous(memory_format=torch.channels_last)


def random_boxes(
    rows: int, generator: torch.Generator, scale: tuple[float, float], device: torch.device
) -> Tensor:
    """(rows, 4): left, top, width and height as shares of the image's side. Half of the widths are negative:
    such a box is mirrored, and `left` is its right edge.
    """
    draw = torch.rand((5, rows), generator=generator, device=device)
    area = scale[0] + (scale[1] - scale[0]) * draw[0]
    ratio = _RATIO ** (2 * draw[1] - 1)
    width, height = (area * ratio).sqrt().clamp(max=1), (area / ratio).sqrt().clamp(max=1)
    left, top = draw[2] * (1 - width), draw[3] * (1 - height)
    flip = draw[4] < 0.5
    left = torch.where(flip, left + width, left)
    return torch.stack([left, top, torch.where(flip, -width, width), height], 1)


def _exact(images: Tensor) -> torch.autocast:
    """bf16 would move crops by a third of a pixel and colours by a grey level."""
    return torch.autocast(images.device.type, enabled=False)


def crops(images: Tensor, boxes: Tensor, side: int) -> Tensor:
    """(n, c, s, s) and boxes (n, 4) or (1, 4), as `random_boxes` makes them -> (n, c, side, side), bilinear."""
    with _exact(images):
        left, top, width, height = boxes.unbind(1)
        nothing = torch.zeros_like(left)
        across = torch.stack([width, nothing, 2 * left + width - 1], 1)
        down = torch.stack([nothing, height, 2 * top + height - 1], 1)
        grid = functional.affine_grid(
            torch.stack([across, down], 1), [len(boxes), images.shape[1], side, side], align_corners=False
        )
        grid = grid.expand(len(images), -1, -1, -1)
        return functional.grid_sample(images.contiguous(), grid, padding_mode="border", align_corners=False)


def recoloured(images: Tensor, generator: torch.Generator, rows: int, strength: float) -> Tensor:
    """Brightness, contrast, saturation and hue jittered, then some made grey; `rows` is n, or 1 for all alike."""
    with _exact(images):
        device = images.device
        draw = torch.rand((6, rows), generator=generator, device=device)[:, :, None, None]
        jitter = strength * (draw[0] < _JITTERED)
        brightness, contrast, saturation = 1 + 0.8 * jitter * (2 * draw[1:4] - 1)
        angle = 0.2 * jitter * (2 * draw[4] - 1) * 2 * math.pi
        saturation = saturation * (draw[5] >= _GREYED)
        grey, turn = _matrices(device)
        chroma = torch.eye(3, device=device) - grey
        matrix = brightness * contrast * (grey + saturation * (angle.cos() * chroma + angle.sin() * turn))
        # All of it is linear, so it works on normalised floats too, where black is not 0 and white is not 1.
        black, white = (end.view(3, 1) for end in _black_and_white(device))
        range_ = white - black
        matrix = matrix * range_ / range_.T
        # (n, 3, 1): the brightness, thrice
        means = grey @ ((images.mean((2, 3))[:, :, None] - black) / range_)
        shift = black - matrix @ black + range_ * brightness * (1 - contrast) * means
        mixed: Tensor = matrix @ images.flatten(2) + shift
        return mixed.maximum(black).minimum(white).view(images.shape)


def blurred(images: Tensor, generator: torch.Generator, rows: int) -> Tensor:
    """Half of them, by a Gaussian of 0.1 to 2 pixels for 224; images below 64 pixels stay as they are."""
    n, channels, side, _ = images.shape
    if side < _SMALLEST_BLURRED:
        return images
    draw = torch.rand((2, rows, 1), generator=generator, device=images.device)
    sigma = torch.where(draw[0] < _BLURRED, (0.1 + 1.9 * draw[1]) * side / 224, 1e-3)
    reach = math.ceil(side / 50)
    taps = torch.arange(-reach, reach + 1, device=images.device)
    kernels = torch.softmax(-(taps**2) / (2 * sigma**2), 1).expand(n, -1).repeat_interleave(channels, 0)
    padded = functional.pad(images, (reach,) * 4, mode="reflect")
    with _exact(images):
        across = functional.conv2d(
            padded.reshape(1, n * channels, *padded.shape[2:]), kernels[:, None, None, :], groups=n * channels
        )
        both = functional.conv2d(across, kernels[:, None, :, None], groups=n * channels)
    return both.view(images.shape)


def to_colours(images: Tensor) -> Tensor:
    """Normalised floats (n, 3, h, w) -> 0..1."""
    black, white = _black_and_white(images.device)
    return (images - black) / (white - black)


def from_colours(colours: Tensor) -> Tensor:
    black, white = _black_and_white(colours.device)
    return black + colours * (white - black)


def brightness_of(colours: Tensor) -> Tensor:
    """(n, 3, h, w) -> (n, 1, h, w), both in 0..1."""
    return (colours * constant(_WEIGHTS, colours.device).view(1, 3, 1, 1)).sum(1, keepdim=True)


@cache
def _matrices(device: torch.device) -> tuple[Tensor, Tensor]:
    return _GREY.to(device), _TURN.to(device)


@cache
def _black_and_white(device: torch.device) -> tuple[Tensor, Tensor]:
    """(1, 3, 1, 1) both: what 0 and 255 are among normalised floats."""
    ends = torch.tensor([0, 255], dtype=torch.uint8, device=device).view(2, 1, 1, 1).expand(2, 3, 1, 1)
    black, white = torch.split(normalised(ends), 1)
    return black, white

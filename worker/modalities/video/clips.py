"""Videos to clips of small frames, and back to what networks take.

A decoded video is (clips, frames, 3, s, s) uint8, a prepared one float32 of the same shape, normalised as pictures are.
"""

import numpy as np
import torch
from torch import Tensor

from service.content.frames import Frames
from service.content.video import Film, pixels_of
from worker.modalities.image.pixels import normalised

_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601


def clips_of(film: Film | Frames, clips: int, frames: int, step: float, shown: float, side: int) -> Tensor:
    """(clips, frames, 3, side, side) uint8. Of a video that is too short for steps of `step` seconds, steps are
    shorter, so that its clips show no more than the share `shown` of it.
    """
    end = max(film.seconds - 1 / film.rate, 0.0)
    step = min(step, shown * end / (clips * frames - 1))
    starts = np.linspace(0, end - (frames - 1) * step, clips)
    times = (starts[:, None] + step * np.arange(frames)).flatten()
    pictures = []
    for frame in film.shown_at(times.tolist()):
        pixels = pixels_of(frame, side)
        top, left = (pixels.shape[0] - side) // 2, (pixels.shape[1] - side) // 2
        pictures.append(pixels[top : top + side, left : left + side])
    found = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)
    return found.reshape(clips, frames, 3, side, side).contiguous()


def prepared(items: Tensor) -> Tensor:
    return normalised(items.flatten(0, 2)).view(items.shape)


def grey(items: Tensor) -> Tensor:
    """(n, C, F, 3, s, s) as decoded -> (n, C, F, s, s) float32, of 255."""
    weights = torch.tensor(_LUMA, device=items.device)
    return torch.einsum("ncfkhw,k->ncfhw", items.float(), weights)


def motion(items: Tensor) -> Tensor:
    """(n, C, F, 3, s, s) as decoded -> (n, C, F - 1, s, s): how much each pixel changes from frame to frame."""
    return grey(items).diff(dim=2).abs()

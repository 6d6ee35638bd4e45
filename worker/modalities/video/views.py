"""Views of videos: a part of each clip, slower, cropped and recoloured, the same way in all frames."""

import torch
from torch import Tensor

from worker.modalities.image.views import crops, random_boxes, recoloured

_SHORTEST = 0.5  # of a clip


def view(
    batch: Tensor,
    generator: torch.Generator,
    *,
    each: bool,
    strength: float = 0.5,
    share: tuple[float, float] = (0.2, 1.0),
) -> Tensor:
    """A random view of each video: (n, C, F, 3, s, s) as prepared, in and out.

    each      one set of random numbers an item; else one for the whole batch, so that an item's view does not depend
              on its batch
    strength  of the change of colours
    share     of a frame's area that a view shows

    Crops and colours that stay the same over time, and parts of it: CVRL (Qian et al. 2021,
    https://arxiv.org/abs/2008.03800). Nothing is mirrored: to the left is another motion than to the right.
    """
    n, clips, frames, _, side, _ = batch.shape
    rows = n if each else 1
    draw = torch.rand((2, rows, 1), generator=generator, device=batch.device)
    length = frames * (_SHORTEST + (1 - _SHORTEST) * draw[0])
    start = (frames - length) * draw[1]
    place = torch.arange(frames, device=batch.device)
    at = (start + length * place / frames).floor().long().expand(n, -1)
    moved = batch[torch.arange(n, device=batch.device)[:, None], :, at].transpose(1, 2)  # (n, C, F, 3, s, s)

    left, top, width, height = random_boxes(rows, generator, share, batch.device).unbind(1)
    boxes = torch.stack([torch.where(width < 0, left + width, left), top, width.abs(), height], 1)
    cropped = crops(moved.reshape(n, -1, side, side), boxes, side).view(n, clips * frames, 3, side, side)
    # All frames of an item as one tall picture: so they have one mean, and one change.
    tall = cropped.transpose(1, 2).reshape(n, 3, clips * frames * side, side)
    coloured = recoloured(tall, generator, rows, strength).view(n, 3, clips * frames, side, side)
    return coloured.transpose(1, 2).reshape(batch.shape).contiguous()

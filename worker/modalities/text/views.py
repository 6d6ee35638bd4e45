"""Views of texts: a span, with some of its tokens dropped, that says the same thing."""

import torch
from torch import Tensor

from worker.modalities.text.tokens import PADDING, lengths, packed

_DROPPED = 0.4  # of the tokens, at strength 1


def view(
    ids: Tensor,
    generator: torch.Generator,
    *,
    each: bool,
    share: tuple[float, float] = (0.2, 1.0),
    strength: float = 0.5,
) -> Tensor:
    """A random view of each text: (n, L) ids in and out, at least one token of each.

    each      one set of random numbers an item; else one for the whole batch, so that an item's view does not
              depend on its batch
    share     of the text that the span covers, at least and at most
    strength  of the change: at 0.5 every fifth token of the span is dropped

    Dropping and cropping are the views of CLEAR (Wu et al. 2020, https://arxiv.org/abs/2012.15466).
    """
    n, length = ids.shape
    draw = torch.rand((n if each else 1, length + 2), generator=generator, device=ids.device)
    tokens = lengths(ids)
    covered = (share[0] + (share[1] - share[0]) * draw[:, 0]) * tokens
    covered = covered.round().clamp_min(1)
    start = (draw[:, 1] * (tokens - covered + 1)).floor()
    place = torch.arange(length, device=ids.device).expand(n, length)
    inside = (place >= start[:, None]) & (place < (start + covered)[:, None]) & (ids != PADDING)
    # The token of the highest number stays in any case.
    numbers = draw[:, 2:].expand(n, length).masked_fill(~inside, -1.0)
    surest = torch.zeros_like(inside).scatter(1, numbers.argmax(1, keepdim=True), True)
    return packed(ids, inside & ((numbers >= _DROPPED * strength) | surest))


def one_window(ids: Tensor, length: int, generator: torch.Generator) -> Tensor:
    """(n, W · length) ids -> the same shape: of each text one of its windows alone, that of a token drawn at random."""
    tokens = lengths(ids)
    draw = torch.rand(len(ids), generator=generator, device=ids.device)
    drawn = torch.minimum((draw * tokens).long(), (tokens - 1).clamp_min(0))
    place = torch.div(drawn, length, rounding_mode="floor")[:, None] * length
    found = torch.full_like(ids, PADDING)
    found[:, :length] = ids.gather(1, place + torch.arange(length, device=ids.device))
    return found

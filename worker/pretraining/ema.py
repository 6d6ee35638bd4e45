"""A moving average of a network's weights: steadier than the last ones where steps are large or few."""

import copy

import torch
from torch import nn


class Average:
    """`net` follows another network, of the same shape, a little each step.

    Polyak and Juditsky 1992, https://doi.org/10.1137/0330046, with exponential weights; in the first steps it
    follows faster, so that it does not remember the random weights of the start.
    """

    def __init__(self, net: nn.Module, decay: float) -> None:
        self.net = copy.deepcopy(net).requires_grad_(False)
        self._decay = decay

    @torch.no_grad()
    def follow(self, net: nn.Module, step: int) -> None:
        """After step 1, 2, … Buffers of whole numbers are copied."""
        weight = 1 - min(self._decay, step / (10 + step))
        for mine, theirs in zip(self.net.state_dict().values(), net.state_dict().values(), strict=True):
            if mine.is_floating_point():
                mine.lerp_(theirs, weight)
            else:
                mine.copy_(theirs)

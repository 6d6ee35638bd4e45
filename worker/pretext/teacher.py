"""A teacher: a copy of the student that learns nothing itself and follows the student slowly."""

import copy
import math
from typing import TypeVar

import torch
from torch import nn

M = TypeVar("M", bound=nn.Module)


def frozen_copy(student: M) -> M:
    return copy.deepcopy(student).requires_grad_(False)


@torch.no_grad()
def follow(teacher: nn.Module, student: nn.Module, momentum: float) -> None:
    """Exponential moving average of the parameters. Buffers the teacher keeps itself, when it sees batches."""
    for mine, theirs in zip(teacher.parameters(), student.parameters(), strict=True):
        mine.lerp_(theirs, 1 - momentum)


def rising(momentum: float, done: float) -> float:
    """From `momentum` to 1 by a cosine, as in BYOL."""
    return 1 - (1 - momentum) * (math.cos(math.pi * done) + 1) / 2

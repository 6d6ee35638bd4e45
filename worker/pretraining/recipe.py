"""The recipe of a pretext training: its hyperparameters, and the optimizer they make."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

OptimizerName = Literal["adamw", "sgd"]
RATES: dict[OptimizerName, float] = {"adamw": 2e-3, "sgd": 0.05}
_MOMENTUM = 0.9


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """average: decay a step of a moving average of the weights, which is then the result. patience: epochs
    without a smaller loss that end the training.
    """

    epochs: int
    batch_size: int
    seed: int
    optimizer: OptimizerName = "adamw"
    learning_rate: float = RATES["adamw"]
    weight_decay: float = 0.02
    warm_up: float = 0.1  # share of the steps
    gradient_norm: float = 1.0
    average: float | None = None
    patience: int | None = None
    compile: bool = False  # by torch.compile: minutes at the start, for a GPU that works for hours

    def rate(self, done: float) -> float:
        """The learning rate when a share of the steps is done: a linear start, then a cosine down to 0."""
        if done < self.warm_up:
            return self.learning_rate * done / self.warm_up
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * (done - self.warm_up) / (1 - self.warm_up)))

    def make_optimizer(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """Over those that take gradients: teachers, which follow otherwise, do not."""
        taught = [parameter for parameter in parameters if parameter.requires_grad]
        if self.optimizer == "adamw":
            return torch.optim.AdamW(taught, weight_decay=self.weight_decay)
        return torch.optim.SGD(taught, weight_decay=self.weight_decay, momentum=_MOMENTUM, nesterov=True)

"""Items' pretext losses and embeddings, computed one way for all: in scoring, in diagnostics, in benchmarks."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from worker.device import autocast
from worker.models.layers import at_layer, pooled


class Task(Protocol):
    """The part of `worker.pretext.PretextTask` that scoring needs."""

    @property
    def scoring_views(self) -> int: ...

    def losses(self, net: nn.Module, batch: Tensor, generator: torch.Generator) -> Tensor: ...


@dataclass(frozen=True)
class Scored:
    """losses (n,) float32: the mean over the task's views; spreads (n,): their standard deviation;
    embeddings (n, d) float32.
    """

    losses: Tensor
    spreads: Tensor
    embeddings: Tensor


@torch.no_grad()
def score(net: nn.Module, task: Task, batch: Tensor, layer: str | None = None) -> Scored:
    """batch (n, 3, s, s) float, normalised, on the device of the net, which is in eval mode. The embeddings are of
    that layer of the backbone (`worker.models.layers`).

    Many tasks send the items as they are through the backbone anyway, first in a batch with other views. The
    embeddings are then taken from there instead of computed again.
    """
    backbone = net.get_submodule("backbone")
    found: list[Tensor] = []
    inside: list[Tensor] = []  # what the layer gave in the pass that goes on

    def look(_: nn.Module, __: object, output: Tensor) -> None:
        inside[:] = [output] if not found else []

    def keep(_: nn.Module, inputs: tuple[Tensor, ...], embeddings: Tensor) -> None:
        if not found and torch.equal(inputs[0][: len(batch)], batch):
            of_layer = pooled(backbone, layer, inside[0]) if layer is not None else embeddings
            found.append(of_layer[: len(batch)].float())

    with autocast(batch.device):
        hooks = [backbone.register_forward_hook(keep)]
        if layer is not None:
            hooks.append(backbone.get_submodule(layer).register_forward_hook(look))
        try:
            views = [task.losses(net, batch, _generator(batch, view)) for view in range(task.scoring_views)]
        finally:
            for hook in hooks:
                hook.remove()
        embeddings = found[0] if found else at_layer(backbone, layer)(batch).float()
    losses = torch.stack(views).float()
    return Scored(losses.mean(0), losses.std(0, correction=0), embeddings)


def _generator(batch: Tensor, seed: int) -> torch.Generator:
    return torch.Generator(batch.device).manual_seed(seed)

"""Items' pretext losses and embeddings, computed one way for all: in scoring, in diagnostics, in benchmarks."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from worker.device import autocast
from worker.models.layers import at_layer, pooled
from worker.pretext import mean_over_tokens

HARDEST = 5  # tokens of an item whose places are kept
_SHARE = 0.2  # of the tokens asked about, at most: where all is marked, nothing is


class Task(Protocol):
    """The part of `worker.pretext.PretextTask` that scoring needs."""

    @property
    def scoring_views(self) -> int: ...

    def losses(self, net: nn.Module, batch: Tensor, generator: torch.Generator) -> Tensor: ...

    def token_losses(
        self, net: nn.Module, batch: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor] | None: ...


@dataclass(frozen=True)
class Scored:
    """losses (n,) float32: the mean over the task's views; spreads (n,): their standard deviation;
    embeddings (n, d) float32; hardest (n, k) int64: where an item's loss is of its tokens, the places of those with the
    highest losses, the highest first, then -1; k = 0 for all other tasks.
    """

    losses: Tensor
    spreads: Tensor
    embeddings: Tensor
    hardest: Tensor


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
            views, tokens = [], _TokenLosses()
            for view in range(task.scoring_views):
                of_tokens = task.token_losses(net, batch, _generator(batch, view))
                if of_tokens is None:
                    views.append(task.losses(net, batch, _generator(batch, view)))
                else:
                    views.append(mean_over_tokens(*of_tokens))
                    tokens.add(*of_tokens)
        finally:
            for hook in hooks:
                hook.remove()
        embeddings = found[0] if found else at_layer(backbone, layer)(batch).float()
    losses = torch.stack(views).float()
    return Scored(losses.mean(0), losses.std(0, correction=0), embeddings, tokens.hardest(len(batch)))


class _TokenLosses:
    """Losses of tokens, summed over views that ask about different ones."""

    def __init__(self) -> None:
        self._sums: Tensor | None = None
        self._counts: Tensor | None = None

    def add(self, losses: Tensor, asked: Tensor) -> None:
        """(n, L) each."""
        counts = asked.to(losses.dtype)
        self._sums = losses if self._sums is None else self._sums + losses
        self._counts = counts if self._counts is None else self._counts + counts

    def hardest(self, n: int) -> Tensor:
        """(n, k) places, as in `Scored`: a fifth of the tokens that were asked about, one at least."""
        if self._sums is None or self._counts is None:
            return torch.empty((n, 0), dtype=torch.int64)
        asked = self._counts > 0
        means = (self._sums / self._counts.clamp_min(1)).masked_fill(~asked, -torch.inf)
        k = min(HARDEST, means.shape[1])
        places = functional.pad(means.topk(k, dim=1).indices, (0, HARDEST - k), value=-1)
        known = asked.sum(1, keepdim=True)
        kept = torch.minimum((_SHARE * known).ceil(), known)
        return places.masked_fill(torch.arange(HARDEST, device=places.device) >= kept, -1)


def _generator(batch: Tensor, seed: int) -> torch.Generator:
    return torch.Generator(batch.device).manual_seed(seed)

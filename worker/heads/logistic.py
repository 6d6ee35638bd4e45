"""Logistic regression along a path of penalties, for several problems at once: the folds and everything."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor

from worker.arrays import Floats

# Strengths λ of the penalty λ/2 |W|² beside the summed loss. Strong first: each solution starts the next
# search.
PENALTIES = (100.0, 30.0, 10.0, 3.0, 1.0, 0.3, 0.1, 0.03)


@contextmanager
def threads_for(size: int) -> Iterator[None]:
    """One thread for a small fit: on busy cores its many short products would spend their time waiting."""
    threads = torch.get_num_threads()
    torch.set_num_threads(threads if size > 5_000_000 else 1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


class _LBFGS(torch.optim.LBFGS):
    """Torch's, less a wrapper that imports its compiler, only to tell it to leave the method alone: the first head of a
    process would wait three seconds for that.
    """

    add_param_group = getattr(
        torch.optim.Optimizer.add_param_group, "__wrapped__", torch.optim.Optimizer.add_param_group
    )


class Solution(NamedTuple):
    """Solved at one penalty: weights (d, c) and bias (c,) of the last of f problems, logits (n, f, c) of all.
    coefficients start another search.
    """

    penalty: float
    weights: Floats
    bias: Floats
    logits: Floats
    coefficients: Tensor


class Problems:
    """Problems on the same points, solved at once, as one for L-BFGS (Liu and Nocedal 1989), in coordinates in which
    they are nearly round: along the principal axes, each scaled by its curvature. That saves most of the steps.

    inputs (n, d); targets (n, f, c), rows sum to 1, or (n, 1, c) where all problems share them; several: each class is
    told for itself, against all else, and they need not
    """

    def __init__(self, inputs: Floats, targets: Floats, several: bool = False) -> None:
        points = torch.from_numpy(inputs)
        self._axes = _principal_axes(points)
        self._on_axes = torch.cat([points @ self._axes, torch.ones(len(points), 1)], dim=1)
        self._targets, self._several = torch.from_numpy(targets), several

    def path(
        self, counted: Floats, penalties: Sequence[float] = PENALTIES, start: Tensor | None = None
    ) -> Iterator[Solution]:
        """For each penalty in turn. counted (n, f): how much an item weighs in a problem, 0 where it is held out;
        start: the coefficients of a solution that lies near
        """
        on_axes, weights = self._on_axes, torch.from_numpy(counted)[:, :, None]
        coefficients = start
        if coefficients is None:
            coefficients = torch.zeros(on_axes.shape[1], counted.shape[1], self._targets.shape[2])
        for penalty in penalties:
            each = torch.full((on_axes.shape[1], 1, 1), penalty)
            each[-1] = 0  # not the bias
            curvature = (on_axes**2 * weights[:, -1]).sum(dim=0)[:, None, None]
            scale = (0.05 * curvature + each).rsqrt()  # 0.05: a usual p (1 - p)
            coefficients = self._minimise(weights, each, scale, coefficients)
            last = coefficients[:, -1]
            logits = torch.tensordot(on_axes, coefficients, 1)
            yield Solution(
                penalty, (self._axes @ last[:-1]).numpy(), last[-1].numpy(), logits.numpy(), coefficients
            )

    def _minimise(self, counted: Tensor, penalties: Tensor, scale: Tensor, start: Tensor) -> Tensor:
        """Coefficients (k, f, c) of f problems that differ in how much items count, and perhaps in their targets.

        counted (n, f, 1), penalties (k, 1, 1), scale (k, 1, 1), start (k, f, c)
        """
        inputs, penalties = self._on_axes * scale[:, 0, 0], penalties * scale**2
        targets, transposed = self._targets, inputs.T.contiguous()
        found = (start / scale).requires_grad_()
        search = _LBFGS(
            [found],
            max_iter=50,
            tolerance_grad=1e-5,
            tolerance_change=1e-6,  # wider ones make rare classes rarer
            line_search_fn="strong_wolfe",
        )

        @torch.no_grad()
        def loss() -> Tensor:
            logits = torch.tensordot(inputs, found, 1)
            if self._several:
                misses = (torch.sigmoid(logits) - targets) * counted
                data = (counted * (torch.nn.functional.softplus(logits) - targets * logits)).sum()
            else:
                # By hand: torch.log_softmax takes six times as long over ten classes.
                logits = logits - logits.amax(dim=-1, keepdim=True)
                likely = logits.exp()
                sums = likely.sum(dim=-1, keepdim=True)
                misses = (likely / sums - targets) * counted
                data = (counted * (sums.log() - (targets * logits).sum(dim=-1, keepdim=True))).sum()
            found.grad = (torch.tensordot(transposed, misses, 1) + penalties * found) / len(inputs)
            summed: Tensor = data + (penalties * found**2).sum() / 2
            return summed / len(inputs)

        search.step(loss)  # type: ignore[no-untyped-call]
        return found.detach() * scale


def _principal_axes(inputs: Tensor) -> Tensor:
    """(n, d) -> (d, min(n, d)) orthonormal; whatever lies outside them has no part in the inputs."""
    if inputs.shape[0] < inputs.shape[1]:
        axes: Tensor = torch.linalg.svd(inputs, full_matrices=False)[2].T
    else:  # faster, and the axes are all that is needed
        axes = torch.linalg.eigh(inputs.T @ inputs)[1]
    return axes

"""Logistic regression along a path of penalties, for several problems at once: the folds and everything."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from worker.arrays import Floats

# Strengths λ of the penalty λ/2 |W|² beside the summed loss. Strong first: each solution starts the next
# search.
_PENALTIES = (100.0, 30.0, 10.0, 3.0, 1.0, 0.3, 0.1, 0.03)


@contextmanager
def threads_for(size: int) -> Iterator[None]:
    """One thread for a small fit: on busy cores its many short products would spend their time waiting."""
    threads = torch.get_num_threads()
    torch.set_num_threads(threads if size > 10_000_000 else 1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def path(
    inputs: Floats, targets: Floats, counted: Floats, several: bool = False
) -> Iterator[tuple[Floats, Floats, Floats]]:
    """For each penalty in turn, the weights (d, c) and bias (c,) of the last problem, and logits (n, f, c) of all.

    inputs (n, d); targets (n, f, c), or (n, 1, c) where all problems share them; counted (n, f): how much an
    item weighs in a problem, 0 where it is held out; several: each class is told for itself, against all else

    All problems are solved at once, as one for L-BFGS (Liu and Nocedal 1989), in coordinates in which it is
    nearly round: along the principal axes, each scaled by its curvature. That saves most of the steps.
    """
    points = torch.from_numpy(inputs)
    axes = _principal_axes(points)
    on_axes = torch.cat([points @ axes, torch.ones(len(points), 1)], dim=1)
    weights, wanted = torch.from_numpy(counted)[:, :, None], torch.from_numpy(targets)
    coefficients = torch.zeros(on_axes.shape[1], counted.shape[1], targets.shape[2])
    for penalty in _PENALTIES:
        penalties = torch.full((on_axes.shape[1], 1, 1), penalty)
        penalties[-1] = 0  # not the bias
        curvature = (on_axes**2 * weights[:, -1]).sum(dim=0)[:, None, None]
        scale = (0.05 * curvature + penalties).rsqrt()  # 0.05: a usual p (1 - p)
        coefficients = _minimise(on_axes, wanted, weights, penalties, scale, coefficients, several)
        last = coefficients[:, -1]
        logits = torch.tensordot(on_axes, coefficients, 1)
        yield (axes @ last[:-1]).numpy(), last[-1].numpy(), logits.numpy()


def _principal_axes(inputs: Tensor) -> Tensor:
    """(n, d) -> (d, min(n, d)) orthonormal; whatever lies outside them has no part in the inputs."""
    if inputs.shape[0] < inputs.shape[1]:
        axes: Tensor = torch.linalg.svd(inputs, full_matrices=False)[2].T
    else:  # faster, and the axes are all that is needed
        axes = torch.linalg.eigh(inputs.T @ inputs)[1]
    return axes


def _minimise(
    inputs: Tensor,
    targets: Tensor,
    counted: Tensor,
    penalties: Tensor,
    scale: Tensor,
    start: Tensor,
    several: bool,
) -> Tensor:
    """Coefficients (k, f, c) of f problems that differ in how much items count, and perhaps in their targets.

    inputs (n, k), targets (n, f or 1, c), counted (n, f, 1), penalties (k, 1, 1), scale (k, 1, 1),
    start (k, f, c)
    """
    inputs, penalties = inputs * scale[:, 0, 0], penalties * scale**2
    transposed = inputs.T.contiguous()
    found = (start / scale).requires_grad_()
    search = torch.optim.LBFGS(
        [found], max_iter=50, tolerance_grad=1e-5, tolerance_change=1e-6, line_search_fn="strong_wolfe"
    )

    @torch.no_grad()
    def loss() -> Tensor:
        logits = torch.tensordot(inputs, found, 1)
        if several:
            misses = (torch.sigmoid(logits) - targets) * counted
            data = (counted * (torch.nn.functional.softplus(logits) - targets * logits)).sum()
        else:
            log_probabilities = torch.log_softmax(logits, dim=-1)
            misses = (log_probabilities.exp() - targets) * counted
            data = -(counted * targets * log_probabilities).sum()
        found.grad = (torch.tensordot(transposed, misses, 1) + penalties * found) / len(inputs)
        summed: Tensor = data + (penalties * found**2).sum() / 2
        return summed / len(inputs)

    search.step(loss)  # type: ignore[no-untyped-call]
    return found.detach() * scale

"""Diagnostics of a training without labels: spread of embeddings, correlations of losses, collapse."""

import resource
import sys
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from worker.arrays import Floats
from worker.evaluation.metrics import rank_correlation

Diagnostics = dict[str, float]

# A sign of collapse is less than that share of what the untrained network has. Measured with rotation nets, and
# with BYOL with and without its predictor: docs/decisions/0010.
_LEAST_RANK, _LEAST_SPREAD, _LEAST_PROJECTED = 0.5, 0.7, 0.7
_LEAST_ITEMS = 64  # the rank of fewer embeddings says little


def of_embeddings(embeddings: Tensor) -> Diagnostics:
    """Embeddings (n, d): how much of their space they use. Both fall when training collapses.

    embedding_std  mean over dimensions of the standard deviation of the L2-normalised embeddings
    rank_me        effective rank (Garrido et al. 2023, https://arxiv.org/abs/2210.02885); it shows collapse,
                   it does not order good runs
    """
    singular = torch.linalg.svdvals(embeddings)
    shares = singular / singular.sum().clamp_min(1e-12) + 1e-7
    return {
        "embedding_std": functional.normalize(embeddings, dim=1).std(0, correction=0).mean().item(),
        "rank_me": torch.exp(-(shares * shares.log()).sum()).item(),
    }


def of_losses(losses: Tensor, traits: dict[str, Floats]) -> Diagnostics:
    """Losses (n,): whether they tell items apart, and by more than trivial traits (n,) of the items.

    loss_ties             share of the items whose loss another item has too
    loss_iqr_over_median  interquartile range over the median
    loss_rho_<trait>      Spearman's rank correlation; left out for fewer than 10 items, or where all are equal
    """
    counts: Tensor = torch.unique(losses, return_counts=True)[1]
    low, median, high = losses.double().quantile(
        torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64, device=losses.device)
    )
    found = {
        "loss_ties": 1 - (counts == 1).sum().item() / len(losses),
        "loss_iqr_over_median": ((high - low) / median.abs().clamp_min(1e-12)).item(),
    }
    for name, values in traits.items():
        correlation = rank_correlation(losses.cpu().numpy(), values)
        if correlation is not None:
            found[f"loss_rho_{name}"] = correlation.rho
    return found


def collapse(
    untrained: Diagnostics,
    now: Diagnostics,
    items: int,
    *,
    least_spread: float = _LEAST_SPREAD,
    least_rank: float = _LEAST_RANK,
) -> str | None:
    """The sentence says what collapsed; None when nothing did.

    items                     how many the diagnostics are of
    least_spread, least_rank  of the embeddings, as a share of the untrained network's; good ones of some modalities
                              keep less
    """
    if items < _LEAST_ITEMS:
        return None
    watched = (
        ("rank_me", "the effective rank of the embeddings (RankMe)", least_rank),
        ("embedding_std", "the spread of the embeddings", least_spread),
        ("projection_std", "the spread of the projections that are compared", _LEAST_PROJECTED),
    )
    signs = [
        f"{what} is {now[name]:.3g}, and {untrained[name]:.3g} with the untrained network"
        for name, what, least in watched
        if name in now and now[name] < least * untrained[name]
    ]
    return f"The training collapsed: {'; '.join(signs)}." if signs else None


def taught_nothing(untrained: Diagnostics, now: Diagnostics) -> str | None:
    """A sentence about an accuracy of the task that hardly rose, else None. For rotation the line is at about 0.34."""
    for name, accuracy in now.items():
        before = untrained.get(name)
        if not name.endswith("_accuracy") or before is None:
            continue
        if accuracy < min(1.4 * before, before + (1 - before) / 8):
            return (
                f"The pretext task taught little: {name} is {accuracy:.2f} and was {before:.2f} before training. "
                "The items may have nothing that it could learn from; try a contrastive task such as simclr."
            )
    return None


def peak_memory_gb(device: torch.device) -> float:
    """The most this process held so far: on CUDA of the device's memory, else resident."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    status = Path("/proc/self/status")
    if status.exists():  # getrusage also counts what the process was forked from
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024 / 1e9
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9

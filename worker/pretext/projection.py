"""The layers between an embedding and what views are compared by."""

from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional

HIDDEN = 512  # at least; wide embeddings get hidden layers as wide as they are


def mlp(*widths: int) -> nn.Sequential:
    """Linear layers; between two of them batch norm and ReLU."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths[:-1]):
        layers += [nn.Linear(inputs, outputs, bias=False), nn.BatchNorm1d(outputs), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers, nn.Linear(widths[-2], widths[-1]))


def hidden(dimensions: int) -> int:
    return max(HIDDEN, dimensions)


def projection_std(projected: Tensor) -> dict[str, float]:
    """(n, d): the standard deviation over items of projections brought to length 1, times the root of d. 1 where
    they use all of their space, 0 where all are alike: collapsed (Chen and He 2021, section 4.1).
    """
    spread = functional.normalize(projected.float()).std(0, correction=0).mean()
    return {"projection_std": spread.item() * projected.shape[1] ** 0.5}


def cosine_losses(predicted: Tensor, targets: Tensor) -> Tensor:
    """(n, d), (n, d) -> (n,) float32 in 0..2: 1 - cosine."""
    return 1 - functional.cosine_similarity(predicted.float(), targets.float())

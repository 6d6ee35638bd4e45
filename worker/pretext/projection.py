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


def cosine_losses(predicted: Tensor, targets: Tensor) -> Tensor:
    """(n, d), (n, d) -> (n,) float32 in 0..2: 1 - cosine."""
    return 1 - functional.cosine_similarity(predicted.float(), targets.float())

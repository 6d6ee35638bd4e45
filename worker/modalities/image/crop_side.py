"""The side of the crops that a backbone is shown."""

import torch
from torch import nn


def crop_side(backbone: nn.Module, image_size: int) -> int:
    """Half the side of an image, which costs a quarter; the whole where a backbone takes one size only."""
    half = max(image_size // 2, 1)
    training = backbone.training
    try:
        with torch.no_grad():
            backbone.eval()(torch.zeros(1, 3, half, half))
    except (AssertionError, RuntimeError, ValueError):  # whichever the architecture raises
        return image_size
    finally:
        backbone.train(training)
    return half

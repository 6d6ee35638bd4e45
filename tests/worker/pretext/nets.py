"""Backbones and nets for the tests of the tasks."""

import torch
from torch import Tensor, nn

from worker.modalities.image.pixels import normalised
from worker.pretext import PretextTask

SIZE = 12


class Tiny(nn.Module):
    """(n, 3, s, s) -> (n, 16), of any size; without batch norm, and keeps what it was shown."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 16, 3, stride=2, padding=1)
        self.shown: list[Tensor] = []

    def forward(self, images: Tensor) -> Tensor:
        self.shown.append(images.detach())
        embeddings: Tensor = self.layer(images).relu().mean((2, 3))
        return embeddings


def tiny_net(task: PretextTask, seed: int = 0, size: int = SIZE) -> nn.Module:
    torch.manual_seed(seed)
    return task.make_net(Tiny(), 16, size)


def images(n: int, size: int = SIZE) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return normalised(torch.randint(0, 256, (n, 3, size, size), dtype=torch.uint8, generator=generator))


def seeded(seed: int = 2) -> torch.Generator:
    return torch.Generator().manual_seed(seed)

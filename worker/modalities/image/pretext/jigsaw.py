"""Jigsaw: the permutation of shuffled tiles."""

from functools import cache
from itertools import product
from typing import ClassVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from worker.modalities import Modality
from worker.modalities.image.crop_side import crop_side
from worker.modalities.image.views import crops
from worker.pretext import PretextTask
from worker.pretext.projection import hidden, mlp

_TILES = 9
_GAP = 0.25  # of a cell's side: what a tile may move in its cell, so that edges do not tell what was next to what
_ASKED = 8  # permutations an item; they cost little, as the tiles are embedded once
_WIDTH = 64
_LEAST_DEVIATION = 0.1  # of normalised floats


class JigsawNet(nn.Module):
    """Tiles (9n, 3, t, t), the first of all items before the second, and so on -> (9, n, 64)."""

    def __init__(self, backbone: nn.Module, dimensions: int, image_size: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.crop_side = crop_side(backbone, image_size)
        self.projection = nn.Linear(dimensions, _WIDTH)
        self.head = mlp(_TILES * _WIDTH, hidden(dimensions), len(permutations()))

    def forward(self, tiles: Tensor) -> Tensor:
        projected: Tensor = self.projection(self.backbone(tiles))
        return projected.view(_TILES, -1, _WIDTH)


class Jigsaw(PretextTask):
    """Cut an image into 3 x 3 cells, take a tile at random from each, shuffle them and tell by which of 72
    permutations. An item's loss is the mean cross-entropy over eight of them.

    Noroozi and Favaro 2016, "Unsupervised Learning of Visual Representations by Solving Jigsaw Puzzles",
    https://arxiv.org/abs/1603.09246; the head as in Misra and van der Maaten 2020, "Self-Supervised Learning of
    Pretext-Invariant Representations", https://arxiv.org/abs/1912.01991.
    """

    name: ClassVar[str] = "jigsaw"
    modalities: ClassVar[frozenset[str] | None] = frozenset({"image"})
    scoring_views: ClassVar[int] = 4

    def make_net(self, backbone: nn.Module, dimensions: int, modality: Modality) -> nn.Module:
        return JigsawNet(backbone, dimensions, modality.item_shape[-1])

    def losses(self, net: nn.Module, batch: Tensor, generator: torch.Generator) -> Tensor:
        logits, asked = _logits(cast(JigsawNet, net), batch, generator)
        return functional.cross_entropy(logits.mT, asked, reduction="none").mean(1)

    def diagnostics(self, net: nn.Module, batch: Tensor) -> dict[str, float]:
        generator = torch.Generator(batch.device).manual_seed(0)
        logits, asked = _logits(cast(JigsawNet, net), batch, generator)
        return {"jigsaw_accuracy": (logits.argmax(2) == asked).float().mean().item()}


def _logits(net: JigsawNet, batch: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """(n, 8, 72) float32 logits and (n, 8) which permutation it was."""
    n, rows = len(batch), len(batch) if net.training else 1
    known = permutations(batch.device)
    draw = torch.rand((rows, len(known)), generator=generator, device=batch.device)
    asked = draw.argsort(1)[:, :_ASKED].expand(n, -1)
    tiles = net(tiles_of(batch, net.crop_side, rows, generator))
    shuffled = tiles.transpose(0, 1)[torch.arange(n, device=batch.device)[:, None, None], known[asked]]
    logits = net.head(shuffled.flatten(0, 1).flatten(1))
    return logits.unflatten(0, (n, _ASKED)).float(), asked


def tiles_of(batch: Tensor, side: int, rows: int, generator: torch.Generator) -> Tensor:
    """(n, 3, s, s) -> (9n, 3, side, side), each tile with mean 0 and deviation 1, as in the paper: its colours
    would tell where it comes from.
    """
    boxes = tile_boxes(rows, generator, batch.device).expand(-1, len(batch), -1)
    tiles = crops(batch.repeat(_TILES, 1, 1, 1), boxes.flatten(0, 1), side)
    deviation, mean = torch.std_mean(tiles, (2, 3), correction=0, keepdim=True)
    tiles = (tiles - mean) / deviation.clamp_min(_LEAST_DEVIATION)
    return tiles.contiguous(memory_format=torch.channels_last)


def tile_boxes(rows: int, generator: torch.Generator, device: torch.device) -> Tensor:
    """(9, rows, 4): left, top, width and height as shares of the side, each somewhere in its cell."""
    cells = torch.arange(_TILES, device=device)
    corners = torch.stack([cells % 3, cells // 3], 1) / 3
    moved = torch.rand((_TILES, rows, 2), generator=generator, device=device) * _GAP / 3
    return torch.cat([corners[:, None] + moved, torch.full_like(moved, (1 - _GAP) / 3)], 2)


@cache
def permutations(device: torch.device | None = None) -> Tensor:
    """(72, 9): the maps x -> a·x + b over the field of nine elements. Any two differ in at least eight places, and
    there are no more than 72 that do (an element is u + v·i with i² = -1, u and v modulo 3).
    """
    field = list(product(range(3), repeat=2))
    return torch.tensor(
        [
            [(p * u - q * v + r) % 3 * 3 + (p * v + q * u + s) % 3 for u, v in field]
            for p, q in field[1:]
            for r, s in field
        ],
        device=device,
    )

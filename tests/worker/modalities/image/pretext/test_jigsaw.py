"""Permutations far from each other, tiles with gaps, and a head that is told nothing else."""

import math

import pytest
import torch
from torch import Tensor, nn

from tests.worker.pretext.nets import images, seeded
from worker.modalities.image.pretext.jigsaw import Jigsaw, JigsawNet, permutations, tile_boxes, tiles_of


def test_permutations_differ_in_at_least_eight_of_nine_places() -> None:
    known = permutations()
    distances = (known[:, None] != known[None]).sum(2)

    assert known.shape == (72, 9)
    assert (known.sort(1).values == torch.arange(9)).all()
    assert distances[~torch.eye(72, dtype=torch.bool)].min() == 8


def test_tiles_move_in_their_cells_and_leave_a_gap() -> None:
    left, top, width, height = tile_boxes(200, seeded(), torch.device("cpu")).unbind(2)
    for cell in range(9):
        column, row = cell % 3, cell // 3
        for start, side, first in ((left[cell], width[cell], column / 3), (top[cell], height[cell], row / 3)):
            assert torch.allclose(side, torch.full_like(side, 0.25))
            assert start.min() >= first - 1e-6
            assert (start + side).max() <= first + 1 / 3 + 1e-6
            assert start.max() - start.min() > 0.07


def test_a_tile_shows_its_box() -> None:
    """Taken off are only mean and deviation, so the brightest pixel stays where it is."""
    batch = torch.zeros(1, 3, 24, 24)
    batch[:, :, 20, 12] = 1  # row 2, column 1: cell 7

    tiles = tiles_of(batch, 8, 1, seeded())

    assert tiles.abs().amax((1, 2, 3)).argmax() == 7


def test_colours_do_not_tell_where_a_tile_comes_from() -> None:
    tiles = tiles_of(images(4, 24), 12, 4, seeded())

    assert tiles.shape == (36, 3, 12, 12)
    assert torch.allclose(tiles.mean((2, 3)), torch.zeros(36, 3), atol=1e-4)
    assert torch.allclose(tiles.std((2, 3), correction=0), torch.ones(36, 3), atol=1e-3)


class LookUp(nn.Sequential):
    def __init__(self, knows: bool) -> None:
        super().__init__()
        self.knows = knows

    def forward(self, order: Tensor) -> Tensor:
        """Tile numbers (m, 9 x 64) -> which permutation, (m, 72)."""
        found = order.view(len(order), 9, 64)[:, :, 0]
        return 100.0 * self.knows * (found[:, None] == permutations()).all(2)


class Solver(JigsawNet):
    """Embeds a tile as its number."""

    def __init__(self, knows: bool) -> None:
        super().__init__(nn.Flatten(), 3 * 6 * 6, 12)
        self.head = LookUp(knows)

    def forward(self, tiles: Tensor) -> Tensor:
        return torch.arange(9.0).view(9, 1, 1).expand(9, len(tiles) // 9, 64)


@pytest.mark.parametrize("training", [True, False])
def test_who_sees_the_order_has_no_loss_and_who_does_not_guesses(training: bool) -> None:
    batch = images(3)

    assert Jigsaw().losses(Solver(knows=True).train(training), batch, seeded()).max() < 1e-6
    assert Jigsaw().measures(Solver(knows=True), batch) == {"jigsaw_accuracy": 1.0}
    guessed = Jigsaw().losses(Solver(knows=False).train(training), batch, seeded())
    assert torch.allclose(guessed, torch.full((3,), math.log(72)))

"""What is masked is hidden, and only that counts."""

from collections.abc import Callable
from typing import cast

import pytest
import torch
from torch import Tensor

from tests.worker.pretext.nets import SIZE, Tiny, images, seeded, tiny_net
from worker.modalities.image.pretext.reconstruction import Reconstruction, ReconstructionNet


class Painting(ReconstructionNet):
    """Paints what it is told to."""

    def __init__(self, paint: Callable[[Tensor], Tensor]) -> None:
        super().__init__(Tiny(), 16, SIZE)
        self.paint = paint

    def forward(self, images: Tensor) -> Tensor:
        return self.paint(images)


@pytest.mark.parametrize("training", [True, False])
def test_only_masked_pixels_count(training: bool) -> None:
    batch = images(4)
    mask = Reconstruction().masks(4 if training else 1, SIZE, seeded())
    right_where_masked = torch.where(mask, batch, batch + 5)
    wrong_where_masked = torch.where(mask, batch + 5, batch)

    def losses(painted: Tensor) -> Tensor:
        return Reconstruction().losses(Painting(lambda shown: painted).train(training), batch, seeded())

    assert torch.equal(losses(right_where_masked), torch.zeros(4))
    assert torch.allclose(losses(wrong_where_masked), torch.full((4,), 25.0), atol=1e-4)


@pytest.mark.parametrize("training", [True, False])
def test_what_is_masked_is_hidden(training: bool) -> None:
    net = tiny_net(Reconstruction()).train(training)
    batch = images(3)
    mask = Reconstruction().masks(3 if training else 1, SIZE, seeded()).expand(3, 3, -1, -1)

    Reconstruction().losses(net, batch, seeded())

    shown = cast(Tiny, net.get_submodule("backbone")).shown[-1]
    assert torch.equal(shown[~mask], batch[~mask])
    assert torch.equal(shown[mask], torch.zeros(int(mask.sum())))


@pytest.mark.parametrize(
    ("size", "grid"), [(28, 7), (32, 8), (64, 8), (224, 7), (12, 6), (8, 8), (5, 5), (2, 2)]
)
def test_masks_are_patches_and_all_as_large(size: int, grid: int) -> None:
    masks = Reconstruction(masked=0.6).masks(50, size, seeded())

    patches = torch.nn.functional.interpolate(masks.float(), (grid, grid)).flatten(1).sum(1)
    assert set(patches.tolist()) == {round(0.6 * grid**2)}
    assert not torch.equal(masks[0], masks[1])
    tiles = masks.view(50, grid, size // grid, grid, -1).transpose(2, 3).flatten(3)
    assert (tiles.all(3) | ~tiles.any(3)).all()


def test_a_side_that_nothing_divides_gets_patches_of_several_sizes() -> None:
    masks = Reconstruction(masked=0.5).masks(50, 13, seeded())

    assert masks.shape == (50, 1, 13, 13)
    assert masks.float().mean().item() == pytest.approx(0.5, abs=0.05)


def test_the_variance_can_be_taken_out() -> None:
    """Painting nothing loses the variance: what is left of it is noise."""
    pool = images(300) * torch.logspace(-1, 0.3, 300)[:, None, None, None]

    def correlation(task: Reconstruction) -> float:
        net = Painting(torch.zeros_like).eval()
        task.settle(net, pool, seeded())
        variances = (pool.var((1, 2, 3), correction=0) + 1e-2).log()
        losses = torch.stack([task.losses(net, pool, seeded(seed)) for seed in range(4)]).mean(0)
        return float(torch.corrcoef(torch.stack([losses.log(), variances]))[0, 1])

    assert correlation(Reconstruction()) > 0.9
    assert abs(correlation(Reconstruction(regress_out_variance=True))) < 0.05


def test_a_pool_of_one_variance_has_nothing_to_take_out() -> None:
    net = Painting(torch.zeros_like).eval()
    Reconstruction(regress_out_variance=True).settle(net, images(1), seeded())

    assert net.slope == 0

"""No colour goes in, and its bins come out."""

from typing import cast

import pytest
import torch
from torch.nn import functional

from tests.worker.pretext.nets import Tiny, images, seeded, tiny_net
from worker.modalities.image.pretext.colorization import Colorization, colour_bins
from worker.modalities.image.views import to_colours


def test_the_network_sees_no_colours() -> None:
    net = tiny_net(Colorization())
    Colorization().losses(net, images(3), seeded())

    shown = to_colours(cast(Tiny, net.get_submodule("backbone")).shown[-1])
    assert torch.allclose(shown[:, 0], shown[:, 1], atol=1e-5)
    assert torch.allclose(shown[:, 0], shown[:, 2], atol=1e-5)
    assert shown.std() > 0.1


@pytest.mark.parametrize(
    ("colour", "blue", "red"),
    [
        ((0.3, 0.3, 0.3), 7, 7),
        ((0.0, 0.0, 0.0), 7, 7),
        ((1.0, 1.0, 1.0), 7, 7),
        ((0.0, 0.0, 1.0), 14, 4),
        ((1.0, 0.0, 0.0), 3, 14),
        ((1.0, 1.0, 0.0), 0, 9),
    ],
)
def test_bins(colour: tuple[float, float, float], blue: int, red: int) -> None:
    found = colour_bins(torch.tensor(colour).view(1, 3, 1, 1)).flatten().tolist()

    assert found[0] == pytest.approx(blue, abs=1)
    assert found[1] == pytest.approx(red, abs=1)
    assert (blue == 7) == (found[0] == 7)


def test_pale_colours_are_told_apart() -> None:
    pale, paler = (torch.tensor([0.5, 0.5, 0.5 + more]).view(1, 3, 1, 1) for more in (0.1, 0.02))

    assert colour_bins(pale)[0, 0] > colour_bins(paler)[0, 0] >= 7


def test_it_is_the_mean_cross_entropy_of_both_histograms() -> None:
    task, batch = Colorization(), images(2)
    net = tiny_net(task).eval()
    with torch.no_grad():
        losses = task.losses(net, batch, seeded())
        logits = net(cast(Tiny, net.get_submodule("backbone")).shown[-1])
        bins = colour_bins(functional.adaptive_avg_pool2d(to_colours(batch), 3))

        slowly = torch.zeros(2)
        for row in range(2):
            for place in range(9):
                for histogram in range(2):
                    chosen = logits[row].view(15, 2, 9)[:, histogram, place]
                    slowly[row] -= chosen.log_softmax(0)[bins[row].view(2, 9)[histogram, place]] / 18

    assert torch.allclose(losses, slowly, atol=1e-5)

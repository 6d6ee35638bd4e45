"""Noise goes in, the image is to come out."""

from typing import cast

import torch
from torch import Tensor

from tests.worker.pretext.nets import SIZE, Tiny, images, seeded, tiny_net
from worker.modalities.image.pretext.decoder import PixelNet
from worker.modalities.image.pretext.denoise import Denoise


class Knowing(PixelNet):
    def __init__(self, painted: Tensor) -> None:
        super().__init__(Tiny(), 16, SIZE, channels=3, side=SIZE)
        self.painted = painted

    def forward(self, images: Tensor) -> Tensor:
        return self.painted


def test_the_loss_is_the_squared_error() -> None:
    batch = images(3)

    assert torch.equal(Denoise().losses(Knowing(batch), batch, seeded()), torch.zeros(3))
    assert torch.allclose(Denoise().losses(Knowing(batch + 2), batch, seeded()), torch.full((3,), 4.0))


def test_the_noise_is_as_strong_as_asked_and_each_items_own_while_training() -> None:
    task = Denoise(noise=0.5)
    batch = images(40)
    for training in (True, False):
        net = tiny_net(task).train(training)
        task.losses(net, batch, seeded())
        noise = cast(Tiny, net.get_submodule("backbone")).shown[-1] - batch

        assert abs(noise.std().item() - 0.5) < 0.05
        assert torch.allclose(noise[0], noise[1], atol=1e-5) is not training

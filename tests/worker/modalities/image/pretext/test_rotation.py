"""Rotation as published: cross-entropy averaged over the four turns."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from worker.modalities.image.pretext.rotation import Rotation


class Corner(nn.Module):
    """Knows by how much an image was turned that is bright in the top left corner only."""

    def forward(self, images: Tensor) -> Tensor:
        top_left, top_right = images[:, 0, 0, 0], images[:, 0, 0, -1]
        bottom_left, bottom_right = images[:, 0, -1, 0], images[:, 0, -1, -1]
        return 50 * torch.stack([top_left, bottom_left, bottom_right, top_right], 1)


def test_a_network_that_sees_the_turns_has_no_loss() -> None:
    images = torch.zeros(3, 3, 8, 8)
    images[:, :, 0, 0] = 1

    losses = Rotation().losses(Corner(), images, torch.Generator())

    assert losses.abs().max() < 1e-6
    assert Rotation().measures(Corner(), images) == {"rotation_accuracy": 1.0}


def test_an_image_without_a_right_way_up_costs_what_guessing_costs() -> None:
    losses = Rotation().losses(Corner(), torch.zeros(2, 3, 8, 8), torch.Generator())

    assert torch.allclose(losses, torch.full((2,), math.log(4)))


def test_it_is_the_mean_over_the_turns_one_by_one() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 6 * 6, 4))
    images = torch.rand(5, 3, 6, 6)

    slowly = torch.zeros(5)
    for turns in range(4):
        for row, image in enumerate(images):
            logits = net(image.rot90(turns, (1, 2))[None])
            slowly[row] += functional.cross_entropy(logits, torch.tensor([turns])) / 4

    assert torch.allclose(Rotation().losses(net, images, torch.Generator()), slowly, atol=1e-6)

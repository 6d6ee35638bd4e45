"""NT-Xent against a plain loop; when scoring, against the bank."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from tests.worker.pretext.nets import images, seeded, tiny_net
from worker.modalities.image.views import view
from worker.pretext.simclr import SimCLR, SimCLRNet


def net_of(training: bool) -> SimCLRNet:
    net = tiny_net(SimCLR()).train(training)
    assert isinstance(net, SimCLRNet)
    return net


def two_views(net: SimCLRNet, batch: Tensor, each: bool) -> Tensor:
    generator = seeded()
    views: Tensor = net(torch.cat([view(batch, generator, each=each) for _ in range(2)]))
    return views


def test_training_finds_the_other_view_among_the_batch() -> None:
    net, batch, temperature = net_of(True), images(4), 0.3
    views = two_views(net, batch, each=True).detach()

    slowly = torch.zeros(4)
    for row in range(8):
        others = [other for other in range(8) if other != row]
        logits = torch.stack([views[row] @ views[other] for other in others]) / temperature
        slowly[row % 4] += functional.cross_entropy(logits, torch.tensor(others.index((row + 4) % 8))) / 2

    losses = SimCLR(temperature=temperature).losses(net, batch, seeded())

    assert torch.allclose(losses, slowly, atol=1e-5)


def test_scoring_finds_it_among_the_bank_less_the_nearest() -> None:
    task, net, batch = SimCLR(temperature=0.3), net_of(False), images(4)
    with torch.no_grad():
        task.settle(net, images(9), seeded())
        bank = net(images(9))
        views = two_views(net, batch, each=False)

        slowly = torch.zeros(4)
        for row in range(8):
            against = sorted((views[row] @ bank.T).tolist())[:-1]
            logits = torch.tensor([float(views[row] @ views[(row + 4) % 8]), *against]) / 0.3
            slowly[row % 4] += functional.cross_entropy(logits, torch.tensor(0)) / 2

        assert int(net.banked) == 9
        assert torch.allclose(task.losses(net, batch, seeded()), slowly, atol=1e-5)


def test_being_in_the_bank_costs_nothing() -> None:
    """An item is its own nearest there, so it is what is left out."""
    task, net, batch = SimCLR(), net_of(False), images(1)
    others = net.bank[1:6].clone()

    with torch.no_grad():
        task.settle(net, batch, seeded())
        net.banked.fill_(6)  # the item itself, and five that have nothing to do with it
        views = two_views(net, batch, each=False)
        logits = torch.cat([(views[0] @ views[1]).expand(2, 1), views @ others.T], 1) / task.temperature
        expected = functional.cross_entropy(logits, torch.zeros(2, dtype=torch.int64))

        assert task.losses(net, batch, seeded()).item() == pytest.approx(expected.item(), abs=1e-5)


def test_a_pool_of_one_has_nothing_to_be_compared_with() -> None:
    task, net = SimCLR(), net_of(False)
    task.settle(net, images(1), seeded())

    assert task.losses(net, images(1), seeded()).item() == pytest.approx(0, abs=1e-6)


def test_before_the_end_of_training_the_bank_is_random() -> None:
    task, net = SimCLR(), net_of(False)

    assert int(net.banked) == len(net.bank) == 2_048
    assert task.losses(net, images(3), seeded()).max() < math.log(2_048) + 2 / task.temperature
    assert torch.allclose(net.bank.norm(dim=1), torch.ones(2_048))


def test_the_batch_is_limited() -> None:
    assert SimCLR.largest_batch == 1_024

"""The paper's formula while training; when scoring, each item's share of it."""

import pytest
import torch
from torch import Tensor

from tests.worker.pretext.nets import images, seeded, tiny_net
from worker.modalities.image.views import view
from worker.pretext.vicreg import VICReg, VICRegNet


def net_of(training: bool) -> VICRegNet:
    net = tiny_net(VICReg()).train(training)
    assert isinstance(net, VICRegNet)
    return net


def two_views(net: VICRegNet, batch: Tensor, each: bool) -> tuple[Tensor, Tensor]:
    generator = seeded()
    one, other = net(torch.cat([view(batch, generator, each=each) for _ in range(2)])).detach().chunk(2)
    return one, other


def covariance_term(expanded: Tensor) -> float:
    found = torch.cov(expanded.T)
    return float(((found**2).sum() - (found.diagonal() ** 2).sum()) / expanded.shape[1])


def test_training_is_invariance_variance_and_covariance() -> None:
    net, batch = net_of(True), images(6)
    one, other = two_views(net, batch, each=True)
    spread = [torch.relu(1 - (z.var(0, correction=0) + 1e-4).sqrt()).mean() for z in (one, other)]
    expected = 25 * (one - other).square().mean() + 25 * (spread[0] + spread[1]) / 2
    expected = expected + covariance_term(one) + covariance_term(other)

    assert VICReg().losses(net, batch, seeded()).mean().item() == pytest.approx(float(expected), rel=1e-4)


def test_the_shares_of_the_pool_add_up_to_the_covariance_term() -> None:
    task, net, pool = VICReg(), net_of(False), images(60)
    one, other = two_views(net, pool, each=False)
    net.mean.copy_(one.mean(0))
    net.covariance.copy_(torch.cov(one.T))

    with torch.no_grad():
        losses = task.losses(net, pool, seeded())
        distances = 25 * (one - other).square().mean(1)
        centred = other - net.mean
        off = net.covariance - net.covariance.diagonal().diag()
        of_other = ((centred @ off) * centred).sum(1).mean().item() / 512

    expected = distances.mean().item() + covariance_term(one) * 59 / 60 + of_other
    assert losses.mean().item() == pytest.approx(expected, rel=1e-3)


def test_settling_takes_mean_and_covariance_of_views_of_the_pool() -> None:
    task, net, pool = VICReg(), net_of(False), images(70)
    task.settle(net, pool, seeded())

    generator = seeded()
    with torch.no_grad():
        found = torch.cat([net(view(part, generator, each=True)) for part in torch.split(pool, 64)])
    assert torch.allclose(net.mean, found.mean(0), atol=1e-6)
    assert torch.allclose(net.covariance, torch.cov(found.T), atol=1e-5)


def test_before_that_only_the_distance_of_the_views_counts() -> None:
    net, batch = net_of(False), images(3)
    one, other = two_views(net, batch, each=False)

    assert torch.allclose(
        VICReg().losses(net, batch, seeded()), 25 * (one - other).square().mean(1), atol=1e-5
    )

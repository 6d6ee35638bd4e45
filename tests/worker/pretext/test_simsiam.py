"""The target gets no gradient."""

import torch

from tests.worker.pretext.nets import images, seeded, tiny_net
from worker.modalities.image.views import view
from worker.pretext.simsiam import SimSiam, SimSiamNet


def test_only_the_predicting_side_learns() -> None:
    task, batch = SimSiam(), images(4)
    net = tiny_net(task)
    assert isinstance(net, SimSiamNet)
    torch.autograd.backward(task.losses(net, batch, seeded()).mean())
    found = [weight.grad.clone() for weight in net.parameters() if weight.grad is not None]

    net.zero_grad()
    generator = seeded()
    one, other = (view(batch, generator, each=True) for _ in range(2))
    first, second = net(torch.cat([one, other])).chunk(2)
    constant_first, constant_second = first.data, second.data
    p_first, p_second = net.predictor(torch.cat([first, second])).chunk(2)
    similarity = (
        torch.cosine_similarity(p_first, constant_second) + torch.cosine_similarity(p_second, constant_first)
    ) / 2
    torch.autograd.backward((1 - similarity).mean())

    expected = [weight.grad for weight in net.parameters() if weight.grad is not None]
    assert len(found) == len(expected) == len(list(net.parameters()))
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(found, expected, strict=True))

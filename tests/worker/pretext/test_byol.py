"""The teacher follows by moving average, gets no gradients, and sees the other view."""

from typing import cast

import pytest
import torch
from torch import nn

from tests.worker.pretext.nets import images, seeded, tiny_net
from worker.modalities.image.views import view
from worker.pretext.byol import BYOL, BYOLNet


def net_of(task: BYOL) -> BYOLNet:
    net = tiny_net(task)
    assert isinstance(net, BYOLNet)
    return net


@pytest.mark.parametrize(("done", "momentum"), [(0.0, 0.9), (0.5, 0.95), (1.0, 1.0)])
def test_the_teacher_is_a_moving_average(done: float, momentum: float) -> None:
    task = BYOL(momentum=0.9)
    net = net_of(task)
    before = [weight.clone() for weight in net.teacher.parameters()]
    for weight in net.backbone.parameters():
        nn.init.constant_(weight, 7.0)

    task.after_step(net, done)

    students = [*net.backbone.parameters(), *net.projection.parameters()]
    for teacher, student, old in zip(net.teacher.parameters(), students, before, strict=True):
        assert torch.allclose(teacher, momentum * old + (1 - momentum) * student, atol=1e-6)


def test_only_the_student_learns() -> None:
    task = BYOL()
    net = net_of(task)
    torch.autograd.backward(task.losses(net, images(4), seeded()).mean())

    assert all(weight.grad is None and not weight.requires_grad for weight in net.teacher.parameters())
    students = [net.backbone, net.projection, net.predictor]
    assert all(weight.grad is not None for student in students for weight in student.parameters())


def test_a_student_that_says_what_the_teacher_says_of_the_other_view_has_no_loss() -> None:
    task = BYOL()
    net = net_of(task).eval()
    batch = images(3)
    net.predictor = nn.Sequential()
    with torch.no_grad():
        # Nothing of the image is left, so all views are the same.
        last = [cast(nn.Linear, cast(nn.Sequential, part)[-1]) for part in (net.projection, net.teacher[1])]
        for layer in last:
            layer.weight.zero_()
            layer.bias.fill_(1.0)
        same = task.losses(net, batch, seeded())
        last[1].bias.fill_(-1.0)
        opposite = task.losses(net, batch, seeded())

    assert torch.allclose(same, torch.zeros(3), atol=1e-6)
    assert torch.allclose(opposite, torch.full((3,), 2.0), atol=1e-6)


def test_each_view_predicts_the_other() -> None:
    task, batch = BYOL(), images(3)
    net = net_of(task).eval()
    generator = seeded()
    one, other = (view(batch, generator, each=False) for _ in range(2))
    with torch.no_grad():
        losses = task.losses(net, batch, seeded())
        there = 1 - torch.cosine_similarity(net(one), net.teacher(other))
        back = 1 - torch.cosine_similarity(net(other), net.teacher(one))

    assert torch.allclose(losses, (there + back) / 2, atol=1e-6)

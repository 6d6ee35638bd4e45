"""Centring, crops of two sizes, and a teacher that sees the large ones only."""

from typing import cast

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn
from torch.nn import functional

from tests.worker.pretext.nets import SIZE, Tiny, images, seeded, tiny_net
from worker.modalities.image.backbones import make_backbone
from worker.modalities.image.crop_side import crop_side
from worker.modalities.image.views import view
from worker.pretext.dino import DINO, DINONet


class Always(nn.Sequential):
    def __init__(self, said: Tensor) -> None:
        super().__init__()
        self.said = said

    def forward(self, batch: Tensor) -> Tensor:
        return self.said.expand(len(batch), -1)


def net_of(task: DINO) -> DINONet:
    net = tiny_net(task)
    assert isinstance(net, DINONet)
    return net


def test_the_centre_is_a_moving_average_of_what_the_teacher_says() -> None:
    task = DINO(prototypes=16)
    net = net_of(task)
    kept: list[Tensor] = []
    net.teacher.register_forward_hook(lambda module, inputs, output: kept.append(output))
    net.centre.fill_(0.5)

    task.losses(net, images(4), seeded())

    assert torch.allclose(net.centre, 0.9 * torch.full((16,), 0.5) + 0.1 * kept[0].mean(0), atol=1e-6)
    centre = net.centre.clone()
    task.losses(net.eval(), images(4), seeded())
    assert torch.equal(net.centre, centre)


def test_what_is_centred_away_is_not_taught() -> None:
    """A teacher that always says the same teaches, once that is the centre, to be undecided."""
    task = DINO(prototypes=16, small_crops=0)
    net = net_of(task).eval()
    with torch.no_grad():
        said = net.teacher(images(1))[0]
        net.teacher = Always(said)
        net.centre.copy_(said)
        losses = task.losses(net, images(3), seeded())
        undecided = -functional.log_softmax(net(_large(net)) / 0.1, 1).mean(1).view(2, 3).mean(0)

    assert torch.allclose(losses, undecided, atol=1e-4)


def _large(net: DINONet) -> Tensor:
    return cast(Tiny, net.backbone).shown[-1]


def test_every_other_crop_is_to_say_what_the_teacher_says_of_a_large_one() -> None:
    task, batch = DINO(prototypes=16, small_crops=2), images(3)
    net = net_of(task).eval()
    generator = seeded()
    large = [view(batch, generator, each=False, scale=(0.4, 1.0)) for _ in range(2)]
    small = [view(batch, generator, each=False, scale=(0.1, 0.4), side=SIZE // 2) for _ in range(2)]
    with torch.no_grad():
        losses = task.losses(net, batch, seeded())
        expected = torch.zeros(3)
        for taught, others in ((large[0], (large[1], *small)), (large[1], (large[0], *small))):
            target = torch.softmax((net.teacher(taught) - net.centre) / 0.04, 1)
            for other in others:
                expected -= (target * torch.log_softmax(net(other) / 0.1, 1)).sum(1) / 6

    assert torch.allclose(losses, expected, atol=1e-4)


def test_small_crops_are_small_and_the_teacher_never_sees_them() -> None:
    task = DINO(prototypes=16, small_crops=3)
    net = net_of(task)
    student, teacher = cast(Tiny, net.backbone), cast(Tiny, net.teacher[0])
    student.shown.clear()
    teacher.shown.clear()

    task.losses(net, images(4), seeded())

    assert [tuple(shown.shape) for shown in teacher.shown] == [(8, 3, SIZE, SIZE)]
    assert [tuple(shown.shape) for shown in student.shown] == [
        (8, 3, SIZE, SIZE),
        (12, 3, SIZE // 2, SIZE // 2),
    ]


def test_the_teacher_follows_and_gets_no_gradients() -> None:
    task = DINO(prototypes=16, momentum=0.5)
    net = net_of(task)
    before = [weight.clone() for weight in net.teacher.parameters()]
    torch.autograd.backward(task.losses(net, images(4), seeded()).mean())
    with torch.no_grad():
        for weight in (*net.backbone.parameters(), *net.head.parameters()):
            weight.add_(1)

    task.after_step(net, 0.0)

    assert all(weight.grad is None for weight in net.teacher.parameters())
    for weight, old in zip(net.teacher.parameters(), before, strict=True):
        assert torch.allclose(weight, old + 0.5, atol=1e-6)


def test_a_backbone_of_one_size_gets_small_crops_at_full_size() -> None:
    assert crop_side(make_backbone("small", False, 28)[0], 28) == 14
    transformer = make_backbone("vit_tiny_patch16_224", False, 32)[0]
    assert crop_side(transformer, 32) == 32
    assert transformer.training


def test_one_small_crop_is_refused() -> None:
    with pytest.raises(ValidationError, match="send 0, or 2 to 16"):
        DINO(small_crops=1)


@pytest.mark.parametrize("small_crops", [0, 2])
def test_a_last_batch_of_one_item_is_learned_from(small_crops: int) -> None:
    task = DINO(prototypes=16, small_crops=small_crops)

    assert task.losses(net_of(task).train(), images(1), seeded()).isfinite().all()

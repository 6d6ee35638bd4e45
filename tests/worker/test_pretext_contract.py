"""What every pretext task must keep to, whatever it is."""

import pytest
import torch
from torch import Tensor, nn

from worker.backbone import make_backbone
from worker.pretext import PretextTask, pretext_tasks

SIZE = 12

every_task = pytest.mark.parametrize(
    "task", [kind() for kind in pretext_tasks().values()], ids=pretext_tasks()
)


def _net(task: PretextTask) -> nn.Module:
    torch.manual_seed(0)
    backbone, dimensions = make_backbone("small", pretrained=False, image_size=SIZE)
    return task.make_net(backbone, dimensions, SIZE)


def _images(n: int) -> Tensor:
    return torch.rand(n, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))


def _losses(task: PretextTask, net: nn.Module, batch: Tensor) -> Tensor:
    return task.losses(net, batch, torch.Generator().manual_seed(2))


@every_task
@pytest.mark.parametrize("n", [1, 2, 5])
def test_one_finite_loss_an_item(task: PretextTask, n: int) -> None:
    for mode in (True, False):
        losses = _losses(task, _net(task).train(mode), _images(n))

        assert losses.shape == (n,)
        assert losses.dtype == torch.float32
        assert losses.isfinite().all()


@every_task
def test_it_can_be_learned(task: PretextTask) -> None:
    net = _net(task)
    images = _images(8)
    optimizer = torch.optim.AdamW(net.parameters(), 3e-3)
    before = _losses(task, net, images).mean().item()
    for _ in range(15):
        loss = _losses(task, net, images).mean()
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()

    assert loss.item() < 0.8 * before
    assert all(weight.grad is not None for weight in net.get_submodule("backbone").parameters())


@every_task
def test_an_items_loss_does_not_depend_on_its_batch(task: PretextTask) -> None:
    net = _net(task).eval()
    images = _images(7)

    together = _losses(task, net, images)
    alone = torch.cat([_losses(task, net, image[None]) for image in images])
    reversed_ = _losses(task, net, images.flip(0)).flip(0)

    assert torch.allclose(together, alone, atol=1e-5)
    assert torch.allclose(together, reversed_, atol=1e-5)


@every_task
def test_the_same_seed_gives_the_same_losses_and_nothing_else_is_random(task: PretextTask) -> None:
    net = _net(task).eval()
    one = _losses(task, net, _images(4))
    torch.manual_seed(99)

    assert torch.equal(one, _losses(task, net, _images(4)))


@every_task
def test_the_network_gives_its_backbone_back(task: PretextTask) -> None:
    assert _net(task).eval().get_submodule("backbone")(_images(2)).shape == (2, 192)


@every_task
def test_measures_are_numbers(task: PretextTask) -> None:
    assert all(isinstance(value, float) for value in task.measures(_net(task).eval(), _images(4)).values())


@every_task
def test_it_explains_itself(task: PretextTask) -> None:
    assert "http" in (type(task).__doc__ or ""), "the docstring is the help: with the paper's link"
    assert task.modalities

"""What every pretext task must keep to, whatever it is."""

import copy

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from worker.modalities.image import Image
from worker.modalities.image.backbones import make_backbone
from worker.modalities.image.pixels import normalised
from worker.pretext import PretextTask, pretext_tasks

SIZE = 12

every_task = pytest.mark.parametrize(
    "task", [kind() for kind in pretext_tasks("image").values()], ids=pretext_tasks("image")
)


def _net(task: PretextTask, backbone: str = "small", size: int = SIZE, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return task.make_net(*make_backbone(backbone, pretrained=False, image_size=size), Image(image_size=size))


def _images(n: int, size: int = SIZE) -> Tensor:
    """Colours that change slowly, as in photographs, and noise; each image other ones."""
    generator = torch.Generator().manual_seed(1)
    coarse = torch.rand(n, 3, 3, 3, generator=generator)
    smooth = nn.functional.interpolate(coarse, (size, size), mode="bilinear")
    noisy = smooth + 0.05 * torch.randn(n, 3, size, size, generator=generator)
    return normalised((255 * noisy.clamp(0, 1)).to(torch.uint8))


def _losses(task: PretextTask, net: nn.Module, batch: Tensor, seed: int = 2) -> Tensor:
    return task.losses(net, batch, torch.Generator().manual_seed(seed))


def _learn(task: PretextTask, net: nn.Module, images: Tensor, steps: int) -> None:
    """As the training loop does it, with the same views in each step."""
    optimizer = torch.optim.AdamW(net.parameters(), 3e-3)
    for step in range(steps):
        loss = _losses(task, net.train(), images).mean()
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        task.after_step(net, (step + 1) / steps)


def _settle(task: PretextTask, net: nn.Module, sample: Tensor) -> nn.Module:
    task.finalise(net.eval(), sample, torch.Generator().manual_seed(5))
    return net


@every_task
@pytest.mark.parametrize("n", [1, 2, 5])
@pytest.mark.parametrize("size", [8, SIZE])
def test_one_finite_loss_an_item(task: PretextTask, n: int, size: int) -> None:
    for mode in (True, False):
        losses = _losses(task, _net(task, size=size).train(mode), _images(n, size))

        assert losses.shape == (n,)
        assert losses.dtype == torch.float32
        assert losses.isfinite().all()


@every_task
def test_it_can_be_learned(task: PretextTask) -> None:
    net = _net(task)
    images = _images(8)
    before = _losses(task, net, images).mean().item()
    _learn(task, net, images, 15)

    assert _losses(task, net, images).mean().item() < 0.95 * before
    assert all(weight.grad is not None for weight in net.get_submodule("backbone").parameters())


@every_task
@pytest.mark.parametrize("backbone", ["resnet18", "vit_tiny_patch16_224"])
def test_it_takes_convolutional_networks_and_transformers(task: PretextTask, backbone: str) -> None:
    net = _net(task, backbone, size=32)

    losses = _losses(task, net.train(), _images(2, 32))
    torch.autograd.backward(losses.mean())

    assert losses.isfinite().all()
    assert all(weight.grad is not None for weight in net.get_submodule("backbone").parameters())
    assert (_losses(task, _settle(task, net, _images(3, 32)), _images(2, 32))).isfinite().all()


@every_task
def test_an_items_loss_does_not_depend_on_its_batch(task: PretextTask) -> None:
    net = _net(task)
    _learn(task, net, _images(8), 3)
    _settle(task, net, _images(20))
    images = _images(7)

    together = _losses(task, net, images)
    alone = torch.cat([_losses(task, net, image[None]) for image in images])
    reversed_ = _losses(task, net, images.flip(0)).flip(0)

    assert torch.allclose(together, alone, atol=1e-5)
    assert torch.allclose(together, reversed_, atol=1e-5)
    assert together.std() > 0


@every_task
def test_the_same_seed_gives_the_same_losses_and_nothing_else_is_random(task: PretextTask) -> None:
    for mode in (True, False):
        net = _net(task).train(mode)
        one = _losses(task, copy.deepcopy(net), _images(4))
        torch.manual_seed(99)

        assert torch.equal(one, _losses(task, net, _images(4)))


@every_task
def test_views_differ_where_there_are_several(task: PretextTask) -> None:
    net = _net(task).eval()

    one, other = (_losses(task, net, _images(4), seed) for seed in (0, 1))

    assert torch.equal(one, other) == (task.scoring_views == 1)


@every_task
def test_scoring_changes_nothing(task: PretextTask) -> None:
    net = _settle(task, _net(task), _images(5))
    before = copy.deepcopy(net.state_dict())

    _losses(task, net, _images(4))
    task.diagnostics(net, _images(4))

    assert not net.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())


@every_task
def test_what_follows_after_a_step_is_not_trained_itself(task: PretextTask) -> None:
    net = _net(task).train()
    _losses(task, net, _images(4))
    trained = {name: weight.clone() for name, weight in net.named_parameters() if weight.requires_grad}

    task.after_step(net, 0.5)

    now = dict(net.named_parameters())
    assert all(torch.equal(now[name], weight) for name, weight in trained.items())


@every_task
def test_a_stored_net_gives_the_same_losses(task: PretextTask) -> None:
    net = _net(task)
    _learn(task, net, _images(8), 3)
    _settle(task, net, _images(9))
    tensors = {name: tensor.contiguous().clone() for name, tensor in net.state_dict().items()}

    again = _net(task, seed=1)
    again.load_state_dict(safetensors.torch.load(safetensors.torch.save(tensors)))

    assert torch.equal(_losses(task, again.eval(), _images(4)), _losses(task, net, _images(4)))


@every_task
@pytest.mark.parametrize(
    "pool",
    [
        _images(1),
        _images(3),
        _images(1).repeat(5, 1, 1, 1),
        _images(5).mean(1, keepdim=True).repeat(1, 3, 1, 1),
        normalised(torch.zeros(4, 3, SIZE, SIZE, dtype=torch.uint8)),
    ],
    ids=["one item", "three items", "identical", "grey", "black"],
)
def test_poor_pools_give_numbers(task: PretextTask, pool: Tensor) -> None:
    net = _net(task)
    _learn(task, net, pool, 3)
    losses = _losses(task, _settle(task, net, pool), pool)

    assert losses.isfinite().all()
    assert all(weight.isfinite().all() for weight in net.state_dict().values())


@every_task
def test_the_network_gives_its_backbone_back(task: PretextTask) -> None:
    net = _net(task)

    assert all(module.training for module in net.modules())
    assert net.eval().get_submodule("backbone")(_images(2)).shape == (2, 192)


@every_task
def test_measures_are_numbers(task: PretextTask) -> None:
    assert all(isinstance(value, float) for value in task.diagnostics(_net(task).eval(), _images(4)).values())


@every_task
def test_it_explains_itself(task: PretextTask) -> None:
    assert "http" in (type(task).__doc__ or ""), "the docstring is the help: with the paper's link"
    assert task.modalities is None or "image" in task.modalities
    assert task.scoring_views >= 1
    assert all(field.description for field in type(task).model_fields.values())

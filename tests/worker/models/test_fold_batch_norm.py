"""Folding leaves no batch norm behind a convolution or linear layer, and every output as it was."""

import pytest
import timm
import torch
from torch import Tensor, nn

from worker.modalities.graph import Graph
from worker.modalities.image import Image
from worker.modalities.image.backbones import make_backbone
from worker.models.fold_batch_norm import folded
from worker.pretext import pretext_tasks
from worker.scoring.score import score

SIZE = 32


def norms(net: nn.Module) -> int:
    return sum(isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)) for module in net.modules())


def images(n: int = 6) -> Tensor:
    return torch.rand(n, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("task_name", "backbone"),
    [(name, "small") for name in pretext_tasks("image")] + [("rotation", "resnet18")],
)
def test_the_same_losses_and_embeddings(task_name: str, backbone: str) -> None:
    task = pretext_tasks()[task_name]()
    torch.manual_seed(0)
    net = task.make_net(*make_backbone(backbone, False, SIZE), Image(image_size=SIZE))
    task.losses(net, images(), torch.Generator().manual_seed(0))  # in training mode: statistics move
    net.eval()

    made = folded(net, lambda either: score(either, task, images()).losses)

    assert norms(made) == 0 < norms(net)
    before, after = score(net, task, images()), score(made, task, images())
    assert torch.allclose(before.losses, after.losses, rtol=1e-5, atol=1e-5)
    assert torch.allclose(before.embeddings, after.embeddings, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("task_name", sorted(set(pretext_tasks("graph")) - {"combined"}))
def test_the_same_of_graphs_whose_norms_follow_linear_layers(task_name: str) -> None:
    graphs, task = Graph(nodes=12, edges=16), pretext_tasks()[task_name]()
    batch = graphs.prepare(graphs.dummy(6))
    torch.manual_seed(0)
    net = task.make_net(*graphs.make_backbone("small", False), graphs)
    task.losses(net, batch, torch.Generator().manual_seed(0))
    net.eval()
    task.finalise(net, batch, torch.Generator().manual_seed(0))

    made = folded(net, lambda either: score(either, task, batch).losses)

    assert norms(made) == 0 < norms(net)
    before, after = score(net, task, batch), score(made, task, batch)
    assert torch.allclose(before.losses, after.losses, rtol=1e-5, atol=1e-5)
    assert torch.allclose(before.embeddings, after.embeddings, rtol=1e-4, atol=1e-5)


def test_a_norm_over_another_dimension_than_the_layers_outputs_stays() -> None:
    """Of outputs (n, k, c) batch norm takes k for the channels."""
    net = nn.Sequential(nn.Linear(5, 7), nn.BatchNorm1d(3)).eval()

    assert folded(net, lambda either: either(torch.ones(2, 3, 5))) is net


def test_norms_that_activate_leave_their_activation() -> None:
    """As timm's mobile networks have them."""
    torch.manual_seed(0)
    net = timm.create_model("tf_efficientnet_lite0", num_classes=0).eval()

    made = folded(net, lambda either: either(images()), 1e-4)

    assert norms(made) == 5 < norms(net)  # those behind convolutions that pad by themselves
    with torch.no_grad():
        assert torch.allclose(net(images()), made(images()), rtol=1e-3, atol=1e-4)


class Shared(nn.Module):
    """What a convolution gives is used twice, so that its norm must stay."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        self.norm.running_mean.copy_(torch.arange(4.0))  # type: ignore[union-attr]

    def forward(self, images: Tensor) -> Tensor:
        found = self.conv(images)
        means: Tensor = (found + self.norm(found)).mean((1, 2, 3))
        return means


def test_a_network_that_would_change_is_left_alone() -> None:
    net = Shared().eval()

    assert folded(net, lambda either: either(images())) is net
    assert norms(net) == 1


def test_a_layer_whose_output_would_change_is_left_alone() -> None:
    """The loss stays as it is where batch norm follows, what the layer itself gives does not."""
    task = pretext_tasks()["rotation"]()
    torch.manual_seed(0)
    net = task.make_net(*make_backbone("ghostnet_100", False, SIZE), Image(image_size=SIZE))
    task.losses(net, images(), torch.Generator().manual_seed(0))
    net.eval()

    def run(either: nn.Module) -> Tensor:
        found = score(either, task, images(), "conv_stem")
        return torch.cat([found.losses, found.embeddings.flatten()])

    assert folded(net, run) is net
    assert folded(net, lambda either: score(either, task, images()).losses) is not net

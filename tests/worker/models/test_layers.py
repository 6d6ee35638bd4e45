"""Embeddings from within a backbone: each layer what it gives, in one pass, the same in scoring."""

import pytest
import torch
from torch import Tensor, nn

from worker.modalities.image import Image
from worker.modalities.image.backbones import make_backbone
from worker.modalities.image.pixels import normalised
from worker.modalities.image.pretext.rotation import Rotation
from worker.models.layers import at_layer, candidates, embeddings_at
from worker.pretext.simclr import SimCLR
from worker.scoring.score import score

SIZE = 32


def images(n: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return normalised(torch.randint(0, 256, (n, 3, SIZE, SIZE), dtype=torch.uint8, generator=generator))


def backbone(name: str) -> nn.Module:
    torch.manual_seed(0)
    return make_backbone(name, False, SIZE)[0].eval()


def test_the_layers_of_small_are_its_stages() -> None:
    small = backbone("small")
    with torch.no_grad():
        found = embeddings_at(small, [None, *candidates(small)], images())

    assert {layer: values.shape[1] for layer, values in found.items()} == {
        None: 192,
        "stage1": 32,
        "stage2": 64,
        "stage3": 128,
    }
    assert torch.equal(found[None], torch.cat([found["stage2"], found["stage3"]], 1))


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_convnext", "test_efficientnet"])
@torch.no_grad()
def test_every_kind_of_timm_backbone_has_layers(name: str) -> None:
    made = backbone(name)
    layers = candidates(made)
    found = embeddings_at(made, [None, *layers], images())

    assert 2 <= len(layers) <= 6
    for layer in layers:
        values = at_layer(made, layer)(images())
        assert values.shape[0] == 3
        assert values.ndim == 2
        assert values.isfinite().all()
        assert values.std(0).max() > 0  # it tells images apart
        assert torch.equal(values, found[layer])
    assert torch.equal(found[None], at_layer(made, None)(images()))
    assert not made._forward_hooks


class Branches(nn.Module):
    """As some backbones of timm: one feature has its channels last, one is several maps at once, one is a list that
    is never called.
    """

    feature_info = tuple({"module": name, "num_chs": 4} for name in ("stem", "mixed", "branches", "stages"))

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3)
        self.mixed = nn.Linear(4, 4)
        self.branches = nn.AdaptiveMaxPool2d(2, return_indices=True)
        self.stages = nn.ModuleList([nn.Flatten()])

    def forward(self, values: Tensor) -> Tensor:
        mixed = self.mixed(self.stem(values).permute(0, 2, 3, 1))
        flat: Tensor = self.stages[0](self.branches(mixed.permute(0, 3, 1, 2))[0])
        return flat


@torch.no_grad()
def test_layers_that_give_no_tensor_are_left_out() -> None:
    made = Branches()

    assert candidates(made) == ["stem", "mixed", "branches", "stages"]
    found = embeddings_at(made, [None, *candidates(made)], images())
    assert {layer: values.shape[1] for layer, values in found.items()} == {None: 16, "stem": 4, "mixed": 4}
    torch.testing.assert_close(found["mixed"], made.mixed(found["stem"]))


@torch.no_grad()
def test_places_and_tokens_are_averaged() -> None:
    made, vit = backbone("test_resnet"), backbone("test_vit")
    maps = made.forward_intermediates(images(), intermediates_only=True)  # type: ignore[operator]
    tokens = vit.forward_intermediates(images(), intermediates_only=True)  # type: ignore[operator]

    torch.testing.assert_close(at_layer(made, "layer4")(images()), maps[-1].mean((2, 3)))
    torch.testing.assert_close(at_layer(vit, candidates(vit)[-1])(images()), tokens[-1].mean((2, 3)))


@pytest.mark.parametrize("task", [Rotation(), SimCLR()], ids=["items are among its views", "only crops are"])
def test_scoring_gives_the_layer_and_the_same_losses(task: Rotation | SimCLR) -> None:
    torch.manual_seed(0)
    net = task.make_net(*make_backbone("test_resnet", False, SIZE), Image(image_size=SIZE)).eval()
    own, inner = score(net, task, images()), score(net, task, images(), "layer2")

    assert torch.equal(own.losses, inner.losses)
    with torch.no_grad():
        expected = at_layer(net.get_submodule("backbone"), "layer2")(images())
    torch.testing.assert_close(inner.embeddings, expected)
    assert inner.embeddings.shape != own.embeddings.shape

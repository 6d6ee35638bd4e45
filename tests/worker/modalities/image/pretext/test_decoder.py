"""Values at every pixel, from any backbone; and the embedding is the backbone's own."""

import pytest
import torch

from tests.worker.pretext.nets import Tiny
from worker.modalities.image.backbones import make_backbone
from worker.modalities.image.pretext.decoder import PixelNet, map_and_embedding


@pytest.mark.parametrize(
    ("name", "size", "places"),
    [
        ("small", 28, (4, 4)),
        ("resnet18", 32, (1, 1)),
        ("vit_tiny_patch16_224", 48, (3, 3)),  # with a class token
        ("swin_tiny_patch4_window7_224", 64, (2, 2)),  # channels last
        ("coat_lite_tiny", 64, (2, 2)),  # with a class token that it does not tell of
        ("mobilenetv3_small_050", 64, (2, 2)),  # its embedding is wider than its map
    ],
)
def test_maps_of_all_kinds(name: str, size: int, places: tuple[int, int]) -> None:
    backbone, dimensions = make_backbone(name, pretrained=False, image_size=size)
    images = torch.rand(2, 3, size, size)
    backbone.eval()

    found, embedding = map_and_embedding(backbone, images)

    assert found.shape[2:] == places
    assert torch.allclose(embedding, backbone(images), atol=1e-6)
    assert PixelNet(backbone, dimensions, size, channels=2, side=7).eval()(images).shape == (2, 2, 7, 7)


def test_without_a_map_the_embedding_is_decoded() -> None:
    net = PixelNet(Tiny(), 16, 12, channels=3, side=12)

    assert net(torch.rand(2, 3, 12, 12)).shape == (2, 3, 12, 12)


def test_the_embedding_learns_too() -> None:
    """Even where the map does not depend on it, as the class token of a transformer."""
    backbone, dimensions = make_backbone("vit_tiny_patch16_224", pretrained=False, image_size=32)
    net = PixelNet(backbone, dimensions, 32, channels=3, side=32)
    last_block = [*backbone.get_submodule("blocks").children()][-1]
    tokens: list[torch.Tensor] = []
    last_block.register_forward_hook(lambda module, inputs, output: tokens.append(output))
    painted = net(torch.rand(2, 3, 32, 32))

    (gradient,) = torch.autograd.grad(painted.square().mean(), tokens[-1])

    assert gradient[:, 0].abs().sum() > 0  # the class token, which is the embedding

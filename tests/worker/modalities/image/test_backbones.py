"""Backbones give embeddings, or a sentence."""

import pytest
import torch

from worker.modalities.image.backbones import BackboneUnusable, make_backbone


@pytest.mark.parametrize(
    ("name", "size"), [("small", 8), ("small", 28), ("resnet18", 32), ("vit_tiny_patch16_224", 32)]
)
def test_any_backbone_gives_embeddings_of_its_dimensions(name: str, size: int) -> None:
    backbone, dimensions = make_backbone(name, pretrained=False, image_size=size)

    embeddings = backbone(torch.rand(3, 3, size, size))

    assert embeddings.shape == (3, dimensions)
    assert embeddings.isfinite().all()


def test_small_has_192_dimensions() -> None:
    assert make_backbone("small", pretrained=False, image_size=28)[1] == 192


@pytest.mark.parametrize(
    ("name", "pretrained", "sentence"),
    [
        ("resnet81", False, "Close: .*resnet18"),
        ("smal", False, "Close: .*small"),
        ("", False, "There is no backbone"),
        ("small", True, "no pretrained weights"),
        ("resnet18.no_such_weights", False, "cannot be built"),
    ],
)
def test_an_unusable_backbone_says_why(name: str, pretrained: bool, sentence: str) -> None:
    with pytest.raises(BackboneUnusable, match=sentence):
        make_backbone(name, pretrained, image_size=32)

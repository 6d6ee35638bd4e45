"""Networks of timm that others keep: on the hub, or in a folder as `save_for_hf` writes it and an export of ours is."""

from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
from timm.models import save_for_hf
from torch import nn

from worker.modalities import BackboneUnusable
from worker.modalities.audio.backbones import make_backbone as of_recordings
from worker.modalities.image.backbones import make_backbone as of_images
from worker.modalities.video.backbones import make_backbone as of_videos

Make = Callable[[str, bool], tuple[nn.Module, int]]
MAKERS: list[Make] = [
    lambda name, pretrained: of_images(name, pretrained, 32),
    lambda name, pretrained: of_recordings(name, pretrained, 32),
    lambda name, pretrained: of_videos(name, pretrained, 4, 32),
]


@pytest.mark.parametrize("make", MAKERS, ids=["image", "audio", "video"])
def test_one_in_a_folder(make: Make, tmp_path: Path) -> None:
    torch.manual_seed(0)
    kept = timm.create_model("test_resnet")
    save_for_hf(kept, str(tmp_path))
    name = f"local-dir:{tmp_path}"

    new, dimensions = make(name, False)
    pretrained, _ = make(name, True)

    def last(net: nn.Module) -> torch.Tensor:
        """Of the weights, one that no number of channels changes."""
        tensors = reversed(net.state_dict().items())
        found: torch.Tensor = next(value for key, value in tensors if key.endswith("conv2.weight"))
        return found

    assert dimensions > 0
    assert torch.equal(last(pretrained), last(kept))
    assert not torch.equal(last(new), last(kept))


@pytest.mark.parametrize("make", MAKERS, ids=["image", "audio", "video"])
def test_one_that_is_not_there(make: Make, tmp_path: Path) -> None:
    with pytest.raises(BackboneUnusable, match="cannot be built with pretrained weights"):
        make(f"local-dir:{tmp_path}", True)

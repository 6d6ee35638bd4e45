"""Networks by their names in torchvision and timm are as good for videos as the small one of our own."""

from pathlib import Path

import pytest
import torch
import torchvision
from torch import nn

from worker.modalities import BackboneUnusable
from worker.modalities.video import Video
from worker.modalities.video.backbones import VideoBackbone
from worker.models.fold_batch_norm import folded
from worker.models.nets import on_device

VIDEO = Video(side=32, step=0.1)
BATCH = VIDEO.prepare(VIDEO.dummy(3))


def made(name: str) -> VideoBackbone:
    torch.manual_seed(0)
    net = VIDEO.make_backbone(name, pretrained=False)[0].eval()
    assert isinstance(net, VideoBackbone)
    return net


@pytest.mark.parametrize(
    ("name", "dimensions"),
    [("r2plus1d_18", 1_024), ("swin3d_t", 1_536), ("test_resnet", 384), ("test_vit", 256)],
)
@torch.no_grad()
def test_a_video_is_the_mean_of_its_clips_and_their_change(name: str, dimensions: int) -> None:
    net = made(name)
    clips = torch.stack([net.clip_net(BATCH[:, clip]) for clip in range(3)], 1)

    found = net(BATCH)
    assert found.shape == (3, net.dimensions) == (3, dimensions)
    torch.testing.assert_close(
        found, torch.cat([clips.mean(1), clips[:, -1] - clips[:, 0]], 1), rtol=1e-3, atol=1e-4
    )


@pytest.mark.parametrize("name", ["mc3_18", "test_resnet"])
@torch.no_grad()
def test_a_clip_is_another_one_backwards(name: str) -> None:
    """The last of the dummies is one that moves."""
    clip_net = made(name).clip_net

    apart = (clip_net(BATCH[2:, 0]) - clip_net(BATCH[2:, 0].flip(1))).abs().max()
    still = BATCH[:, 0, :1].expand(-1, 8, -1, -1, -1).contiguous()
    assert apart > 0.01
    torch.testing.assert_close(clip_net(still), clip_net(still.flip(1)))


@torch.no_grad()
def test_norms_over_space_and_time_are_folded_for_scoring() -> None:
    torch.manual_seed(0)
    net = VIDEO.make_backbone("mc3_18", pretrained=False)[0].get_submodule("clip_net")
    net(BATCH[:, 0])  # in training mode: statistics move
    few = BATCH[:1, 0]
    quick = on_device(folded(net.eval(), lambda either: either(few)), torch.device("cpu"))

    assert not any(isinstance(module, nn.BatchNorm3d) for module in quick.modules())
    torch.testing.assert_close(quick(few), net(few), rtol=1e-4, atol=1e-5)


def test_pretrained_weights_are_those_of_torchs_cache(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A file there is taken, and no network asked."""
    known = torchvision.models.get_model("mc3_18")
    url = torchvision.models.get_model_weights("mc3_18").DEFAULT.url
    file = tmp_path / "hub" / "checkpoints" / Path(url).name
    file.parent.mkdir(parents=True)
    torch.save(known.state_dict(), file)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    net, dimensions = VIDEO.make_backbone("mc3_18", pretrained=True)

    expected = {name: value for name, value in known.state_dict().items() if not name.startswith("fc.")}
    found = {name.removeprefix("clip_net.network."): value for name, value in net.state_dict().items()}
    assert dimensions == 1_024
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], value) for name, value in expected.items())


@pytest.mark.parametrize(
    ("name", "pretrained", "sentence"),
    [
        ("r2plus1d", False, "Close: r2plus1d_18"),
        ("resnet81", False, "Close: .*resnet18"),
        ("small", True, "no pretrained weights"),
        ("s3d", False, "cannot be built without pretrained weights for clips of 8 frames of 32 x 32 pixels"),
    ],
)
def test_an_unusable_one_says_why(name: str, pretrained: bool, sentence: str) -> None:
    with pytest.raises(BackboneUnusable, match=sentence):
        VIDEO.make_backbone(name, pretrained)

"""Networks by their names in timm are as good for recordings as the small one of our own."""

from typing import Any

import pytest
import timm
import torch

from tests.worker.modalities.pretrained_files import in_cache_of_hub
from worker.modalities import BackboneUnusable
from worker.modalities.audio import Audio
from worker.modalities.audio.backbones import TimmAudioBackbone
from worker.modalities.audio.spectrograms import ABSENT, heard

AUDIO = Audio(rate=8_000, seconds=0.5, windows=2)  # 50 frames of 64 bands, filled up to 56
BATCH = AUDIO.prepare(AUDIO.dummy(8))


def made(name: str) -> TimmAudioBackbone:
    torch.manual_seed(0)
    net = AUDIO.make_backbone(name, pretrained=False)[0].eval()
    assert isinstance(net, TimmAudioBackbone)
    return net


@pytest.mark.parametrize("name", ["test_resnet", "test_convnext", "test_vit", "swin_tiny_patch4_window7_224"])
@torch.no_grad()
def test_it_gives_embeddings_and_the_map_that_patches_are_guessed_from(name: str) -> None:
    net = made(name)
    maps, embeddings, rows = net.maps(BATCH)

    assert maps.shape == (len(rows), net.channels, 64 // net.stride, 64 // net.stride)
    assert embeddings.shape == (8, net.dimensions)
    assert embeddings.std(0).max() > 0
    assert torch.equal(rows, heard(BATCH).flatten(0, 1).any(1).nonzero()[:, 0])


@pytest.mark.parametrize("name", ["test_resnet", "test_convnext", "test_vit"])
@torch.no_grad()
def test_a_recording_is_the_mean_over_its_windows_by_their_frames(name: str) -> None:
    """As a plain loop has it, each window by itself; a window that is not there changes nothing."""
    net = made(name)
    row = int(heard(BATCH).flatten(1).sum(1).argmax())
    windows = [BATCH[row, None, window, None] for window in range(2)]
    frames = [int(heard(window).sum()) for window in windows]
    assert min(frames) > 0
    expected = sum(net(window) * count for window, count in zip(windows, frames, strict=True)) / sum(frames)

    torch.testing.assert_close(net(BATCH)[row : row + 1], expected, rtol=1e-4, atol=1e-5)
    more = torch.cat([BATCH, torch.full_like(BATCH, ABSENT)], 1)
    torch.testing.assert_close(net(more), net(BATCH), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_only_frames_that_are_there_are_pooled() -> None:
    """Of a window of which the first half is there, the mean is that over the first half of the map."""
    net = made("test_resnet")
    half = BATCH[:1, :1].clone()
    half[:] = 0.5
    half[..., 30:] = ABSENT  # of two columns of 32 frames each the second holds nothing
    maps, found, _ = net.maps(half)

    torch.testing.assert_close(found, maps[..., 0].mean(2), rtol=1e-4, atol=1e-5)


def test_pretrained_weights_are_those_of_the_cache_summed_over_colours(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    torch.manual_seed(3)
    known = timm.create_model("test_resnet")
    in_cache_of_hub(known, tmp_path, monkeypatch)
    net, _ = AUDIO.make_backbone("test_resnet", pretrained=True)

    found, expected = net.state_dict(), known.state_dict()
    torch.testing.assert_close(
        found["network.conv1.0.weight"], expected["conv1.0.weight"].sum(1, keepdim=True)
    )
    deep = "layer4.0.conv2.weight"
    assert torch.equal(found[f"network.{deep}"], expected[deep])


@pytest.mark.parametrize(
    ("name", "pretrained", "sentence"),
    [
        ("resnet81", False, "Close: .*resnet18"),
        ("small", True, "no pretrained weights"),
        (
            "test_resnet.no_such_weights",
            True,
            "cannot be built with pretrained weights for spectrograms of 64 bands",
        ),
    ],
)
def test_an_unusable_one_says_why(name: str, pretrained: bool, sentence: str) -> None:
    with pytest.raises(BackboneUnusable, match=sentence):
        AUDIO.make_backbone(name, pretrained)

"""Backbones of videos: networks from clips to an embedding."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from worker.modalities.timm_networks import is_timm, make_timm, tried, unknown, without_weights

_WIDTHS = (24, 48, 96)
_GRID = 2  # cells a side in which the embedding keeps apart what is where
_CLIP_DIMENSIONS = _WIDTHS[1] + _GRID**2 * _WIDTHS[2]
_CLASSIFIERS = ("fc", "head", "classifier")  # torchvision's names of the last layer


def make_backbone(name: str, pretrained: bool, frames: int, side: int) -> tuple[nn.Module, int]:
    """The network, (n, C, frames, 3, side, side) as prepared -> (n, d) float, and d. Raises `BackboneUnusable`."""
    if name == "small":
        if pretrained:
            raise without_weights()
        small = SmallVideoBackbone()
        return small, small.dimensions
    others = _of_torchvision()
    make: Callable[[], TorchvisionClips | PooledFrames]
    if name in others:
        make = partial(TorchvisionClips, name, pretrained)
    elif is_timm(name):
        make = partial(PooledFrames, name, pretrained, side)
    else:
        raise unknown(name, others)
    shown = f"clips of {frames} frames of {side} x {side} pixels"
    clip_net, dimensions = tried(name, pretrained, make, torch.zeros(1, frames, 3, side, side), shown)
    made = VideoBackbone(clip_net, dimensions)
    return made, made.dimensions


def _of_torchvision() -> list[str]:
    import torchvision  # here, as it takes a second, and `small` needs none of it

    found: list[str] = torchvision.models.list_models(module=torchvision.models.video)
    return found


class VideoBackbone(nn.Module):
    """A network over clips. A video's embedding joins the mean over its clips with the change from the first to the
    last one, which tells what went where.

    clip_net  clips (m, F, 3, s, s) -> (m, clip_dimensions)
    """

    def __init__(self, clip_net: nn.Module, clip_dimensions: int) -> None:
        super().__init__()
        self.clip_net = clip_net
        self.dimensions = 2 * clip_dimensions

    def forward(self, batch: Tensor) -> Tensor:
        """(n, C, F, 3, s, s) -> (n, d)."""
        clips = self.clip_net(batch.flatten(0, 1)).view(*batch.shape[:2], -1)
        return torch.cat([clips.mean(1), clips[:, -1] - clips[:, 0]], 1)

    def with_clips(self, batch: Tensor) -> Tensor:
        """The embeddings of the clips (n, C, d / 2). All of the network is called, so that whoever looks at what it
        gives need not call it again.
        """
        found: list[Tensor] = []
        hook = self.clip_net.register_forward_hook(lambda _, __, output: found.append(output))
        try:
            self(batch)
        finally:
            hook.remove()
        return found[0].view(*batch.shape[:2], -1)


class SmallVideoBackbone(VideoBackbone):
    """A network of (2+1)D convolutions that trains in minutes on a CPU. A video's embedding joins the mean over its
    clips with the change from the first to the last one, which tells what went where.

    Tran et al. 2018, "A Closer Look at Spatiotemporal Convolutions for Action Recognition",
    https://arxiv.org/abs/1711.11248.
    """

    def __init__(self) -> None:
        super().__init__(ClipNet(), _CLIP_DIMENSIONS)


class TorchvisionClips(nn.Module):
    """A video network of torchvision without its classifier: clips (m, F, 3, s, s) -> (m, d)."""

    def __init__(self, name: str, pretrained: bool) -> None:
        super().__init__()
        import torchvision

        self.network: nn.Module = torchvision.models.get_model(
            name, weights="DEFAULT" if pretrained else None
        )
        (classifier,) = [child for child, _ in self.network.named_children() if child in _CLASSIFIERS]
        setattr(self.network, classifier, nn.Identity())

    def forward(self, clips: Tensor) -> Tensor:
        found: Tensor = self.network(clips.transpose(1, 2))
        return found


class PooledFrames(nn.Module):
    """A model of timm over the frames of clips (m, F, 3, s, s) -> (m, 2d): the mean over the frames, and the change
    from the first half of them to the second, without which a clip would be the same backwards.
    """

    def __init__(self, name: str, pretrained: bool, side: int) -> None:
        super().__init__()
        self.network = make_timm(name, pretrained, (side, side))

    def forward(self, clips: Tensor) -> Tensor:
        frames = self.network(clips.flatten(0, 1)).view(*clips.shape[:2], -1)
        half = frames.shape[1] // 2
        return torch.cat([frames.mean(1), frames[:, -half:].mean(1) - frames[:, :half].mean(1)], 1)


class ClipNet(nn.Module):
    """Clips (m, F, 3, s, s) -> (m, d / 2): the mean over time and space of the second stage, and of the last one over
    time and a quarter of the picture each. Where something is says how clips follow each other.
    """

    def __init__(self) -> None:
        super().__init__()
        first, second, third = _WIDTHS
        self.stem = SpaceTime(3, first, space=2, time=1)
        self.stage1 = _Block(first, first, stride=1)
        self.stage2 = _Block(first, second, stride=2)
        self.stage3 = _Block(second, third, stride=2)

    def forward(self, clips: Tensor) -> Tensor:
        m, frames = clips.shape[:2]
        values = clips.flatten(0, 1).contiguous(memory_format=torch.channels_last)
        middle = self.stage2(self.stage1(functional.relu(self.stem(values, frames)), frames), frames)
        last = self.stage3(middle, -(-frames // 2))
        parts = functional.adaptive_avg_pool2d(last, _GRID).flatten(1)
        return torch.cat(
            [middle.mean((2, 3)).view(m, -1, _WIDTHS[1]).mean(1), parts.view(m, -1, parts.shape[1]).mean(1)],
            1,
        )


class SpaceTime(nn.Module):
    """A convolution over space, 3x3, then one over time, 3: frames (m · F, c, h, w) -> (m · F / time, c', h', w').

    Frames lie in memory with their channels last, so that what is a picture to the first is, without a copy, a picture
    of F x (h · w) to the second.
    """

    def __init__(self, inputs: int, outputs: int, space: int, time: int) -> None:
        super().__init__()
        self.space = nn.Conv2d(inputs, outputs, 3, space, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(outputs)
        self.time = nn.Conv2d(outputs, outputs, (3, 1), (time, 1), padding=(1, 0), bias=False)
        self.time_norm = nn.BatchNorm2d(outputs)

    def forward(self, values: Tensor, frames: int) -> Tensor:
        inner = functional.relu(self.norm(self.space(values)))
        _, channels, height, width = inner.shape
        over_time = (
            inner.permute(0, 2, 3, 1).reshape(-1, frames, height * width, channels).permute(0, 3, 1, 2)
        )
        found: Tensor = self.time_norm(self.time(over_time))
        return found.permute(0, 2, 3, 1).reshape(-1, height, width, channels).permute(0, 3, 1, 2)


class _Block(nn.Module):
    """(2+1)D convolutions and a shortcut; `stride` in space and in time."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.both = SpaceTime(inputs, outputs, stride, stride)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, values: Tensor, frames: int) -> Tensor:
        kept = values
        if self.stride != 1:
            kept = values.reshape(-1, frames, *values.shape[1:])[:, :: self.stride].flatten(0, 1)
        found: Tensor = self.both(values, frames) + self.shortcut(kept)
        return functional.relu(found)

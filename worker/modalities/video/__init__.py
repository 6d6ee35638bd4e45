"""Videos: bytes to clips of small frames, and all that the rest of the worker asks about them."""

from collections.abc import Iterable, Sequence
from typing import ClassVar, Self

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from service.content.contract import Facts, Limits
from service.content.video import facts_of, open_video
from worker.arrays import Floats, Ints
from worker.modalities import Batch, Modality, Sketcher
from worker.modalities.video.backbones import make_backbone
from worker.modalities.video.clips import clips_of, motion, prepared
from worker.modalities.video.features import raw_features
from worker.modalities.video.sketches import Storyboard
from worker.modalities.video.views import view

_LARGEST = {"cpu": 48, "cuda": 96}  # pixels a side
_SMALLEST, _MULTIPLE = 16, 8
_CLIPS, _FRAMES = 3, 8
_STEP_S = (1 / 120, 1 / 8)  # from frame to frame of a clip, at least and at most
_SHOWN = 0.75  # of a short video: between its clips something is left out, which has to be guessed
_STILL = 1.0  # of 255: less is what codecs do to a picture that does not change
_UNKNOWN = {"seconds": 4.0, "side": 1e6}


class Video(Modality):
    """Films of any length. Of each, `clips` of `frames` are seen, spread from its beginning to its end, `step` seconds
    from frame to frame; the centre square of each frame, resized. So an hour costs no more than a minute, and motion is
    seen at its own pace in either.
    """

    name: ClassVar[str] = "video"
    packages: ClassVar[tuple[str, ...]] = ("av",)
    dtype: ClassVar[torch.dtype] = torch.uint8
    default_task: ClassVar[str] = "temporal_order"
    items_seen: ClassVar[dict[str, int]] = {"cpu": 8_000, "cuda": 500_000}
    least_spread: ClassVar[float] = 0.3

    side: int | None = Field(None, ge=16, le=256, description="Pixels a side of a frame.")
    clips: int = Field(_CLIPS, ge=2, le=4, description="Clips of a video.")
    frames: int = Field(_FRAMES, ge=4, le=32, description="Frames of a clip.")
    step: float | None = Field(None, gt=0, le=60, description="Seconds from frame to frame.")

    def resolved(self, facts: Sequence[Facts], device: torch.device) -> Self:
        sides = [min(fact["width"], fact["height"]) for fact in facts if "width" in fact]
        lengths = [fact["seconds"] for fact in facts if "seconds" in fact]
        side = float(np.median(sides)) if sides else _UNKNOWN["side"]
        length = float(np.median(lengths)) if lengths else _UNKNOWN["seconds"]
        side = min(
            max(side // _MULTIPLE * _MULTIPLE, _SMALLEST), _LARGEST["cpu" if device.type == "cpu" else "cuda"]
        )
        step = min(max(_SHOWN * length / (self.clips * self.frames), _STEP_S[0]), _STEP_S[1])
        return self.model_copy(update={"side": self.side or int(side), "step": self.step or round(step, 4)})

    @property
    def _resolved(self) -> tuple[int, float]:
        if self.side is None or self.step is None:
            raise ValueError("`side` or `step` is open: ask `resolved` first")
        return self.side, self.step

    @property
    def item_shape(self) -> tuple[int, ...]:
        side = self._resolved[0]
        return self.clips, self.frames, 3, side, side

    def decode(self, data: bytes, limits: Limits) -> tuple[Tensor, Facts]:
        side, step = self._resolved
        with open_video(data, limits) as film:
            return clips_of(film, self.clips, self.frames, step, _SHOWN, side), facts_of(film)

    def prepare(self, items: Tensor) -> Batch:
        return prepared(items)

    def view(
        self,
        batch: Batch,
        generator: torch.Generator,
        *,
        each: bool,
        strength: float = 0.5,
        share: tuple[float, float] = (0.2, 1.0),
        size: int | None = None,
    ) -> Batch:
        return view(batch, generator, each=each, strength=strength, share=share)

    def dummy(self, n: int) -> Tensor:
        """Made-up coloured patterns that move sideways, each at its own pace."""
        clips, frames, _, side, _ = self.item_shape
        generator = torch.Generator().manual_seed(0)
        coarse = torch.rand((n, 3, 4, 4), generator=generator)
        pictures = torch.nn.functional.interpolate(coarse, (side, side), mode="bilinear") * 255
        paces = torch.randint(-3, 4, (n,), generator=generator)
        time = torch.arange(clips * frames) * max(side // 16, 1)
        columns = (torch.arange(side) + (paces[:, None] * time)[:, :, None]) % side  # (n, C·F, s)
        at = columns[:, :, None, None].expand(-1, -1, 3, side, -1)
        moved = pictures[:, None].expand(-1, clips * frames, -1, -1, -1).gather(4, at)
        return moved.to(torch.uint8).view(n, *self.item_shape)

    def make_backbone(self, name: str, pretrained: bool) -> tuple[nn.Module, int]:
        return make_backbone(name, pretrained, self.frames, self._resolved[0])

    def for_raw_features(self, facts: Sequence[Facts] = ()) -> Self:
        resolved = self.resolved(facts, torch.device("cpu"))
        return resolved.model_copy(update={"side": min(resolved.side or _SMALLEST, 32)})

    def raw_features(self, items: Iterable[Tensor], rng: np.random.Generator) -> Floats:
        return raw_features(items)

    def traits(self, items: Tensor, sizes: Ints) -> dict[str, Floats]:
        """motion: mean change of a pixel from frame to frame, of 255; static: share of the steps in which nothing
        changes. Clips in which nothing moves have no order, so their loss is high and says nothing.
        """
        changes = motion(items).mean((3, 4))  # (n, C, F - 1)
        return {
            "motion": changes.mean((1, 2)).numpy(),
            "static": (changes < _STILL).float().mean((1, 2)).numpy(),
            "brightness": items.flatten(1).float().mean(1).numpy(),
            "file_size": sizes.astype(np.float32),
        }

    @property
    def sketcher(self) -> Sketcher:
        return Storyboard()

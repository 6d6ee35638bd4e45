"""Recordings: bytes to log-mel spectrograms, and all that the rest of the worker asks about them."""

import math
from collections.abc import Iterable, Sequence
from typing import ClassVar, Self

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from service.content.audio import Recording, facts_of
from service.content.contract import Facts, Limits
from worker.arrays import Floats, Ints
from worker.modalities import Batch, Modality, Sketcher
from worker.modalities.audio import foundation as speech
from worker.modalities.audio.backbones import make_backbone
from worker.modalities.audio.features import raw_features
from worker.modalities.audio.sketches import Fingerprint
from worker.modalities.audio.spectrograms import BANDS, levels_of, parts_of, prepared, there
from worker.modalities.audio.views import view

_RATES = (8_000, 16_000, 32_000)
_HIGHEST = {"cpu": 16_000, "cuda": 32_000}
_SHORTEST_S = 0.5
_LONGEST_S = {"cpu": 4.0, "cuda": 8.0}  # of a window
_WINDOWS = {"cpu": 4, "cuda": 8}
_COVERED = 0.95  # of the recordings are heard to their end, if as many windows allow it
_FINE_S, _COARSE_S = 0.01, 0.02  # from frame to frame
_FINE_UP_TO_S = 1.28  # of a window
_MULTIPLE = 8  # of frames, as backbones halve them three times
_UNKNOWN_S = 2.0
_SILENT = 100  # levels, 40 dB, below the loudest frame


class Audio(Modality):
    """Recordings, mixed to one channel. A longer one is heard in `windows` parts of `seconds`, spread from its
    beginning to its end; its loss and embedding are the mean over these. So an hour costs no more than a minute, and no
    part of an hour is left out for coming late, as it would be if the first parts were heard.
    """

    name: ClassVar[str] = "audio"
    packages: ClassVar[tuple[str, ...]] = ("soundfile",)
    dtype: ClassVar[torch.dtype] = torch.uint8
    # With 50, 200 and 2,000 labels of spoken digits, logistic regression is right in 66, 92 and 99 % after 4 epochs of
    # it over 2,000 recordings; after 5 of `masked_spectrogram` in 50, 78 and 96 %, on raw features in 60, 85 and 96 %,
    # untrained in 49, 76 and 95 %.
    default_task: ClassVar[str] = "simclr"
    foundation: ClassVar[speech.SpeechFoundation] = speech.SpeechFoundation()
    items_seen: ClassVar[dict[str, int]] = {"cpu": 24_000, "cuda": 1_000_000}

    rate: int | None = Field(
        None, ge=4_000, le=48_000, description="Samples a second that recordings are brought to."
    )
    seconds: float | None = Field(None, ge=0.1, le=30, description="Length of a window.")
    windows: int | None = Field(None, ge=1, le=64, description="Windows of a recording that are heard.")

    def resolved(self, facts: Sequence[Facts], device: torch.device) -> Self:
        kind = "cpu" if device.type == "cpu" else "cuda"
        lengths = [fact["seconds"] for fact in facts if "seconds" in fact]
        rates = [fact["rate"] for fact in facts if "rate" in fact]
        length = float(np.quantile(lengths, _COVERED)) if lengths else _UNKNOWN_S
        common = float(np.median(rates)) if rates else _HIGHEST["cpu"]
        rate = max((one for one in _RATES if one <= min(common, _HIGHEST[kind])), default=_RATES[0])
        seconds = self.seconds or min(max(math.ceil(10 * length) / 10, _SHORTEST_S), _LONGEST_S[kind])
        windows = self.windows or min(max(math.ceil(length / seconds - 1e-6), 1), _WINDOWS[kind])
        return self.model_copy(update={"rate": self.rate or rate, "seconds": seconds, "windows": windows})

    @property
    def _resolved(self) -> tuple[int, float, int]:
        if self.rate is None or self.seconds is None or self.windows is None:
            raise ValueError("`rate`, `seconds` or `windows` is open: ask `resolved` first")
        return self.rate, self.seconds, self.windows

    @property
    def hop_s(self) -> float:
        """Seconds from frame to frame."""
        return _FINE_S if self._resolved[1] <= _FINE_UP_TO_S else _COARSE_S

    @property
    def item_shape(self) -> tuple[int, ...]:
        _, seconds, windows = self._resolved
        return windows, BANDS, _MULTIPLE * math.ceil(seconds / self.hop_s / _MULTIPLE - 1e-6)

    def decode(self, data: bytes, limits: Limits) -> tuple[Tensor, Facts]:
        with Recording(data) as recording:
            levels = levels_of(recording, *self._resolved, self.hop_s, self.item_shape[2])
            return levels, facts_of(recording)

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
        """Made-up sounds of all lengths: a few bands that rise and fall."""
        windows, bands, length = self.item_shape
        generator = torch.Generator().manual_seed(0)
        coarse = torch.rand((n, windows, bands // 8, max(length // 8, 1)), generator=generator)
        levels = torch.nn.functional.interpolate(coarse, (bands, length), mode="bilinear") * 160 + 40
        noise = torch.rand(levels.shape, generator=generator) * 20
        frames = 1 + (torch.rand((n, 1), generator=generator) * windows * length).long()
        place = torch.arange(windows * length).view(windows, 1, length)
        return (levels + noise).to(torch.uint8) * (place < frames[:, :, None, None])

    def make_backbone(self, name: str, pretrained: bool) -> tuple[nn.Module, int]:
        return make_backbone(name, pretrained, self.item_shape[2])

    def for_foundation(self) -> "Audio":
        return _ForSpeech(rate=speech.RATE, seconds=self.seconds, windows=self.windows)

    def for_raw_features(self, facts: Sequence[Facts] = ()) -> Self:
        return self.resolved(facts, torch.device("cpu"))

    def raw_features(self, items: Iterable[Tensor], rng: np.random.Generator) -> Floats:
        return raw_features(items)

    def traits(self, items: Tensor, sizes: Ints) -> dict[str, Floats]:
        """seconds: that are heard of it; loudness: mean level of its frames; signal_to_noise: from its softest to its
        loudest frames; silence: share of its frames that are 40 dB below the loudest.
        """
        shown = there(items)
        found = np.zeros((4, len(items)), np.float32)
        for row in range(len(items)):
            frames = items[row].float().mean(1)[shown[row]]  # over bands
            if not len(frames):
                continue
            soft, loud = frames.quantile(0.1), frames.quantile(0.9)
            silent = (frames < frames.max() - _SILENT).float().mean()
            found[:, row] = [
                len(frames) * self.hop_s,
                float(frames.mean()),
                float(loud - soft),
                float(silent),
            ]
        names = ("seconds", "loudness", "signal_to_noise", "silence")
        return dict(zip(names, found, strict=True)) | {"file_size": sizes.astype(np.float32)}

    @property
    def sketcher(self) -> Sketcher:
        return Fingerprint()


class _ForSpeech(Audio):
    """The spectrograms that pretrained weights of speech take: 32 bands, a frame every 10 ms. Levels, and frames that
    are not there, are as those of others, so that sketches can be made of them.
    """

    @property
    def item_shape(self) -> tuple[int, ...]:
        _, seconds, windows = self._resolved
        return windows, speech.BANDS, math.ceil(seconds / speech.HOP_S - 1e-6)

    @property
    def hop_s(self) -> float:
        return speech.HOP_S

    def decode(self, data: bytes, limits: Limits) -> tuple[Tensor, Facts]:
        windows, _, length = self.item_shape
        found = torch.zeros(self.item_shape, dtype=torch.uint8)
        with Recording(data) as recording:
            for window, samples in enumerate(parts_of(recording, speech.RATE, self._resolved[1], windows)):
                levels = speech.levels_for_speech(samples, length)
                found[window, :, : levels.shape[1]] = torch.from_numpy(levels)
            return found, facts_of(recording)

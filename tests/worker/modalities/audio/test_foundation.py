"""Pretrained weights of speech: from the extra `[pretrained-speech]`, known by their hash."""

from pathlib import Path

import numpy as np
import pytest
import torch

from service.content.contract import Limits
from service.settings import Settings
from tests.journeys.sounds import recording
from worker.modalities.audio import Audio, foundation
from worker.modalities.audio.foundation import SpeechFoundation, levels_for_speech
from worker.modalities.audio.spectrograms import there
from worker.modalities.foundation import usable
from worker.scoring.foundation_net import FoundationNet

CPU = torch.device("cpu")
LIMITS = Limits(max_pixels=10**6, max_text_bytes=10**6)
AUDIO = Audio(rate=8_000, seconds=0.5, windows=2)
SETTINGS = Settings(pretrained="offline")
needs_extra = pytest.mark.skipif(
    not usable(SpeechFoundation()) or SpeechFoundation().find(SETTINGS).weights is None,
    reason="The extra [pretrained-speech] is not installed.",
)


@pytest.fixture(scope="module")
def net() -> FoundationNet:
    weights = SpeechFoundation().find(SETTINGS).weights
    assert weights is not None
    return FoundationNet.of(weights.data, AUDIO, CPU)


def decoded(net: FoundationNet, *recordings: bytes) -> torch.Tensor:
    return torch.stack([net.modality.decode(data, LIMITS)[0] for data in recordings])


def test_without_the_extra_a_sentence_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(foundation, "_FRONT", ("no_such_package", Path("melspectrogram.onnx")))
    search = SpeechFoundation().find(SETTINGS)

    assert search.weights is None
    assert "The extra [pretrained-speech] is not installed on the worker" in search.tried[0]


def test_another_file_of_that_name_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "some_front").mkdir()
    (tmp_path / "some_front" / "melspectrogram.onnx").write_bytes(b"nothing of the kind")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(foundation, "_FRONT", ("some_front", Path("melspectrogram.onnx")))
    search = SpeechFoundation().find(SETTINGS)

    assert search.weights is None
    assert "The extra [pretrained-speech]: melspectrogram.onnx has the sha256" in search.tried[0]


@needs_extra
def test_frames_end_where_the_sound_does(net: FoundationNet) -> None:
    items = decoded(net, recording("rise", 1, 0.25), recording("rise", 1, 0.75), recording("rise", 1, 9.0))

    assert items.shape == (3, *net.modality.item_shape) == (3, 2, 32, 50)
    assert there(items).sum(2).tolist() == [[25, 0], [50, 25], [50, 50]]


@needs_extra
def test_what_rises_is_near_what_rises(net: FoundationNet) -> None:
    kinds = ["rise", "fall"] * 6
    found = net.embeddings(decoded(net, *(recording(kind, seed) for seed, kind in enumerate(kinds)))).astype(
        np.float32
    )
    found -= found.mean(0)
    alike = found @ found.T / np.outer(*[np.linalg.norm(found, axis=1)] * 2)
    same = np.equal.outer(kinds, kinds)

    assert net.dimensions == 192
    assert alike[same & ~np.eye(12, dtype=bool)].mean() > alike[~same].mean() + 0.5


@needs_extra
def test_an_embedding_does_not_depend_on_its_batch(net: FoundationNet) -> None:
    """Shorter ones, too, and one of a click."""
    items = decoded(net, *(recording("fall", 1, seconds) for seconds in (0.03, 0.4, 3.0)))
    alone = np.concatenate([net.embeddings(one[None]) for one in items])

    assert net.embeddings(items) == pytest.approx(alone, abs=1e-2)


@needs_extra
def test_silence_is_a_level_and_the_sketch_of_a_copy_stays() -> None:
    levels = levels_for_speech(np.zeros(8_000, np.float32), 50)
    assert levels.shape == (32, 50)
    assert (levels == 1).all()
    modality = AUDIO.for_foundation()
    items = torch.stack([modality.decode(recording("rise", seed), LIMITS)[0] for seed in range(8)])
    sketcher = modality.sketcher
    assert sketcher is not None
    changed = sketcher.changed_slightly(items, torch.Generator().manual_seed(0))
    sketches = sketcher.sketch(torch.cat([items, changed]))
    differences = sketcher.differences(sketches, np.arange(8), 8 + np.tile(np.arange(8), (8, 1)))

    assert (differences.argmin(1) == np.arange(8)).all()

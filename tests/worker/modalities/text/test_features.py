"""TF-IDF and its main directions, the same for the same seed."""

import numpy as np
import pytest
import torch

from tests.worker.modalities.text.texts import decoded, texts
from worker.modalities.text import features
from worker.modalities.text.features import raw_features

ITEMS = decoded(texts(300))


def test_shape_length_and_seed() -> None:
    found = raw_features(torch.split(ITEMS, 64), np.random.default_rng(0))

    assert found.shape == (300, 128)
    assert found.dtype == np.float32
    assert np.linalg.norm(found, axis=1) == pytest.approx(1, abs=1e-4)
    again = raw_features(iter(torch.split(ITEMS, 100)), np.random.default_rng(0))
    assert np.array_equal(found, again)


def test_similar_texts_are_near_each_other() -> None:
    topics = ["ball goal team match win", "atom cell gene proof lab"]
    rng = np.random.default_rng(1)
    strings = [" ".join(rng.permutation(topics[row % 2].split())[:4]) for row in range(60)]
    found = raw_features([decoded(strings)], np.random.default_rng(0))
    similar = found @ found.T
    same = np.arange(60)[:, None] % 2 == np.arange(60) % 2

    assert similar[same].min() > similar[~same].max()


def test_directions_of_a_part_serve_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "_FITTED", 200)
    monkeypatch.setattr(features, "_TEXTS_AT_ONCE", 70)

    found = raw_features(torch.split(ITEMS, 64), np.random.default_rng(0))
    assert found.shape == (300, 128)
    assert np.isfinite(found).all()


@pytest.mark.parametrize("strings", [["one"], ["one", "two"], ["one one", "one one"], ["a b c"] * 3])
def test_tiny_pools(strings: list[str]) -> None:
    found = raw_features([decoded(strings)], np.random.default_rng(0))

    assert len(found) == len(strings)
    assert np.isfinite(found).all()


def test_an_empty_pool() -> None:
    assert len(raw_features([], np.random.default_rng(0))) == 0

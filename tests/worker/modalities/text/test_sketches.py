"""MinHash estimates the share of shingles that two texts have in common."""

from itertools import pairwise

import numpy as np
import torch

from tests.worker.modalities.text.texts import decoded, seeded, texts
from worker.modalities.text.sketches import MinHash

SKETCHER = MinHash()


def shingles(text: str) -> set[tuple[str, ...]]:
    words = text.split()
    return {(word,) for word in words} | set(pairwise(words))


def test_differences_are_near_those_of_sets() -> None:
    words = [f"v{number}" for number in range(20)]
    pool = [
        " ".join([*words[:kept], *(f"x{number}" for number in range(20 - kept))]) for kept in range(0, 21, 2)
    ]
    sketches = SKETCHER.sketch(decoded(pool))
    found = SKETCHER.differences(sketches, np.array([10]), np.arange(11)[None])[0]
    own = shingles(pool[10])
    exact = [1 - len(own & shingles(text)) / len(own | shingles(text)) for text in pool]

    assert sketches.shape == (11, 128)
    assert sketches.dtype == np.uint8
    assert np.abs(found - exact).max() < 0.15
    assert np.abs(found - exact).mean() < 0.05
    assert found[10] == 0


def test_sketches_do_not_depend_on_their_batch() -> None:
    items = decoded(texts(70))
    alone = np.concatenate([SKETCHER.sketch(items[row : row + 1]) for row in range(70)])

    assert np.array_equal(SKETCHER.sketch(items), alone)
    assert SKETCHER.sketch(items[:0]).shape == (0, 128)


def test_a_twin_is_found_in_a_pool() -> None:
    items = decoded(texts(400))
    twins = SKETCHER.changed_slightly(items[:40], seeded())
    sketches = SKETCHER.sketch(torch.cat([items, twins]))
    places = SKETCHER.places(sketches)
    asking = np.arange(400, 440)
    distances = ((places[asking, None] - places[None]) ** 2).sum(axis=2)
    near = distances.argsort(axis=1)[:, :6]
    differences = SKETCHER.differences(sketches, asking, near)
    differences[near == asking[:, None]] = 9

    assert np.array_equal(near[np.arange(40), differences.argmin(axis=1)], np.arange(40))
    assert differences.min(axis=1).max() < 0.6
    strangers = SKETCHER.differences(sketches, asking, np.arange(100, 140)[:, None])
    assert strangers.min() > 0.6


def test_slight_changes_are_slight_and_seeded() -> None:
    items = decoded([*texts(8), "word"])
    views = [SKETCHER.changed_slightly(items, seeded(seed)) for seed in (0, 0, 1)]

    assert torch.equal(views[0], views[1])
    assert not torch.equal(views[0], views[2])
    assert views[0].dtype == items.dtype
    assert (views[0] != items)[:8].any(1).all()
    assert torch.equal(views[0][8], items[8])
    assert (views[0] != 0).any(1).all()

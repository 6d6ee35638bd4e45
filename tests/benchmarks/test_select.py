from pathlib import Path

import numpy as np
import pytest

from benchmarks.select import growth, make_pool, open_pool, select, size


def test_selects_from_a_written_pool(tmp_path: Path) -> None:
    make_pool(tmp_path / "pool", 700)
    pool = open_pool(tmp_path / "pool")

    run = select(tmp_path / "pool", "coreset", 30)

    assert pool.embeddings.dtype == np.float16
    assert isinstance(pool.embeddings, np.memmap)
    assert pool.labeled.sum() == 100
    assert pool.probabilities is not None
    np.testing.assert_allclose(pool.probabilities.sum(axis=1), 1, atol=1e-5)
    assert pool.available[run.items].all()
    assert len(np.unique(run.items)) == 30
    assert run.seconds > 0
    assert 0.01 < run.peak_gb < 20


def test_growth_is_the_exponent_between_the_two_largest_pools() -> None:
    seconds = {"coreset_s_10k": 9.0, "coreset_s_100k": 2.0, "coreset_s_1m": 200.0}

    found = growth(dict(seconds), [10_000, 1_000_000, 100_000], ["coreset"])

    assert found == {"coreset_growth": pytest.approx(2)}
    assert growth(dict(seconds), [10_000], ["coreset"]) == {}


def test_sizes_have_short_names() -> None:
    assert [size(items) for items in (10_000, 100_000, 1_000_000)] == ["10k", "100k", "1m"]

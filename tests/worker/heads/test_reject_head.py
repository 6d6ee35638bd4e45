import numpy as np
import pytest

from worker.arrays import Bools, Floats
from worker.heads.reject_head import BARRED_ABOVE, broken_probabilities
from worker.selection.selections import NotFinite


def pool(n: int = 600, junk: int = 60) -> tuple[Floats, Bools]:
    """Three classes, and junk beside them."""
    rng = np.random.default_rng(0)
    centers = rng.normal(size=(4, 16)) * 2
    is_junk = np.arange(n) < junk
    embeddings = centers[np.where(is_junk, 3, rng.integers(3, size=n))] + rng.normal(size=(n, 16))
    return embeddings.astype(np.float32), is_junk


def marked(n: int, rows: slice | range) -> Bools:
    found = np.zeros(n, np.bool_)
    found[rows] = True
    return found


def test_a_few_rejects_tell_the_rest() -> None:
    embeddings, is_junk = pool()

    found = broken_probabilities(
        embeddings, marked(600, range(6)), marked(600, range(100, 200)), np.random.default_rng(0)
    )

    assert found is not None
    barred = found > BARRED_ABOVE
    assert barred[is_junk].mean() > 0.9
    assert barred[~is_junk].mean() < 0.01


@pytest.mark.parametrize(("broken", "labeled"), [(0, 100), (5, 0)])
def test_with_nothing_to_tell_apart_nothing_is_told(broken: int, labeled: int) -> None:
    embeddings, _ = pool()

    assert (
        broken_probabilities(
            embeddings,
            marked(600, range(broken)),
            marked(600, range(100, 100 + labeled)),
            np.random.default_rng(0),
        )
        is None
    )


@pytest.mark.parametrize("rejects", [1, 8])
@pytest.mark.parametrize("labels", [20, 200])
def test_mistaken_rejects_bar_nothing(rejects: int, labels: int) -> None:
    embeddings, _ = pool(junk=0)

    found = broken_probabilities(
        embeddings,
        marked(600, range(rejects)),
        marked(600, range(100, 100 + labels)),
        np.random.default_rng(0),
    )

    assert found is None


def test_a_value_that_is_not_finite_is_named() -> None:
    embeddings, _ = pool()
    embeddings[103, 2] = np.nan

    with pytest.raises(NotFinite, match="row 103"):
        broken_probabilities(
            embeddings, marked(600, range(5)), marked(600, range(100, 200)), np.random.default_rng(0)
        )

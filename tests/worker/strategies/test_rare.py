"""Beyond the contract that all strategies keep to."""

from dataclasses import replace

import numpy as np
import pytest

from tests.worker.pools import make_pool
from worker.errors import JobFailed
from worker.selection.pool_view import PoolView
from worker.strategies import rare
from worker.strategies.rare import Rare

NAMES = ("cat", "dog", "owl")


def truth_of(pool_size: int = 600) -> np.ndarray:
    """The classes that `make_pool` draws."""
    return np.random.default_rng(0).integers(len(NAMES), size=pool_size)


def with_examples(counts: dict[int, int], size: int = 600) -> tuple[PoolView, np.ndarray]:
    """A pool with so many labels of each class, and the truth."""
    truth = truth_of(size)
    pool = make_pool(n=size, labeled=0)
    classes = np.full(size, -1)
    for number, count in counts.items():
        classes[np.flatnonzero(truth == number)[:count]] = number
    return replace(pool, classes=classes, available=classes < 0, class_names=NAMES), truth


def share(strategy: Rare, pool: PoolView, truth: np.ndarray, wanted: int, n: int = 40) -> float:
    picked = strategy.select(pool, n, np.random.default_rng(0)).items
    return float((truth[picked] == wanted).mean())


def test_finds_the_class_it_is_told() -> None:
    pool, truth = with_examples({0: 10, 1: 5, 2: 10})
    for number, name in enumerate(NAMES):
        assert share(Rare.model_validate({"class": name}), pool, truth, number) > 0.9


def test_without_a_class_it_finds_the_one_with_the_fewest_labels() -> None:
    pool, truth = with_examples({0: 12, 1: 3, 2: 10})
    assert share(Rare(), pool, truth, 1) > 0.9
    pool, truth = with_examples({0: 3, 1: 12, 2: 10})
    assert share(Rare(), pool, truth, 0) > 0.9


def test_labels_of_other_classes_turn_it_away() -> None:
    """Items around an example that turned out to be another class are picked less."""
    pool, truth = with_examples({0: 1, 1: 0, 2: 0})
    others = np.flatnonzero((truth != 0) & pool.available)[:60]
    informed = replace(
        pool,
        classes=np.where(np.isin(np.arange(len(truth)), others), truth, pool.classes),
        available=pool.available & ~np.isin(np.arange(len(truth)), others),
    )
    strategy = Rare.model_validate({"class": "cat"})
    assert share(strategy, informed, truth, 0, n=150) > share(strategy, pool, truth, 0, n=150)


def test_before_the_first_example_it_covers() -> None:
    pool, truth = with_examples({0: 30, 1: 30})
    picked = Rare.model_validate({"class": "owl"}).select(pool, 5, np.random.default_rng(0)).items
    assert (truth[picked[:2]] == 2).any()  # what no label covers


def test_half_covers_while_other_classes_have_no_label() -> None:
    pool, truth = with_examples({0: 3, 1: 20})
    rng = np.random.default_rng
    likeliest = Rare.model_validate({"class": "cat"}).select(pool, 20, rng(0)).items.tolist()
    picked = Rare().select(pool, 20, rng(0)).items.tolist()
    assert picked[::2][:5] == likeliest[:5]
    assert len(set(picked)) == 20
    assert (truth[picked] == 2).any()


def test_a_class_that_the_project_does_not_have_is_named() -> None:
    pool, _ = with_examples({0: 3})
    with pytest.raises(JobFailed, match=r"the class 'cot'.*Its classes are: cat, dog, owl"):
        Rare.model_validate({"class": "cot"}).select(pool, 5, np.random.default_rng(0))


def test_of_large_pools_only_what_is_near_is_weighed(monkeypatch: pytest.MonkeyPatch) -> None:
    pool, truth = with_examples({0: 5, 1: 20, 2: 20})
    monkeypatch.setattr(rare, "_NEIGHBOURHOOD", 100)
    monkeypatch.setattr(rare, "_EXAMPLES", 3)
    assert share(Rare.model_validate({"class": "cat"}), pool, truth, 0) > 0.8

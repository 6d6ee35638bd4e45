import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    confusion_matrix,
    f1_score,
    log_loss,
    multilabel_confusion_matrix,
    recall_score,
)

from worker.arrays import Floats, Ints
from worker.evaluation.metrics import (
    mean_average_precision,
    measure,
    measure_several,
    paired_difference,
    rank_correlation,
    told_apart,
    wilson_interval,
)


def _predictions(n: int = 400, n_classes: int = 4) -> tuple[Floats, Ints]:
    rng = np.random.default_rng(0)
    classes = rng.integers(n_classes, size=n)
    logits = rng.normal(size=(n, n_classes)) + 1.5 * (classes[:, None] == np.arange(n_classes))
    probabilities = np.exp(logits)
    return (probabilities / probabilities.sum(axis=1, keepdims=True)).astype(np.float32), classes


def test_agrees_with_scikit_learn() -> None:
    probabilities, classes = _predictions()
    predicted = probabilities.argmax(axis=1)

    exact = probabilities.astype(np.float64)
    exact /= exact.sum(axis=1, keepdims=True)

    found = measure(probabilities, classes)

    assert found.items == 400
    assert found.accuracy == pytest.approx((predicted == classes).mean())
    assert found.macro_f1 == pytest.approx(f1_score(classes, predicted, average="macro"))
    assert found.nll == pytest.approx(log_loss(classes, exact), rel=1e-5)
    assert found.recall == pytest.approx(recall_score(classes, predicted, average=None).tolist())
    assert found.confusion == confusion_matrix(classes, predicted).tolist()


@pytest.mark.parametrize(("n_classes", "rows"), [(200, 200), (201, 0)])
def test_a_confusion_matrix_of_many_classes_would_be_too_large(n_classes: int, rows: int) -> None:
    probabilities, classes = _predictions(n_classes=n_classes)

    found = measure(probabilities, classes)

    assert len(found.confusion) == rows
    assert len(found.recall) == n_classes
    assert found.accuracy == pytest.approx((probabilities.argmax(axis=1) == classes).mean())


def test_a_class_without_items_has_no_recall() -> None:
    probabilities = np.array([[0.9, 0.1, 0], [0.2, 0.8, 0]], np.float32)

    found = measure(probabilities, np.array([0, 0]))

    assert found.recall == [0.5, None, None]
    assert found.macro_f1 == pytest.approx((2 / 3 + 0) / 2)
    assert np.isfinite(found.nll)


def test_a_sure_mistake_costs_a_finite_loss() -> None:
    assert np.isfinite(measure(np.array([[1, 0]], np.float32), np.array([1])).nll)


def test_calibration_error_is_the_gap_between_sureness_and_accuracy() -> None:
    sure = np.full((100, 2), [0.8, 0.2], np.float32)

    assert measure(sure, np.repeat([0, 1], [80, 20])).ece == pytest.approx(0, abs=1e-6)
    assert measure(sure, np.repeat([0, 1], [50, 50])).ece == pytest.approx(0.3, abs=1e-6)


@pytest.mark.parametrize(
    ("right", "n", "low", "high"),
    [(81, 100, 0.7222, 0.8750), (0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (1, 1, 0.2065, 1.0)],
)
def test_wilson_interval_as_published_tables_have_it(right: int, n: int, low: float, high: float) -> None:
    assert wilson_interval(right, n) == pytest.approx((low, high), abs=1e-3)


def test_rank_correlation_agrees_with_scipy_also_where_values_are_equal() -> None:
    rng = np.random.default_rng(0)
    left = rng.integers(8, size=50).astype(np.float32)
    right = (left + rng.normal(size=50) * 4).astype(np.float32)

    found = rank_correlation(left, right)

    assert found is not None
    assert found.rho == pytest.approx(spearmanr(left, right).statistic)
    assert found.items == 50


def test_interval_of_a_rank_correlation_holds_the_true_one() -> None:
    """In at least 90 of 100 samples; for normal pairs Spearman's is 6/π asin(ρ/2)."""
    rng = np.random.default_rng(0)
    true, inside = 6 / np.pi * np.arcsin(0.5 / 2), 0
    for _ in range(100):
        pairs = rng.multivariate_normal([0, 0], [[1, 0.5], [0.5, 1]], 60).astype(np.float32)
        found = rank_correlation(pairs[:, 0], pairs[:, 1])
        assert found is not None
        inside += found.low <= true <= found.high

    assert inside >= 90


@pytest.mark.parametrize("left", [np.arange(9), np.ones(20)], ids=["few", "constant"])
def test_no_rank_correlation_where_it_says_nothing(left: Floats) -> None:
    assert rank_correlation(left.astype(np.float32), np.arange(len(left), dtype=np.float32)) is None


def test_paired_difference_counts_only_items_on_which_the_heads_differ() -> None:
    before = np.arange(100) < 80
    same, low, high = paired_difference(before, before)
    worse, worse_low, worse_high = paired_difference(np.arange(100) < 70, before)

    assert same == 0
    assert worse == pytest.approx(-0.1)
    assert low < 0 < high
    assert worse_low < -0.1 < worse_high < 0


def test_interval_of_a_paired_difference_holds_the_true_one() -> None:
    """The second head is right on 80 %, the first on 76 %, mostly on the same items."""
    rng = np.random.default_rng(0)
    inside = 0
    for _ in range(200):
        before = rng.random(100) < 0.8
        now = np.where(before, rng.random(100) < 0.9, rng.random(100) < 0.2)
        _, low, high = paired_difference(now, before)
        inside += low <= -0.04 <= high

    assert inside >= 180


class TestSeveral:
    """Of items that may have several classes."""

    @staticmethod
    def drawn(n: int = 80, c: int = 5, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng(seed)
        members = (rng.random((n, c)) < 0.3).astype(np.int64)
        told = np.clip(0.3 * members + rng.random((n, c)) * 0.7, 0, 1).round(1)  # with ties
        return told.astype(np.float32), members

    def test_they_are_those_of_scikit_learn(self) -> None:
        told, members = self.drawn()

        found = measure_several(told, members, np.random.default_rng(0))

        for column in range(5):
            expected = average_precision_score(members[:, column], told[:, column])
            assert found.average_precision[column] == pytest.approx(expected)
        predicted = (told >= 0.5).astype(int)
        assert found.mean_average_precision == pytest.approx(average_precision_score(members, told))
        assert found.macro_f1 == pytest.approx(f1_score(members, predicted, average="macro"))
        assert found.recall == pytest.approx(recall_score(members, predicted, average=None).tolist())
        assert found.subset_accuracy == pytest.approx(accuracy_score(members, predicted))
        cells = [
            [one["true_negatives"], one["false_positives"], one["false_negatives"], one["true_positives"]]
            for one in found.confusion_by_class
        ]
        assert cells == multilabel_confusion_matrix(members, predicted).reshape(5, 4).tolist()

    def test_a_class_that_no_item_has_counts_for_nothing(self) -> None:
        told, members = self.drawn()
        members[:, 2] = 0

        found = measure_several(told, members, np.random.default_rng(0))

        assert found.average_precision[2] is None
        assert found.recall[2] is None
        others = [0, 1, 3, 4]
        mean = np.mean([average_precision_score(members[:, one], told[:, one]) for one in others])
        assert found.mean_average_precision == pytest.approx(mean)

    def test_where_no_item_has_any_class(self) -> None:
        told, members = self.drawn()

        found = measure_several(told, 0 * members, np.random.default_rng(0))

        assert (found.mean_average_precision, found.mean_average_precision_low) == (None, None)
        assert found.subset_accuracy < 1

    def test_perfect_on_few_items_is_not_known_to_be_perfect(self) -> None:
        members = np.tile([[1, 0], [0, 1]], (10, 1))

        found = measure_several(members.astype(np.float32), members, np.random.default_rng(0))

        assert found.mean_average_precision == found.macro_f1 == found.subset_accuracy == 1
        assert found.mean_average_precision_low is not None
        assert 0.8 < found.mean_average_precision_low < 0.9

    def test_intervals_cover_what_is_true(self) -> None:
        """The mean average precision of many more items, nine times of ten."""
        told, members = self.drawn(n=20_000, seed=1)
        truth = measure_several(
            told[:5_000], members[:5_000], np.random.default_rng(0)
        ).mean_average_precision
        within = 0
        for part in range(20):
            rows = slice(5_000 + 100 * part, 5_100 + 100 * part)
            _, low, high = mean_average_precision(told[rows], members[rows], np.random.default_rng(part))
            assert low is not None
            assert high is not None
            assert truth is not None
            within += low <= truth <= high
        assert within >= 17

    def test_items_teach_where_some_have_what_others_do_not(self) -> None:
        assert told_apart(np.array([[1, 0], [0, 0]]))
        assert not told_apart(np.array([[1, 0], [1, 0]]))
        assert not told_apart(np.zeros((4, 3), np.int64))
        assert told_apart(np.array([0, 1]))
        assert not told_apart(np.array([1, 1]))

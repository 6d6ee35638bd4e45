import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from worker.arrays import Floats, Ints
from worker.evaluation.metrics import measure
from worker.heads.labeled_view import LabeledView
from worker.heads.linear import LinearHead


def _overlapping(n: int, seed: int) -> tuple[Floats, Ints]:
    """Five classes that overlap, in correlated dimensions of very different size."""
    rng, shape = np.random.default_rng(seed), np.random.default_rng(99)
    centers, mixing = shape.normal(size=(5, 12)), shape.normal(size=(12, 12))
    classes = rng.integers(5, size=n)
    points = (centers[classes] + 1.2 * rng.normal(size=(n, 12))) @ mixing * np.geomspace(0.1, 10, 12)
    return points.astype(np.float32), classes


def _fit(n: int) -> tuple[Floats, Floats, Ints]:
    """Probabilities (n, c) of unseen items by our head and by scikit-learn's best, and the truth."""
    embeddings, classes = _overlapping(n, seed=0)
    unseen, truth = _overlapping(4000, seed=1)
    ours = (
        LinearHead().fit(LabeledView(embeddings, classes, 5), np.random.default_rng(0)).probabilities(unseen)
    )
    mean, scale = embeddings.mean(axis=0), embeddings.std(axis=0)
    theirs = [
        LogisticRegression(C=c, max_iter=2000)
        .fit((embeddings - mean) / scale, classes)
        .predict_proba((unseen - mean) / scale)
        for c in (0.01, 0.1, 1, 10)
    ]
    return ours, min(theirs, key=lambda p: measure(p, truth).nll), truth


@pytest.mark.parametrize("n", [60, 500])
def test_is_as_good_as_logistic_regression_with_the_best_penalty(n: int) -> None:
    """The best of the other is chosen on the very items it is measured on."""
    ours, theirs, truth = _fit(n)

    assert measure(ours, truth).accuracy > measure(theirs, truth).accuracy - 0.03
    assert measure(ours, truth).nll < measure(theirs, truth).nll * 1.1


def test_is_calibrated() -> None:
    ours, _, truth = _fit(500)

    assert measure(ours, truth).ece < 0.05


def test_the_temperature_stays_near_one_while_labels_are_few() -> None:
    embeddings, classes = _overlapping(12, seed=0)

    fitted = LinearHead().fit(LabeledView(embeddings, classes, 5), np.random.default_rng(0))

    assert 0.5 < fitted.arrays()["temperature"] < 2


def test_rows_are_worked_off_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    embeddings, classes = _overlapping(100, seed=0)
    fitted = LinearHead().fit(LabeledView(embeddings, classes, 5), np.random.default_rng(0))
    whole = fitted.probabilities(embeddings)

    monkeypatch.setattr("worker.heads.linear._ROWS", 33)

    np.testing.assert_allclose(fitted.probabilities(embeddings), whole, atol=1e-6)

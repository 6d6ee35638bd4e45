"""The gate: right where the answer is known, silent where labels cannot tell."""

import numpy as np
import pytest

from worker.gate import _PENALTIES, enough, is_due, judge, linear_probe, nearest_neighbours, too_few
from worker.pool_view import Floats, Ints


def clusters(n: int, signal: float, seed: int = 0) -> tuple[Floats, Ints]:
    """Three classes; with a signal of 0 the features know nothing of them."""
    rng = np.random.default_rng(seed)
    classes = np.random.default_rng(9).integers(3, size=n)
    centers = rng.normal(size=(3, 8)) * signal
    return (centers[classes] + rng.normal(size=(n, 8))).astype(np.float32), classes


def test_leave_one_out_is_what_it_says() -> None:
    """The closed form against a plain loop that leaves each item out and solves anew."""
    features, classes = clusters(30, signal=0.7)
    inputs = ((features - features.mean(0)) / features.std(0)).astype(np.float64)
    kernel = inputs @ inputs.T + 1
    targets = np.eye(3)[classes]
    best = 0
    for penalty in _PENALTIES * np.linalg.eigvalsh(kernel).mean():
        right = 0
        for left_out in range(30):
            seen = np.arange(30) != left_out
            inner = kernel[np.ix_(seen, seen)] + penalty * np.eye(29)
            answer = kernel[left_out, seen] @ np.linalg.solve(inner, targets[seen])
            right += int(answer.argmax() == classes[left_out])
        best = max(best, right)

    assert linear_probe(features, classes).sum() == best


def test_probes_know_signal_from_noise() -> None:
    for probe in (linear_probe, nearest_neighbours):
        assert probe(*clusters(200, signal=3)).mean() > 0.9
        assert probe(*clusters(200, signal=0)).mean() < 0.5


@pytest.mark.parametrize(
    ("trained", "untrained", "pixels", "n", "verdict", "better"),
    [
        (3.0, 0.5, 0.5, 200, "go", None),
        (0.3, 2.0, 0.3, 200, "no-go", "untrained"),
        (0.3, 0.0, 2.0, 200, "no-go", None),
        (0.6, 0.8, 0.6, 40, "not enough labels", None),
    ],
)
def test_verdicts(
    trained: float, untrained: float, pixels: float, n: int, verdict: str, better: str | None
) -> None:
    features = [clusters(n, signal, seed)[0] for seed, signal in enumerate((trained, untrained, pixels))]

    gate = judge(features[0], {"untrained": features[1], "pixels": features[2]}, clusters(n, 0)[1], of_pool=n)

    assert (gate.verdict, gate.better) == (verdict, better)
    assert set(gate.linear) == set(gate.knn) == {"trained", "untrained", "pixels"}
    assert f"On {n} labeled items" in gate.reason


def test_few_labels_are_not_enough() -> None:
    assert not enough(np.arange(39) % 2)
    assert not enough(np.zeros(500, np.int64))
    assert not enough(np.empty(0, np.int64))
    assert enough(np.arange(40) % 2)
    assert too_few(12).verdict == "not enough labels"
    assert "there are 12" in too_few(12).reason


def test_it_judges_again_when_labels_have_grown_by_a_quarter() -> None:
    assert [is_due(None, labels) for labels in (39, 40)] == [False, True]
    assert [is_due({"labels": 100}, labels) for labels in (100, 124, 125)] == [False, False, True]


def test_a_single_constant_feature_does_no_harm() -> None:
    classes = np.arange(40) % 2
    constant = np.zeros((40, 1), np.float32)

    assert judge(constant, {"pixels": constant}, classes, 40).verdict in {"go", "not enough labels"}

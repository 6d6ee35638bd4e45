from typing import Any

import numpy as np
import pytest

from service.projects.advice import Curves, on_random_selection, on_stopping

LABELS = np.array([50.0, 100, 150, 200, 250, 300])


def _true(labels: Any, limit: float = 0.85, span: float = 1.5, speed: float = 0.5) -> Any:
    return limit - span * labels**-speed


def _point(labels: float, accuracy: float, error: float = 0.005, measured_on: str = "test") -> dict[str, Any]:
    low, high = accuracy - 1.96 * error, accuracy + 1.96 * error
    return {
        "labels_used": labels,
        "labels": labels,
        "measured_on": measured_on,
        "accuracy": accuracy,
        "accuracy_low": low,
        "accuracy_high": high,
    }


@pytest.mark.parametrize("error", [0.003, 0.02])
@pytest.mark.parametrize(("limit", "span", "speed"), [(0.85, 1.5, 0.5), (0.95, 2, 0.35), (0.8, 8, 0.9)])
def test_intervals_hold_the_truth_in_nine_of_ten_runs(
    limit: float, span: float, speed: float, error: float
) -> None:
    """The gain of 200 more labels, the accuracy far away, and the limit itself."""
    rng, runs = np.random.default_rng(0), 100
    truths = [_true(n, limit, span, speed) for n in (LABELS[-1], LABELS[-1] + 200, 3000.0)]
    inside = np.zeros(3)
    for _ in range(runs):
        measured = _true(LABELS, limit, span, speed) + rng.normal(size=len(LABELS)) * error
        curves = Curves(LABELS, measured, np.full(len(LABELS), error))
        wanted = [truths[1] - truths[0], truths[2], limit]
        found = [curves.gain(200), curves.accuracy(3000), curves.limit()]
        inside += [one.low <= truth <= one.high for one, truth in zip(found, wanted, strict=True)]

    assert (inside >= 0.9 * runs).all(), inside


def test_a_gain_known_well_is_close_to_the_truth() -> None:
    curves = Curves(LABELS, _true(LABELS), np.full(len(LABELS), 0.0005))

    gain = curves.gain(200)

    assert gain.mean == pytest.approx(_true(500) - _true(300), abs=0.002)
    assert gain.high - gain.low < 0.01


def test_stopping_advice_says_gain_and_interval() -> None:
    advice = on_stopping([_point(n, _true(n), 0.002) for n in LABELS], 50)

    assert advice.labels == 200
    assert advice.text.startswith("Another 200 labels are expected to add 2.")
    assert "±" in advice.text
    assert advice.text.endswith("Labeling more pays off.")


def test_a_flat_curve_says_stop() -> None:
    advice = on_stopping([_point(n, 0.8, 0.001) for n in LABELS * 10], 50)

    assert advice.gain is not None
    assert advice.gain.high < 0.005
    assert advice.text.endswith("You can stop here.")


@pytest.mark.parametrize("accuracy", [0.0, 1.0])
def test_nothing_right_and_all_right_are_no_problem(accuracy: float) -> None:
    advice = on_stopping([_point(n, accuracy, 0.0) for n in LABELS], 50)

    assert advice.gain is not None
    assert 0 <= advice.gain.low <= advice.gain.high <= 1


@pytest.mark.parametrize("points", [0, 3])
def test_too_early_is_said(points: int) -> None:
    advice = on_stopping([_point(n, 0.8) for n in LABELS[:points]], 50)

    assert advice.gain is None
    assert advice.text.endswith(f"that takes 4 measured rounds, there are {points}.")


def test_rounds_measured_on_other_items_do_not_count() -> None:
    points = [_point(n, 0.8, measured_on="control") for n in LABELS[:3]] + [
        _point(n, 0.8) for n in LABELS[3:]
    ]

    assert on_stopping(points, 50).gain is None


def test_random_selection_is_carried_on_to_as_many_labels() -> None:
    curve = [_point(n, _true(n), 0.02) for n in (15.0, 30.0, 60.0)]

    found = on_random_selection(curve, 300, 0.81)

    assert found.accuracy is not None
    assert found.accuracy.low < _true(300) < found.accuracy.high
    assert found.accuracy.high - found.accuracy.low > 0.05
    assert "with 300 labels" in found.text
    assert found.text.endswith("yours reached 81 %.")


def test_too_few_control_labels_are_said() -> None:
    found = on_random_selection([], 300, 0.81)

    assert found.accuracy is None
    assert "Not enough control labels" in found.text

import pytest

from service.demo.curves import MeanPoint, Point, label_efficiency, mean_curve


def curve(*points: tuple[int, float]) -> list[MeanPoint]:
    return [MeanPoint(labels, accuracy, 0.0, accuracy, accuracy) for labels, accuracy in points]


RANDOM = curve((50, 0.5), (100, 0.6), (200, 0.7))


def test_mean_curve_averages_round_by_round() -> None:
    (point,) = mean_curve([[Point(50, 0.6, 0.5, 0.7)], [Point(50, 0.8, 0.7, 0.9)]])
    assert point.labels == 50
    assert point.accuracy == pytest.approx(0.7)
    assert point.deviation == pytest.approx(0.2 / 2**0.5)
    assert point.low == pytest.approx(0.6)
    assert point.high == pytest.approx(0.8)


def test_one_seed_has_no_deviation() -> None:
    assert mean_curve([[Point(50, 0.6, 0.5, 0.7)]])[0].deviation == 0.0


@pytest.mark.parametrize(
    ("labels", "accuracy", "expected"),
    [
        (50, 0.7, "4.0"),
        (100, 0.6, "1.0"),
        (50, 0.65, "2.8"),  # half way in ln(labels) between 100 and 200: 141 labels
        (100, 0.8, ">2.0"),  # random never gets there
        (200, 0.4, "<0.2"),  # random was there before it was first measured
    ],
)
def test_label_efficiency(labels: int, accuracy: float, expected: str) -> None:
    assert str(label_efficiency(curve((labels, accuracy))[0], RANDOM)) == expected


def test_a_dip_of_random_does_not_move_the_crossing() -> None:
    dipping = curve((50, 0.5), (100, 0.6), (150, 0.55), (200, 0.7))
    assert label_efficiency(curve((100, 0.6))[0], dipping).value == pytest.approx(1.0)

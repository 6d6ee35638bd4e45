"""What picks gain over random ones: told where it is known, silent where labels cannot tell."""

import numpy as np
import pytest

from worker.arrays import Floats, Ints
from worker.evaluation.picks_gain import PicksGain, picks_gain, share_of_strategy
from worker.heads.labeled_view import LabeledView
from worker.heads.linear import LinearHead


def pool(n: int, seed: int) -> tuple[Floats, Ints]:
    """Four classes, well apart."""
    rng = np.random.default_rng(seed)
    classes = np.random.default_rng(seed).integers(4, size=n)
    centers = np.random.default_rng(9).normal(size=(4, 8)) * 3
    return (centers[classes] + rng.normal(size=(n, 8))).astype(np.float32), classes


def view(n: int, seed: int, classes: int = 4) -> LabeledView:
    """n items of the first so many classes."""
    embeddings, truth = pool(4 * n, seed)
    rows = np.flatnonzero(truth < classes)[:n]
    return LabeledView(embeddings[rows], truth[rows], 4)


def measured(picked: LabeledView, control: LabeledView, on_test: bool = False) -> PicksGain | None:
    return picks_gain(
        LinearHead().fit, picked, control, pool(80, 3) if on_test else None, np.random.default_rng(0)
    )


@pytest.mark.parametrize(("on_test", "labels", "items"), [(False, 40, 60), (True, 60, 80)])
def test_picks_that_leave_out_a_class_teach_less(on_test: bool, labels: int, items: int) -> None:
    found = measured(view(100, 1, classes=3), view(60, 2), on_test)

    assert found is not None
    assert (found.labels, found.items) == (labels, items)
    assert found.low < found.gain < found.high < 0
    assert found.as_likely < 0.05


def test_picks_as_good_as_random_are_not_blamed() -> None:
    found = measured(view(100, 1), view(60, 2))

    assert found is not None
    assert found.low < 0 < found.high
    assert found.as_likely > 0.5


def test_no_head_learns_from_more_labels_than_the_other() -> None:
    found = measured(view(30, 1), view(90, 2))

    assert found is not None
    assert found.labels == 30


@pytest.mark.parametrize(("picked", "control"), [(29, 60), (60, 29)])
def test_few_labels_tell_nothing(picked: int, control: int) -> None:
    assert measured(view(picked, 1), view(control, 2)) is None


def test_labels_of_one_class_tell_nothing() -> None:
    assert measured(view(40, 1, classes=1), view(60, 2)) is None


def gain(low: float, high: float) -> PicksGain:
    return PicksGain((low + high) / 2, low, high, 60, 120)


WORSE, UNCLEAR, BETTER = gain(-0.1, -0.02), gain(-0.08, 0.02), gain(0.01, 0.09)


@pytest.mark.parametrize(
    ("gains", "least", "most"),
    [
        ([], 1, 1),
        ([WORSE], 1, 1),  # one measurement may be chance
        ([WORSE, WORSE], 0, 0),
        ([WORSE, WORSE, BETTER], 0, 0),
        ([WORSE, UNCLEAR], 0.1, 0.5),
        ([UNCLEAR, UNCLEAR], 0.1, 0.5),
        ([BETTER, WORSE], 1, 1),
        ([BETTER, BETTER], 1, 1),
    ],
)
def test_two_measurements_must_agree(gains: list[PicksGain], least: float, most: float) -> None:
    assert least <= share_of_strategy(gains) <= most

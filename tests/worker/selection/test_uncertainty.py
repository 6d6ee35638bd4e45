import numpy as np
import pytest

from worker.selection import uncertainty
from worker.selection.uncertainty import one_minus_margin, top_two


def test_unsureness_is_one_minus_the_margin() -> None:
    probabilities = np.array([[0.2, 0.5, 0.3], [1, 0, 0], [0.4, 0.4, 0.2]], np.float32)

    np.testing.assert_allclose(one_minus_margin(probabilities), [0.8, 0, 1], atol=1e-6)


def test_top_two_are_found_part_by_part(monkeypatch: pytest.MonkeyPatch) -> None:
    probabilities = np.random.default_rng(0).random((100, 7), np.float32)
    monkeypatch.setattr(uncertainty, "_ROWS", 32)

    np.testing.assert_array_equal(np.stack(top_two(probabilities)), np.sort(probabilities)[:, :-3:-1].T)


def test_top_two_of_one_class() -> None:
    first, second = top_two(np.ones((3, 1), np.float32))

    assert first.tolist() == [1, 1, 1]
    assert second.tolist() == [0, 0, 0]

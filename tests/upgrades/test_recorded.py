"""The comparison with recorded answers itself: it lets new fields pass, and nothing else."""

from typing import Any

import pytest

from tests.upgrades.recorded import same_or_more

OLD: dict[str, Any] = {
    "rounds": [{"number": 1, "metrics": {"accuracy": 0.5}}, {"number": 2, "metrics": None}]
}


def changed(**values: Any) -> dict[str, Any]:
    """The first round with other values."""
    return {"rounds": [OLD["rounds"][0] | values, OLD["rounds"][1]]}


def test_new_fields_may_come() -> None:
    same_or_more(OLD, changed(metrics={"accuracy": 0.5, "drift": 1}, colour="red") | {"more": []})


@pytest.mark.parametrize(
    ("new", "sentence"),
    [
        (changed(metrics={"accuracy": 0.6}), r"rounds\[0\].metrics.accuracy: was 0.5, is 0.6"),
        (changed(metrics={}), r"rounds\[0\].metrics.accuracy is missing"),
        (changed(metrics=None), r"rounds\[0\].metrics: was an object, is None"),
        (changed(number=1.0), r"rounds\[0\].number: was 1, is 1.0"),
        ({"rounds": OLD["rounds"][:1]}, "rounds: had 2 elements, has 1"),
        ({"rounds": {}}, "rounds: was a list"),
        ({}, "rounds is missing"),
    ],
)
def test_nothing_else_may_change(new: dict[str, Any], sentence: str) -> None:
    with pytest.raises(AssertionError, match=sentence):
        same_or_more(OLD, new)

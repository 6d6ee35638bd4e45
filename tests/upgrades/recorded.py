"""Fixtures: where they lie, and how an answer of today is compared with one of then."""

import os
from pathlib import Path
from typing import Any

BEFORE = Path(__file__).parent / "before"
WRITING = os.environ.get("SHORTLIST_WRITE_FIXTURES") == "1"
EXACT = os.environ.get("SHORTLIST_TEST_EXACT") == "1"  # on the machine that wrote the fixtures


def same_or_more(old: Any, new: Any, at: str = "") -> None:
    """The new answer says all that the old one said; objects may have fields that they did not have. Lists have the
    same length and order. Raises AssertionError with the place that differs, `rounds[1].metrics.accuracy`."""
    if isinstance(old, dict):
        assert isinstance(new, dict), f"{at}: was an object, is {new!r}"
        for name, value in old.items():
            here = f"{at}.{name}" if at else name
            assert name in new, f"{here} is missing"
            same_or_more(value, new[name], here)
    elif isinstance(old, list):
        assert isinstance(new, list), f"{at}: was a list, is {new!r}"
        assert len(new) == len(old), f"{at}: had {len(old)} elements, has {len(new)}"
        for place, (value, other) in enumerate(zip(old, new, strict=True)):
            same_or_more(value, other, f"{at}[{place}]")
    else:
        assert type(new) is type(old), f"{at}: was {old!r}, is {new!r}"
        assert new == old, f"{at}: was {old!r}, is {new!r}"

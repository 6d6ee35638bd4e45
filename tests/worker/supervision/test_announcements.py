from collections import Counter

import pytest

from service.store.catalogue import HEAD_NEEDS_ITEMS, Announcement
from worker.supervision.announcements import announcements


def test_every_kind_is_announced() -> None:
    kinds = Counter(each.kind for each in announcements())
    assert kinds.keys() == {"strategy", "pretext_task", "head", "backbone"}


@pytest.mark.parametrize("announced", announcements(), ids=lambda each: f"{each.kind}-{each.name}")
def test_help_and_parameters(announced: Announcement) -> None:
    assert announced.help.strip()
    assert announced.parameters["additionalProperties"] is False


def test_heads_that_need_items_say_so_and_train_in_the_long_lane() -> None:
    said = {
        each.name: (each.parameters[HEAD_NEEDS_ITEMS], each.lane)
        for each in announcements()
        if each.kind == "head"
    }
    assert said.pop("finetune") == (True, "long")
    assert set(said.values()) == {(False, None)}

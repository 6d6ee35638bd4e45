"""Sets of classes as one text, and what several of them decide."""

import pytest
import sqlalchemy as sa

from service.store import class_sets
from service.store.class_sets import NOTHING, joined
from service.store.session import read_session


def test_a_set_has_one_text_whatever_its_order() -> None:
    assert joined(["dog", "cat", "dog"]) == joined(("cat", "dog"))
    assert class_sets.classes_in(joined(["dog", "cat"])) == ["cat", "dog"]
    assert joined([]) == NOTHING
    assert class_sets.classes_in(NOTHING) == class_sets.several(NOTHING) == []


def test_a_text_says_whether_it_is_a_set() -> None:
    assert class_sets.is_set(joined(["cat"]))
    assert class_sets.is_set(NOTHING)
    assert not class_sets.is_set("cat")
    assert class_sets.classes_in("cat") == ["cat"]
    assert class_sets.several("cat") is class_sets.several(None) is None
    assert class_sets.alone("cat") == "cat"
    assert class_sets.alone(joined(["cat"])) is None


def test_new_names() -> None:
    became = {"cat": "lion", "puma": "lion"}
    assert class_sets.with_names(joined(["cat", "puma", "dog"]), became) == joined(["dog", "lion"])
    assert class_sets.with_names("cat", became) == "lion"
    assert class_sets.with_names(NOTHING, became) == NOTHING


@pytest.mark.parametrize("name", ["cat", "dog", "a,b", '"quoted"', "%", "_", "Ä"])
def test_the_database_finds_a_class_in_a_set(engine: sa.Engine, name: str) -> None:
    others = ["CAT", "cats", "a", "ä", "dog house"]

    def found(text: str | None) -> bool:
        with read_session(engine) as session:
            column = sa.literal(text, sa.Text)
            return bool(session.scalar(sa.select(sa.true()).where(class_sets.holds(column, name))))

    assert found(joined([name, *others]))
    assert not found(joined(others))
    assert not found(NOTHING)
    assert not found(name)
    assert not found(None)


class TestDecisions:
    """Each class is a question of its own."""

    def test_one_label_is_enough_for_one(self) -> None:
        assert class_sets.decided_by([joined(["cat"])], 1) == joined(["cat"])
        assert class_sets.decided_by([NOTHING], 1) == NOTHING
        assert class_sets.decided_by([], 1) is None

    def test_two_must_agree_on_every_class(self) -> None:
        cat, both = joined(["cat"]), joined(["cat", "dog"])
        assert class_sets.decided_by([both], 2) is None
        assert class_sets.decided_by([both, both], 2) == both
        assert class_sets.decided_by([both, cat], 2) is None
        assert class_sets.decided_by([NOTHING, NOTHING], 2) == NOTHING

    def test_three_answer_each_class_though_no_two_sets_are_equal(self) -> None:
        votes = [joined(["cat", "dog"]), joined(["cat"]), joined(["dog"])]
        assert class_sets.decided_by(votes, 2) == joined(["cat", "dog"])

    def test_of_two_more_the_majority_wins_and_of_equals_the_earliest(self) -> None:
        cat, dog = joined(["cat"]), joined(["dog"])
        assert class_sets.decided_by([cat, dog], 3) is None
        assert class_sets.decided_by([cat, dog, cat, dog], 3) is None
        assert class_sets.decided_by([cat, dog, NOTHING, cat, dog], 3) == NOTHING
        assert class_sets.decided_by([cat, dog, cat, dog], 2) == cat

    @pytest.mark.parametrize(
        "votes", [[["cat"]], [["cat"], ["dog"]], [["cat", "dog"], ["cat"], []], [[], [], []]]
    )
    def test_so_many_agree_on_every_class(self, votes: list[list[str]]) -> None:
        texts = [joined(vote) for vote in votes]
        most = class_sets.most_agreeing(texts)
        assert class_sets.decided_by(texts, most) is not None
        open_at = [n for n in range(most + 1, 9) if class_sets.decided_by(texts, n) is None]
        assert open_at == [n for n in range(most + 1, 9) if len(texts) < n + 2]

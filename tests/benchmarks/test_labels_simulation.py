import numpy as np
import pytest

from benchmarks.labels.simulation import balanced_accuracy, make_strategy, repeats, run
from tests.benchmarks.clusters import make_embedded

# Wall and CPU time differ from run to run.
TIMES = {"selection_s", "selection_cpu_s"}


def test_each_budget_is_a_round_and_accuracy_grows() -> None:
    rows = run("clusters", make_embedded(), "uherding", 0, (5, 10, 60))[0]

    assert [row.budget for row in rows] == [5, 10, 60]
    assert [row.labels for row in rows] == [5, 10, 60]
    assert {(row.pool, row.embeddings, row.strategy, row.seed, row.judge) for row in rows} == {
        ("clusters", "clusters", "uherding", 0, "own")
    }
    assert rows[-1].accuracy > 0.8 > 1 / 3
    assert all(row.selection_s >= 0 for row in rows)


@pytest.mark.parametrize("strategy", ["random", "margin"])
def test_the_same_seed_gives_the_same_rows(strategy: str) -> None:
    def known(seed: int) -> list[dict[str, object]]:
        rows, _ = run("clusters", make_embedded(), strategy, seed, (5, 20))
        return [{name: value for name, value in vars(row).items() if name not in TIMES} for row in rows]

    assert known(1) == known(1)
    assert known(1) != known(2)


def test_junk_costs_budget_and_gets_no_label() -> None:
    pool = make_embedded(items=100, junk=30)

    (row,), _ = run("clusters", pool, "random", 0, (100,))

    assert (row.budget, row.labels, row.junk) == (100, 70, 30)


def test_picks_come_in_the_order_of_the_rounds() -> None:
    pool = make_embedded()

    _, few = run("clusters", pool, "uherding", 0, (5, 10))
    _, more = run("clusters", pool, "uherding", 0, (5, 10, 60))

    assert len(more) == len(np.unique(more)) == 60
    assert few.tolist() == more[:10].tolist()


def test_nothing_but_junk_leaves_a_guess() -> None:
    pool = make_embedded(items=20, junk=20)

    rows, _ = run("clusters", pool, "margin", 0, (5, 10))

    assert [(row.labels, row.accuracy) for row in rows] == [(0, 1 / 3)] * 2


def test_picks_that_follow_a_near_duplicate_are_counted() -> None:
    pool = make_embedded(items=100, copies=40)

    (row,), _ = run("clusters", pool, "random", 0, (100,))

    assert row.duplicates == 40
    assert repeats(np.array([4, 4, 7, 4, 1])) == 2


def test_filters_collapse_near_duplicates_and_bar_junk_once_some_was_seen() -> None:
    pool = make_embedded(items=200, copies=40, junk=60)

    plain, filtered = (
        run("clusters", pool, f"random:filtered={answer}", 0, (40, 80))[0] for answer in ("no", "yes")
    )

    assert plain[1].duplicates > 5 > 0 == filtered[1].duplicates
    assert 0 < filtered[0].junk == filtered[1].junk
    assert plain[1].junk > plain[0].junk


def test_what_the_filters_leave_out_is_labeled_when_nothing_else_is_left() -> None:
    pool = make_embedded(items=100, copies=30, junk=20)

    (row,), _ = run("clusters", pool, "random:filtered=yes", 0, (100,))

    assert (row.labels, row.junk, row.duplicates) == (80, 20, 30)


def test_every_class_weighs_the_same_in_balanced_accuracy() -> None:
    right, classes = np.array([True, True, True, False]), np.array([0, 0, 0, 1])

    assert balanced_accuracy(right, classes) == 0.5


def test_parameters_follow_the_name_of_a_strategy() -> None:
    strategy, filtered = make_strategy("pt4al:rounds=4:filtered=yes")
    assert (strategy.name, strategy.model_dump(), filtered) == ("pt4al", {"rounds": 4}, True)
    assert [make_strategy(name)[1] for name in ("shortlist", "shortlist:filtered=no", "random")] == [
        True,
        False,
        False,
    ]
    with pytest.raises(ValueError, match="no strategy 'luck'"):
        make_strategy("luck")
    with pytest.raises(ValueError, match="rounds"):
        make_strategy("pt4al:rounds=none")
    with pytest.raises(ValueError, match="NAME=VALUE"):
        make_strategy("pt4al:rounds")

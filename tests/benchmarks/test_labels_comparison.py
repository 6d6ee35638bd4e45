import math
from collections.abc import Mapping
from pathlib import Path

import pytest

from benchmarks.labels.comparison import Arm, Mean, Run, area, compare
from benchmarks.labels.figures import figures
from benchmarks.labels.plot import save_plot
from benchmarks.labels.simulation import Row
from benchmarks.labels.summary import summarise
from benchmarks.labels.tables import losses, markdown, print_tables, summary_lines


def make_run(strategy: str, seed: int, curve: Mapping[int, float]) -> Run:
    """By judge `own`: whatever the judge, arms are compared alike."""
    return [
        Row(
            pool="junk",
            embeddings="none",
            strategy=strategy,
            seed=seed,
            judge="own",
            budget=budget,
            labels=budget,
            accuracy=accuracy,
            balanced_accuracy=accuracy / 2,
            junk=budget // 10,
            duplicates=seed,
            selection_s=2.0,
            selection_cpu_s=1.0,
        )
        for budget, accuracy in curve.items()
    ]


def make_arms(*, gain: float = 0.1, balanced: bool = False) -> list[Arm]:
    """Random gains 0.1 with each doubling of the labels; `shortlist` is ahead of it by `gain`."""
    random = {10: 0.4, 20: 0.5, 40: 0.6, 80: 0.7}
    ahead = {10: 0.4 + gain, 20: 0.5 + gain}
    noise = (-0.01, 0.0, 0.01)
    runs: dict[str, list[Run]] = {
        name: [
            make_run(name, seed, {budget: value + noise[seed] for budget, value in curve.items()})
            for seed in range(3)
        ]
        for name, curve in (("random", random), ("shortlist", ahead))
    }
    return compare(runs, (10, 20), balanced)


def test_the_interval_is_students_t_over_seeds() -> None:
    mean = Mean.of([1.0, 2.0, 3.0])

    assert mean.value == 2
    assert mean.high - 2 == pytest.approx(4.302653 / math.sqrt(3), rel=1e-6)
    assert 2 - mean.low == pytest.approx(mean.high - 2)
    assert math.isnan(Mean.of([1.0]).low)


def test_the_area_is_a_mean_over_the_logarithm_of_labels() -> None:
    assert area({10: 0.5, 100: 0.5, 1_000: 0.5}, (10, 100, 1_000)) == pytest.approx(0.5)
    assert area({10: 0.0, 20: 1.0, 40: 1.0}, (10, 20, 40)) == pytest.approx(0.75)
    assert area({10: 0.3, 20: 9.0}, (10,)) == 0.3


def test_a_strategy_is_held_against_randoms_own_longer_curve() -> None:
    shortlist, random = make_arms(gain=0.1)

    assert (shortlist.strategy, random.strategy, shortlist.seeds) == ("shortlist", "random", 3)
    assert shortlist.efficiency[10].value == pytest.approx(2)
    assert shortlist.efficiency[20].value == pytest.approx(2)
    assert random.efficiency[20].value == pytest.approx(1)


def test_differences_are_paired_so_that_what_seeds_share_cancels() -> None:
    shortlist, _ = make_arms(gain=0.1)

    assert shortlist.accuracy[20].high - shortlist.accuracy[20].low > 0.04
    for difference in (shortlist.minus_random[20], shortlist.aulc_minus_random):
        assert difference.value == pytest.approx(0.1)
        assert difference.high - difference.low < 1e-6


def test_long_tailed_pools_are_measured_by_balanced_accuracy() -> None:
    shortlist, _ = make_arms(balanced=True)

    assert shortlist.accuracy[20].value == pytest.approx(0.3)
    assert "balanced accuracy" in markdown({"long-tail": {"own": [shortlist]}}, "make", "a machine")


def test_a_judge_at_few_budgets_has_no_efficiency_since_random_was_not_measured_between_them() -> None:
    runs: dict[str, list[Run]] = {
        name: [make_run(name, seed, {10: value, 20: value}) for seed in range(3)]
        for name, value in (("random", 0.4), ("shortlist", 0.6))
    }

    shortlist, _ = compare(runs, (10, 20), balanced=False)

    assert shortlist.efficiency == {}
    assert shortlist.aulc_minus_random.value == pytest.approx(0.2)
    assert "| `shortlist` | 60.0 | 60.0 | +20.0" in markdown(
        {"junk": {"own": [shortlist]}}, "make", "2 cores"
    )


def test_figures_stand_under_judge_and_pool_and_name_bounds_where_randoms_curve_ends() -> None:
    found = figures({"fashion-mnist": {"own": make_arms(gain=0.4), "hog": make_arms(gain=-0.1)}})

    assert found["label_efficiency_own_fashion_mnist_20"] == 4
    assert found["label_efficiency_at_least"] == "own_fashion_mnist_10, own_fashion_mnist_20"
    assert found["label_efficiency_at_most"] == "hog_fashion_mnist_10"
    assert found["aulc_minus_random_own_fashion_mnist"] == pytest.approx(40)
    assert found["aulc_minus_random_hog_fashion_mnist_high"] == pytest.approx(-10)
    assert found["aulc_minus_random_mean_development"] == pytest.approx(15)
    assert (found["pairs_development"], found["pairs_below_random_development"]) == (2, 1)
    assert "junk_in_1000" not in found


def test_the_summary_counts_the_pairs_that_are_surely_below_random() -> None:
    noisy: dict[str, list[Run]] = {
        name: [make_run(name, seed, {10: value, 20: value}) for seed, value in enumerate(values)]
        for name, values in (("random", (0.4, 0.4, 0.4)), ("shortlist", (0.1, 0.35, 0.6)))
    }
    compared = {
        "junk": {"own": make_arms(gain=0.1), "hog": make_arms(gain=-0.2)},
        "weather": {"own": compare(noisy, (10, 20), balanced=False)},  # below, but not surely
    }

    (everything,) = summarise(compared)

    assert everything.below == ("junk, hog",)
    assert everything.mean == pytest.approx((0.1 - 0.2 - 0.05) / 3)
    assert everything.by_judge == pytest.approx({"own": 0.025, "hog": -0.2})
    assert [one.pairs for one in summarise(compared, "confirmation")] == [1]
    lines = list(summary_lines(compared))
    assert lines[0] == (
        "shortlist, pools for development: -5.00 points above random over 2 pairs of pool and judge; "
        "surely below it in 1: junk, hog."
    )
    assert lines[1].endswith("surely below it in none.")


def test_losses_are_listed() -> None:
    assert list(losses({"junk": {"own": make_arms(gain=0.1)}})) == [
        "Nowhere in this run: at no budget behind random, on no pool behind a peer, by no judge."
    ]
    (behind,) = losses({"junk": {"hog": make_arms(gain=-0.1)}})
    assert behind.startswith("- junk, hog: behind random with 10 (")
    assert "20 (0.5, -10.0 [" in behind


def test_tables_and_plot_show_every_arm_by_every_judge(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    compared = {"junk": {"own": make_arms(), "hog": make_arms(gain=0.2)}, "weather": {"own": make_arms()}}

    print_tables(compared)
    save_plot(compared, tmp_path / "plot.png")
    text = markdown(compared, "make bench", "2 cores")

    printed = capsys.readouterr().out
    assert "junk (development), judge hog" in printed
    assert "weather (confirmation), judge own" in printed
    assert "| `shortlist` | 50.0 (2.0) | 60.0 (2.0) | +10.0 [10.0, 10.0] | 2.0 s |" in text
    assert "| junk | hog | +20.0 [20.0, 20.0] |" in text
    assert "| `random` | 2 | 1 |" in text  # junk and near-duplicates, mean over seeds
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")

import math
from collections.abc import Mapping
from pathlib import Path

import pytest

from benchmarks.labels.comparison import Arm, Mean, Run, area, compare
from benchmarks.labels.figures import figures
from benchmarks.labels.plot import save_plot
from benchmarks.labels.simulation import Row
from benchmarks.labels.tables import losses, markdown, print_tables


def make_run(strategy: str, seed: int, curve: Mapping[int, float]) -> Run:
    return [
        Row(
            pool="junk", embeddings="none", strategy=strategy, seed=seed, budget=budget, labels=budget,
            accuracy=accuracy, balanced_accuracy=accuracy / 2, junk=budget // 10, duplicates=seed,
            selection_s=2.0, selection_cpu_s=1.0,
        )
        for budget, accuracy in curve.items()
    ]  # fmt: skip


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
    assert "balanced accuracy" in markdown({"long-tail": [shortlist]}, (10, 20), "make", "a machine")


def test_figures_name_bounds_where_randoms_curve_ends() -> None:
    found = figures({"fashion-mnist": make_arms(gain=0.4)}, (10, 20))

    assert found["label_efficiency_fashion_mnist_20"] == 4
    assert found["label_efficiency_at_least"] == "fashion_mnist_10, fashion_mnist_20"
    assert found["label_efficiency_at_most"] == ""
    assert found["aulc_minus_random_fashion_mnist"] == pytest.approx(40)
    assert "junk_in_1000" not in found


def test_losses_are_listed() -> None:
    assert list(losses({"junk": make_arms(gain=0.1)}, (10, 20))) == [
        "Nowhere in this run: at no budget behind random, on no pool behind a peer."
    ]
    behind = list(losses({"junk": make_arms(gain=-0.1)}, (10, 20)))
    assert len(behind) == 2
    assert behind[1].startswith("- junk, 20 labels: efficiency 0.5, -10.0 [")


def test_tables_and_plot_show_every_arm(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    compared = {"junk": make_arms()}

    print_tables(compared, (10, 20))
    save_plot(compared, (10, 20), tmp_path / "plot.png")
    text = markdown(compared, (10, 20), "make bench", "2 cores")

    assert "shortlist" in capsys.readouterr().out
    assert "| `shortlist` | 50.0 (2.0) | 60.0 (2.0) | +10.0 [10.0, 10.0] | 2.0 s |" in text
    assert "| `random` | 2 | 1 |" in text  # junk and near-duplicates, mean over seeds
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")

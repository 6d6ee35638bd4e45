"""What the bench of the whole system reports: labels needed, factors paired by seed, pages that say both."""

import math
from pathlib import Path

import pytest

from benchmarks.system.arms import OURS, TODAY, Row
from benchmarks.system.needed import Needed, curves, factor, labels_needed, mean_needed
from benchmarks.system.page import figures, markdown, save_plot


def test_labels_are_interpolated_over_their_logarithm() -> None:
    assert labels_needed({100: 0.7, 400: 0.8}).labels == pytest.approx(200)
    assert labels_needed({100: 0.7, 200: 0.75, 400: 0.74}).labels == pytest.approx(200)
    assert labels_needed({50: 0.6, 100: 0.8, 200: 0.7, 400: 0.9}).labels < 100


def test_curves_that_are_too_short_say_so() -> None:
    assert labels_needed({50: 0.76, 100: 0.8}) == Needed(50, "<")
    assert labels_needed({50: 0.5, 100: 0.6}) == Needed(100, ">")


def test_factors_are_paired_by_seed() -> None:
    """Every seed has its own difficulty; the factor is the same in both."""
    today = {0: {200: 0.7, 400: 0.75}, 1: {50: 0.7, 100: 0.75}}
    ours = {0: {50: 0.7, 100: 0.75}, 1: {10: 0.7, 25: 0.75}}

    mean, bound = factor(today, ours)

    assert bound == ""
    assert [mean.value, mean.low, mean.high] == pytest.approx([4, 4, 4])


def test_a_factor_of_curves_that_are_too_short_is_a_bound() -> None:
    long, below, above = {0: {10: 0.7, 400: 0.75}}, {0: {100: 0.5}}, {0: {100: 0.8}}

    assert factor(long, above)[1] == ">"
    assert factor(long, below)[1] == "<"
    assert factor(below, long)[1] == ">"
    assert factor(below, below)[1] == "?"
    assert mean_needed({0: {100: 0.5}, 1: {100: 0.8}}).bound == "?"


def _rows() -> list[Row]:
    """Of two seeds: ours needs a fourth of the labels."""
    rows = []
    for seed in range(2):
        rows += [Row("today", seed, labels, 0.75 + 0.05 * math.log(labels / 200), 1.0) for labels in TODAY]
        for arm in ("linear", "random", "propagate", "finetune"):
            rows += [Row(arm, seed, labels, 0.75 + 0.05 * math.log(labels / 50), 1.0) for labels in OURS]
    return rows


def test_the_pages_say_what_was_found(tmp_path: Path) -> None:
    found = curves(_rows())

    made = figures(found)
    page = markdown(found, "the command", "the machine", {"today": 12.0})
    save_plot(found, tmp_path / "plot.png")

    assert made["labels_to_75_today"] == pytest.approx(200)
    assert made["labels_to_75_finetune"] == pytest.approx(50)
    assert made["times_fewer_labels_finetune"] == pytest.approx(4)
    assert made["accuracy_today_200"] == pytest.approx(0.75)
    assert "4.0 [4.0, 4.0]" in page
    assert (tmp_path / "plot.png").stat().st_size > 10_000

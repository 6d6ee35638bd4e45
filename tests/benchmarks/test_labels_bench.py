from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from benchmarks.labels.__main__ import main
from benchmarks.labels.bench import Bench, budgets_of_random
from tests.benchmarks.clusters import make_embedded


def test_random_is_measured_on_a_denser_and_longer_grid() -> None:
    budgets = budgets_of_random((10, 50, 100), 20_000)

    assert {5, 7, 10, 14, 20, 28, 50, 100, 400} <= set(budgets)
    assert (min(budgets), max(budgets)) == (5, 400)
    assert list(budgets) == sorted(set(budgets))


def test_random_ends_with_the_pool() -> None:
    assert budgets_of_random((10, 50, 100), 130)[-2:] == (113, 130)


def test_a_second_run_finds_everything_done(tmp_path: Path) -> None:
    path = tmp_path / "clusters.npz"
    arrays = asdict(make_embedded())
    del arrays["key"]
    for name in ("copies", "thumbnails"):
        np.save(tmp_path / f"clusters.{name}.npy", arrays.pop(name))
    np.savez(path, **arrays)

    def compare(strategies: list[str]) -> list[str]:
        bench = Bench(tmp_path / "labels.csv", (5, 20), epochs=1, processes=1)
        compared = bench.run_on({"clusters": path}, strategies, 2)
        return sorted(arm.strategy for arm in compared["clusters"])

    assert compare(["kmeans"]) == ["kmeans", "random"]
    first = (tmp_path / "labels.csv").read_text()
    assert compare(["kmeans", "random"]) == ["kmeans", "random"]
    assert (tmp_path / "labels.csv").read_text() == first  # times differ when anything is run again


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--pools", "imagenet"], "no pool 'imagenet'"),
        (["--strategies", "luck"], "no strategy 'luck'"),
        (["--budgets", "20,10"], "budgets must rise"),
        (["--quick", "--strategies", "margin"], "must be among the strategies"),
    ],
)
def test_a_wrong_option_is_a_sentence(
    arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(arguments)
    assert sentence in capsys.readouterr().err

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from benchmarks.labels import bench, embeddings
from benchmarks.labels.__main__ import main
from benchmarks.labels.bench import Bench, Prepared, budgets_of_random, within
from benchmarks.labels.comparison import Compared
from tests.benchmarks.clusters import make_embedded


def test_random_is_measured_on_a_denser_and_longer_grid() -> None:
    budgets = budgets_of_random((10, 50, 100), 20_000)

    assert {5, 7, 10, 14, 20, 28, 50, 100, 400} <= set(budgets)  # not beyond half of the items
    assert (min(budgets), max(budgets)) == (5, 400)
    assert list(budgets) == sorted(set(budgets))


def test_budgets_end_with_half_of_the_pool() -> None:
    assert budgets_of_random((10, 50, 100), 260)[-2:] == (113, 130)
    assert within((10, 50, 100), 150) == (10, 50)


@pytest.fixture
def prepared(tmp_path: Path) -> Prepared:
    """Clusters; judge hog sees them in other coordinates."""
    path = tmp_path / "clusters.npz"
    pool = make_embedded()
    embeddings.write(path, pool)
    embeddings.write_beside(path, pool.copies, pool.thumbnails)
    everything = np.concatenate([pool.embeddings, pool.test_embeddings])
    np.save(tmp_path / "hog.npy", everything @ np.random.default_rng(0).normal(size=(8, 5)))
    return Prepared(path, {"own": None, "hog": tmp_path / "hog.npy"})


def make_bench(folder: Path) -> Bench:
    return Bench(folder / "labels.csv", (5, 20), epochs=1, processes=1, picks=folder / "picks")


def test_a_second_run_finds_everything_done(tmp_path: Path, prepared: Prepared) -> None:
    def compare(strategies: list[str]) -> list[str]:
        compared = make_bench(tmp_path).run_on({"clusters": prepared}, strategies, 2)
        return sorted(
            f"{arm.strategy} {judge}" for judge, arms in compared["clusters"].items() for arm in arms
        )

    expected = ["kmeans hog", "kmeans own", "random hog", "random own"]
    assert compare(["kmeans"]) == expected
    first = (tmp_path / "labels.csv").read_text()
    assert compare(["kmeans", "random"]) == expected
    assert (tmp_path / "labels.csv").read_text() == first  # times differ when anything is run again


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """In place of processes, which take seconds to start."""
    monkeypatch.setattr(bench, "processes", ThreadPoolExecutor)


@pytest.mark.usefixtures("threads")
def test_a_judge_that_comes_later_judges_the_picks_that_were_made(tmp_path: Path, prepared: Prepared) -> None:
    before = make_bench(tmp_path).run_on({"clusters": prepared._replace(judges={"own": None})}, ["kmeans"], 2)

    after = make_bench(tmp_path).run_on({"clusters": prepared}, ["kmeans"], 2)

    def times(compared: Compared) -> dict[str, float]:
        return {arm.strategy: arm.selection_s for arm in compared["clusters"]["own"]}

    assert times(after) == pytest.approx(
        times(before), abs=1e-5
    )  # rounded on the disk; a new run would differ
    assert {arm.strategy: arm.accuracy[20].value > 0.6 for arm in after["clusters"]["hog"]} == {
        "kmeans": True,
        "random": True,
    }


@pytest.mark.usefixtures("threads")
def test_picks_that_were_lost_are_made_again_and_judged_by_all(tmp_path: Path, prepared: Prepared) -> None:
    make_bench(tmp_path).run_on({"clusters": prepared._replace(judges={"own": None})}, ["kmeans"], 1)
    for path in (tmp_path / "picks").iterdir():
        path.unlink()

    make_bench(tmp_path).run_on({"clusters": prepared}, ["kmeans"], 1)

    assert len(list((tmp_path / "picks").iterdir())) == 2
    assert len(make_bench(tmp_path).records.runs) == 4


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--pools", "imagenet"], "no pool 'imagenet'"),
        (["--strategies", "luck"], "no strategy 'luck'"),
        (["--budgets", "20,10"], "budgets must rise"),
        (["--quick", "--strategies", "margin"], "must be among the strategies"),
        (["--judges", "crowd"], "no judge 'crowd'"),
    ],
)
def test_a_wrong_option_is_a_sentence(
    arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(arguments)
    assert sentence in capsys.readouterr().err

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.labels.records import Records, RunKey
from benchmarks.labels.simulation import Row, run
from tests.benchmarks.clusters import make_embedded


def make_rows(strategy: str = "random", seed: int = 0) -> list[Row]:
    return run("clusters", make_embedded(items=60), strategy, seed, (5, 20))[0]


def test_what_was_put_is_there_for_the_next_process(tmp_path: Path) -> None:
    rows = make_rows()
    Records(tmp_path / "labels.csv").put(rows)

    records = Records(tmp_path / "labels.csv")

    key = RunKey("clusters", "clusters", "random", 0, "own")
    assert records.has(key, (5, 20))
    assert [(row.budget, row.labels) for row in records.runs[key]] == [(5, 5), (20, 20)]
    assert abs(records.runs[key][1].accuracy - rows[1].accuracy) < 1e-6
    assert len((tmp_path / "labels.csv").read_text().splitlines()) == 3


def test_other_seeds_pools_embeddings_and_budgets_are_other_runs(tmp_path: Path) -> None:
    records = Records(tmp_path / "labels.csv")
    records.put(make_rows())

    key = RunKey("clusters", "clusters", "random", 0, "own")
    assert not records.has(key._replace(seed=1), (5, 20))
    assert not records.has(key._replace(pool="other"), (5, 20))
    assert not records.has(key._replace(embeddings="other"), (5, 20))
    assert not records.has(key._replace(judge="hog"), (5, 20))
    assert not records.has(key, (5, 10, 20))
    assert len(records.runs) == 1


def test_a_run_put_again_takes_the_place_of_the_first(tmp_path: Path) -> None:
    records = Records(tmp_path / "labels.csv")
    records.put(make_rows())
    records.put(make_rows())

    assert len((tmp_path / "labels.csv").read_text().splitlines()) == 3


def test_what_judges_say_of_one_run_stands_side_by_side(tmp_path: Path) -> None:
    rows = make_rows()
    records = Records(tmp_path / "labels.csv")
    records.put(rows, [replace(row, judge="hog", accuracy=0.25) for row in rows])
    records.put(make_rows("kmeans"))

    found = Records(tmp_path / "labels.csv").runs

    key = RunKey("clusters", "clusters", "random", 0, "hog")
    assert [row.accuracy for row in found[key]] == [0.25, 0.25]
    assert [row.budget for row in found[key._replace(judge="own")]] == [5, 20]


def test_records_of_another_bench_are_not_mixed_with_these(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("pool,strategy,accuracy\nclusters,random,0.5\n")

    with pytest.raises(ValueError, match="other columns"):
        Records(tmp_path / "labels.csv")


def test_a_strategy_can_be_forgotten(tmp_path: Path) -> None:
    records = Records(tmp_path / "labels.csv")
    records.put(make_rows("random"))
    records.put(make_rows("kmeans"))

    records.forget(["kmeans"])

    assert [key.strategy for key in Records(tmp_path / "labels.csv").runs] == ["random"]

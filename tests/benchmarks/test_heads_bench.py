from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import heads
from benchmarks.heads import Row, markdown, read, run, with_auto, write
from benchmarks.labels import embeddings
from tests.benchmarks.clusters import make_embedded
from worker.heads.auto import CANDIDATES


@pytest.fixture
def rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Row]:
    monkeypatch.setattr(heads, "BUDGETS", (20, 50, 1_000))
    pool = make_embedded(junk=20)
    path = tmp_path / "clusters.npz"
    embeddings.write(path, pool)
    embeddings.write_beside(path, pool.copies, pool.thumbnails)
    return [row for seed in (0, 1) for row in run("fashion-mnist", "trained", path, seed)]


def test_all_candidates_learn_from_the_same_labels(rows: list[Row]) -> None:
    assert [(row.labels, row.head) for row in rows if row.seed == 0] == [
        (labels, name) for labels in (20, 50) for name in CANDIDATES
    ]  # half of the pool at most
    assert all(0.6 < row.accuracy <= 1 for row in rows)  # a third by chance


def test_auto_is_the_candidate_with_the_lowest_loss_and_takes_as_long_as_all(rows: list[Row]) -> None:
    linear, mlp, propagate = (
        replace(row, loss=loss) for row, loss in zip(rows[:3], (0.3, 0.1, 0.2), strict=True)
    )
    (auto,) = with_auto([linear, mlp, propagate])[3:]
    assert (auto.head, auto.accuracy) == ("auto", mlp.accuracy)
    assert auto.seconds == pytest.approx(linear.seconds + mlp.seconds + propagate.seconds)


def test_what_was_run_is_read_again(tmp_path: Path, rows: list[Row]) -> None:
    write(tmp_path / "heads.csv", rows)
    assert [(row.pool, row.seed, row.labels, row.head) for row in read(tmp_path / "heads.csv")] == [
        (row.pool, row.seed, row.labels, row.head) for row in rows
    ]
    assert read(tmp_path / "none.csv") == []


def test_the_table_pairs_by_seed(rows: list[Row]) -> None:
    better = [replace(row, accuracy=0.5 + 0.1 * row.seed + 0.02 * (row.head == "mlp")) for row in rows]
    text = markdown(with_auto(better), "command", "machine")
    row = next(line for line in text.splitlines() if line.startswith("| fashion-mnist | trained | 20"))
    assert row.startswith("| fashion-mnist | trained | 20 | 55.0 | +2.0 ± 0.0 | +0.0 ± 0.0 |")

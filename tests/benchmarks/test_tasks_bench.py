"""The bench of the pretext tasks: it goes on where it was, and its page has every task."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.labels.pools import Missing, Split
from benchmarks.tasks import __main__ as command
from benchmarks.tasks import measure
from benchmarks.tasks.__main__ import main
from benchmarks.tasks.measure import VARIANCE_OUT, tasks
from worker.pretext import pretext_tasks


def _split(n: int, seed: int) -> Split:
    """Class 1 is brighter."""
    rng = np.random.default_rng(seed)
    classes = np.arange(n) % 2
    pixels = rng.integers(0, 120, (n, 3, 12, 12)) + 120 * classes[:, None, None, None]
    return Split(pixels.astype(np.uint8), classes)


def _missing() -> tuple[Split, Split]:
    raise Missing("It is not here.")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(
        command, "_READERS", {"bright": lambda: (_split(60, 0), _split(30, 1)), "gone": _missing}
    )
    monkeypatch.setattr(command, "CACHE", tmp_path)
    return tmp_path


ARGUMENTS = ["--no-write", "--items", "48", "--epochs", "1", "--supervised-epochs", "2", "--threads", "1"]


def test_it_goes_on_where_it_was_and_writes_its_page(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    main([*ARGUMENTS, "--tasks", "denoise"])
    first = (folder / "tasks.csv").read_text()
    measured: list[str] = []
    real = measure.measure

    def recording(*arguments: object) -> measure.Row:
        measured.append(str(arguments[2]))
        return real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(command, "measure", recording)
    main([*ARGUMENTS, "--tasks", "denoise,rotation"])

    assert measured == ["rotation"]
    assert set(first.splitlines()) < set((folder / "tasks.csv").read_text().splitlines())
    page = (folder / "pretext-tasks.md").read_text()
    for name in ("raw pixels", "untrained", "denoise", "rotation"):
        assert f"| {name} |" in page
    assert "1 epochs over 48 unlabeled images, 1 steps of 64" in page
    assert (folder / "pretext-tasks.png").stat().st_size > 10_000

    main([*ARGUMENTS, "--tasks", "denoise", "--supervised-epochs", "3"])
    assert measured == ["rotation", "denoise"], "compared with other losses, it is another row"


def test_brightness_is_told_by_pixels(folder: Path) -> None:
    main([*ARGUMENTS, "--tasks", "denoise"])
    rows = (folder / "tasks.csv").read_text().splitlines()
    columns = rows[0].split(",")
    raw = dict(zip(columns, next(row for row in rows if ",raw pixels," in row).split(","), strict=True))

    assert float(raw["linear"]) > 0.95
    assert float(raw["knn"]) > 0.95


def test_all_tasks_are_measured_but_the_same_sum_only_once() -> None:
    assert tasks().keys() == (pretext_tasks("image").keys() - {"combined"}) | {VARIANCE_OUT}


@pytest.mark.parametrize("arguments", [["--tasks", "luck"], ["--pools", "imagenet"]])
def test_what_is_not_there_is_said(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(arguments)

    assert f"there is no {arguments[1]!r}" in capsys.readouterr().err


def test_without_data_it_ends_with_a_sentence(folder: Path) -> None:
    with pytest.raises(SystemExit, match="None of the pools"):
        main([*ARGUMENTS, "--pools", "gone"])

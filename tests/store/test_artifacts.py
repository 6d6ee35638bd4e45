"""An artifact is written whole or not at all, wherever the store is."""

import os
from pathlib import Path

import pytest

from service.store.artifacts import Artifacts


@pytest.fixture(params=["local", "remote"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Artifacts:
    url = str(tmp_path / "artifacts") if request.param == "local" else f"memory://artifacts/{tmp_path.name}"
    return Artifacts(url, tmp_path / "cache")


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_what_was_written_is_read(store: Artifacts) -> None:
    with store.writing("scores/1/a.bin") as file:
        file.write(b"whole")

    with store.open("scores/1/a.bin") as file:
        assert file.read() == b"whole"
    assert store.local_path("scores/1/a.bin").read_bytes() == b"whole"


def write_half(store: Artifacts, name: str) -> None:
    with store.writing(name) as file:
        file.write(b"half")
        raise RuntimeError


def test_a_failure_leaves_nothing(store: Artifacts, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError):
        write_half(store, "scores/1/a.bin")

    assert not store.exists("scores/1/a.bin")
    assert not files(tmp_path)


def test_nothing_is_shown_before_it_is_whole(store: Artifacts) -> None:
    with store.writing("scores/1/a.bin") as file:
        file.write(b"half")
        file.flush()
        assert not store.exists("scores/1/a.bin")

    assert store.exists("scores/1/a.bin")


def test_what_another_worker_deleted_is_not_kept_either(tmp_path: Path) -> None:
    """A folder that was only just made may be on its way to the store."""
    url, cache = f"memory://artifacts/{tmp_path.name}", tmp_path / "cache"
    here, other = Artifacts(url, cache), Artifacts(url, tmp_path / "other cache")
    for run in "1234":
        with other.writing(f"scores/{run}/a.bin") as file:
            file.write(b"whole")
    for run in "123":
        here.local_path(f"scores/{run}/a.bin")
    for run in "12":
        os.utime(cache / "scores" / run, (0.0, 0.0))
    for run in "13":
        other.delete(f"scores/{run}")

    here.local_path("scores/4/a.bin")

    assert {path.parent.name for path in files(cache)} == {"2", "3", "4"}

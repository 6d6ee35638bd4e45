"""Every engine must keep to this; it holds the moment an engine registers."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from service.errors import ItemNotFetched
from service.settings import Settings
from service.store.artifacts import Artifacts
from tests.worker.engines.works import Private, Squares
from tests.worker.processes import REPOSITORY, alive, descendants, wait_until
from tests.worker.without_database import computed_shards, scoring_of
from worker.engines import Engine, engines
from worker.engines.local import LocalEngine
from worker.engines.processes import ProcessesEngine, ProcessesLost, RaisedElsewhere

SHARDS = [3, 1, 4, 0, 5]
every_engine = pytest.mark.parametrize("engine", [kind() for kind in engines().values()], ids=engines())


def results(engine: Engine, work: Squares, processes: int = 1) -> list[tuple[int, list[int]]]:
    """By shard."""
    with closing(engine.map(work, iter(SHARDS), device="cpu", processes=processes)) as finished:
        return sorted((shard, squares.tolist()) for shard, squares in finished)


def named(folder: Path, kind: str) -> set[int]:
    """The processes that left such a mark."""
    return {int(file.name.rpartition("-")[2]) for file in folder.glob(f"{kind}-*")}


EXPECTED = [(shard, [number * number for number in range(shard)]) for shard in sorted(SHARDS)]


@every_engine
@pytest.mark.parametrize("processes", [1, 2])
def test_each_shard_is_computed_once(engine: Engine, processes: int, tmp_path: Path) -> None:
    assert results(engine, Squares(tmp_path), processes) == EXPECTED

    assert sorted((tmp_path / "computed").read_text().split()) == sorted(map(str, SHARDS))
    assert 1 <= len(named(tmp_path, "opened")) <= processes
    assert named(tmp_path, "closed") == named(tmp_path, "opened")


@every_engine
def test_no_shards(engine: Engine, tmp_path: Path) -> None:
    assert list(engine.map(Squares(tmp_path), [], device="cpu")) == []


@every_engine
@pytest.mark.parametrize(
    ("raises", "expected", "sentence"),
    [
        ((4, "end of file"), EOFError, "ends too soon"),
        ((4, "not fetched"), ItemNotFetched, "a.png"),
        ((4, "private"), (Private, RaisedElsewhere), "two arguments"),
        ((0, "on opening"), ValueError, "does not open"),
    ],
    ids=lambda value: value[1] if isinstance(value, tuple) and isinstance(value[1], str) else "",
)
def test_what_a_shard_raises_is_raised_here(
    engine: Engine,
    raises: tuple[int, str],
    expected: type[Exception] | tuple[type[Exception], ...],
    sentence: str,
    tmp_path: Path,
) -> None:
    with pytest.raises(expected, match=sentence) as raised:
        results(engine, Squares(tmp_path, raises=raises))

    if isinstance(raised.value, ItemNotFetched):
        assert raised.value.fields == {"key": "a.png", "reason": "no route"}
    assert not _started_by_engine()


@every_engine
def test_what_the_shards_raise_is_raised_here(engine: Engine, tmp_path: Path) -> None:
    def shards() -> Iterator[int]:
        yield 2
        raise LookupError("the lease is lost")

    finished = engine.map(Squares(tmp_path), shards(), device="cpu")

    assert next(finished)[0] == 2
    with pytest.raises(LookupError, match="lease"):
        next(finished)
    assert not _started_by_engine()


@every_engine
def test_closing_early_ends_what_runs(engine: Engine, tmp_path: Path) -> None:
    asked: list[int] = []

    def shards() -> Iterator[int]:
        for shard in range(1_000):
            asked.append(shard)
            yield shard

    finished = engine.map(Squares(tmp_path), shards(), device="cpu", processes=2)
    next(finished)
    finished.close()

    assert len(asked) < 10
    assert not any(alive(pid) for pid in named(tmp_path, "opened") - {os.getpid()})
    assert not _started_by_engine()


def test_a_killed_process_repeats_only_its_shard(tmp_path: Path) -> None:
    assert results(ProcessesEngine(), Squares(tmp_path, kills=4, deaths=2), processes=2) == EXPECTED

    repeated = sorted((tmp_path / "computed").read_text().split())
    assert repeated == sorted([*map(str, SHARDS), "4", "4"])
    assert len(named(tmp_path, "died")) == 2
    assert len(named(tmp_path, "opened")) <= 4


def test_a_shard_that_loses_every_process_ends_it(tmp_path: Path) -> None:
    with pytest.raises(ProcessesLost, match=r"lost 3 times, the last time with exit status -9") as raised:
        results(ProcessesEngine(), Squares(tmp_path, kills=4, deaths=9))

    assert raised.value.status >= 500  # the job is tried again
    assert len(named(tmp_path, "died")) == 3
    assert not _started_by_engine()


def test_processes_die_with_the_one_that_started_them(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.worker.engines.works", str(tmp_path)]
    assert subprocess.run(command, cwd=REPOSITORY, timeout=60).returncode == -signal.SIGKILL

    wait_until(lambda: not any(alive(pid) for pid in named(tmp_path, "opened")))
    assert named(tmp_path, "opened")


def _started_by_engine() -> set[int]:
    """What this process started and still lives, less the one that multiprocessing keeps for all."""
    found = set()
    for pid in descendants(os.getpid()):
        command = Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
        if "spawn_main" in command:
            found.add(pid)
    return found


@every_engine
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)  # no engine reaches it
def test_scoring_a_pool_says_the_same_everywhere(
    engine: Engine, tmp_path: Path, settings: Settings, artifacts: Artifacts
) -> None:
    work, shards = scoring_of(settings, artifacts, tmp_path)
    expected = computed_shards(LocalEngine(), replace(work, token=1), shards, artifacts)

    found = computed_shards(engine, replace(work, token=2), shards, artifacts)

    assert found.keys() == expected.keys()
    assert len(found["ids"]) == 15  # one of 16 is no image
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values)

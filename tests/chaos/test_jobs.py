"""150 jobs, three processes that claim, one killed with -9 again and again: every effect happens once."""

import random
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import sqlalchemy as sa

from service.store import jobs
from service.store.session import read_session, write_session
from service.store.tables import Job
from tests.worker.processes import REPOSITORY, wait_until

JOBS, WORKERS, KILLS = 150, 3, 8
LEASE_S = 1.0


@contextmanager
def claimers(url: str) -> Iterator[list[subprocess.Popen[bytes]]]:
    started = [start_claimer(url) for _ in range(WORKERS)]
    try:
        yield started
    finally:
        for process in started:
            process.kill()
            process.wait()


def start_claimer(url: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tests.chaos.claimer", url, str(LEASE_S)]
    return subprocess.Popen(command, cwd=REPOSITORY)


def count(engine: sa.Engine, statement: str) -> int:
    with engine.execution_options(read_only=True).connect() as connection:
        return int(connection.execute(sa.text(statement)).scalar_one())


def at_work(engine: sa.Engine, processes: list[subprocess.Popen[bytes]]) -> list[int]:
    """The places of those that hold a job now: one just started may find none left before it is ready."""
    held = "SELECT count(*) FROM jobs WHERE state = 'running' AND worker = 'claimer {}'"
    return [place for place, process in enumerate(processes) if count(engine, held.format(process.pid))]


def wait_for_effects(engine: sa.Engine, wanted: int) -> None:
    wait_until(lambda: count(engine, "SELECT count(*) FROM effects") >= wanted)


def test_every_effect_happens_once_although_workers_are_killed(engine: sa.Engine) -> None:
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE effects (job_id BIGINT, token INT, worker INT)")
    with write_session(engine) as session:
        for number in range(JOBS):
            serial_key = f"serial {number % 11}" if number % 2 else None
            # Enough attempts that bad luck with the kills parks none.
            jobs.enqueue(session, "effect", {}, serial_key=serial_key, max_attempts=100)

    url = engine.url.render_as_string(hide_password=False)
    dice = random.Random(7)
    with claimers(url) as processes:
        for _ in range(KILLS):
            wait_for_effects(engine, count(engine, "SELECT count(*) FROM effects") + 12)
            wait_until(partial(at_work, engine, processes))
            victim = dice.choice(at_work(engine, processes) or range(WORKERS))
            processes[victim].kill()
            processes[victim].wait()
            processes[victim] = start_claimer(url)
        wait_until(lambda: count(engine, "SELECT count(*) FROM jobs WHERE state <> 'succeeded'") == 0)

    assert count(engine, "SELECT count(*) FROM effects") == JOBS
    assert count(engine, "SELECT count(DISTINCT job_id) FROM effects") == JOBS
    with read_session(engine) as session:
        taken_over = session.scalars(sa.select(sa.func.count()).where(Job.attempts > 1)).one()
    assert taken_over > 0, "no kill hit a running job, so this run proved nothing"

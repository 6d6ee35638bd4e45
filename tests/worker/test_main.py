"""The worker as a process: what it does with jobs, and with its own end."""

import os
import signal
import subprocess
import sys
import time
from typing import Any

import pytest
import sqlalchemy as sa

from service.models import jobs as service_jobs
from service.operations.up import NEEDS_A_PERSON as WHAT_UP_KNOWS
from service.settings import Settings
from service.store import catalogue, jobs
from service.store.session import read_session, write_session
from service.store.tables import Job, Project, Worker
from tests.worker.processes import alive, descendants, environment, wait_until, worker
from worker.main import NEEDS_A_PERSON
from worker.supervision.runner import NICENESS

SHORT_LEASE_S = 3.0


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    """The supervisor reaches the database only through `service.store`, so one kind is enough here."""
    return sqlite_url


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Of one lane, where a test does not say otherwise: each is a process more."""
    return settings.model_copy(update={"lanes": ("short",)})


def with_both_lanes(settings: Settings) -> Settings:
    return settings.model_copy(update={"lanes": ("short", "long")})


def enqueue(engine: sa.Engine, kind: str, payload: dict[str, Any] | None = None, **options: Any) -> int:
    with write_session(engine) as session:
        return jobs.enqueue(session, kind, payload or {}, **options)


def job(engine: sa.Engine, job_id: int) -> Job:
    with read_session(engine) as session:
        return session.get_one(Job, job_id)


def runner_pid(engine: sa.Engine, job_id: int) -> int:
    """Of the runner that works on an `endless` job."""
    wait_until(lambda: job(engine, job_id).message)
    return int(str(job(engine, job_id).message).removeprefix("pid "))


def run_until_idle(settings: Settings) -> None:
    with worker(settings, "--until-idle") as process:
        assert process.wait(150) == 0


def test_until_idle_runs_all_there_is_in_one_warm_runner(engine: sa.Engine, settings: Settings) -> None:
    """Whatever becomes of them: what a person must fix fails at once, what turns out to need more goes back."""
    misbehaving = {"not at all": "succeeded", "needs a person": "failed", "bad source": "failed"}
    ids = {how: enqueue(engine, "misbehave", {"how": how}) for how in misbehaving}
    once = {"unsuited": "queued", "wrongly unsuited": "failed"}
    ids |= {how: enqueue(engine, "misbehave", {"how": how}, max_attempts=1) for how in once}
    last = enqueue(engine, "misbehave", {"how": "not at all"})
    late = enqueue(engine, "echo", {"said": "hello"}, delay_s=0.5)
    publishing = enqueue(engine, "publish", {"name": "published"})
    run_until_idle(settings)

    ended = {how: job(engine, job_id) for how, job_id in ids.items()}
    assert {how: each.state for how, each in ended.items()} == misbehaving | once
    assert job(engine, late).result == {"said": "hello"}
    first, after = ended["not at all"].result, job(engine, last).result
    assert first is not None
    assert after is not None
    assert first["pid"] == after["pid"]

    for how, sentence in (
        ("needs a person", "There are no items. Import some."),
        ("bad source", "'/gone' cannot be read: no such folder."),
    ):
        assert (ended[how].attempts, ended[how].error) == (1, sentence)

    # What goes back to where it came from is a failure: else it would go round and round.
    waiting = ended["unsuited"]
    assert (waiting.attempts, waiting.error) == (0, None)
    assert waiting.needs == ("head:foo", "kind:misbehave")
    assert waiting.message == "This worker knows no head 'foo'."

    published = job(engine, publishing)  # which ended itself, with its output
    assert (published.state, published.result) == ("succeeded", {"name": "published"})
    with read_session(engine) as session:
        assert session.scalars(sa.select(Project.name)).all() == ["published"]


def waits_for(engine: sa.Engine, job_id: int) -> str | None:
    with read_session(engine) as session:
        return service_jobs.waits_for(session, [session.get_one(Job, job_id)]).get(job_id)


def test_an_unknown_kind_waits_for_a_worker_that_knows_it(engine: sa.Engine, settings: Settings) -> None:
    job_id = enqueue(engine, "dance")
    assert "none is alive" in str(waits_for(engine, job_id))
    with worker(settings) as old:
        wait_until(lambda: live_workers(engine))
        assert waits_for(engine, job_id) == ("a worker that has kind:dance; the only live worker does not.")
        after = enqueue(engine, "echo")
        wait_until(lambda: job(engine, after).state == "succeeded")  # it looks for jobs, and leaves this one
        assert (job(engine, job_id).state, job(engine, job_id).token) == ("queued", 0)
        with worker(settings, "--newer"):
            wait_until(lambda: job(engine, job_id).state == "succeeded")
        assert (job(engine, job_id).token, old.poll()) == (1, None)


def test_until_idle_leaves_what_this_worker_cannot_do(engine: sa.Engine, settings: Settings) -> None:
    lacking, longer = enqueue(engine, "dance"), enqueue(engine, "echo", lane="long")
    done = enqueue(engine, "echo")
    run_until_idle(settings)
    assert [job(engine, each).state for each in (lacking, longer, done)] == ["queued", "queued", "succeeded"]


def test_a_job_gives_way_to_one_that_is_waited_for(engine: sa.Engine, settings: Settings) -> None:
    """Not to what this worker cannot do; and it loses no attempt."""
    giving = enqueue(engine, "give_way", priority=-2)
    with worker(settings):
        wait_until(lambda: job(engine, giving).message)
        lacking, first = enqueue(engine, "dance", priority=9), enqueue(engine, "echo")
        wait_until(lambda: job(engine, giving).state == "succeeded")
    assert [job(engine, each).state for each in (lacking, first)] == ["queued", "succeeded"]
    assert (job(engine, giving).token, job(engine, giving).result) == (2, {"attempts": 1})
    ended, begun_again = job(engine, first).finished_at, job(engine, giving).started_at
    assert ended
    assert begun_again
    assert ended <= begun_again


def test_a_job_that_turns_out_to_be_long_changes_the_lane(engine: sa.Engine, settings: Settings) -> None:
    job_id = enqueue(engine, "misbehave", {"how": "too long"})
    run_until_idle(with_both_lanes(settings))
    result = job(engine, job_id).result
    assert result is not None
    assert (result["attempts"], result["lane"]) == (1, "long")


def test_short_jobs_do_not_wait_for_a_long_one(engine: sa.Engine, settings: Settings) -> None:
    longer = enqueue(engine, "endless", lane="long")
    with worker(with_both_lanes(settings)):
        pid = runner_pid(engine, longer)
        quick = enqueue(engine, "echo")  # the first one may meet a runner that is still starting
        wait_until(lambda: job(engine, quick).state == "succeeded")
        seconds = []
        for _ in range(5):
            quick = enqueue(engine, "echo")
            wait_until(lambda: job(engine, quick).finished_at)  # noqa: B023
            seconds.append((job(engine, quick).finished_at or 0.0) - job(engine, quick).created_at)
        assert sorted(seconds)[2] < 1.0
        assert (job(engine, longer).state, runner_pid(engine, longer), alive(pid)) == ("running", pid, True)


@pytest.mark.parametrize(("lane", "other"), [("short", "long"), ("long", "short")])
def test_a_killed_runner_leaves_the_other_lane_alone(
    engine: sa.Engine, settings: Settings, lane: str, other: str
) -> None:
    victim, bystander = enqueue(engine, "once_slow", lane=lane), enqueue(engine, "endless", lane=other)
    with worker(with_both_lanes(settings)) as process:
        pid = runner_pid(engine, bystander)
        os.kill(runner_pid(engine, victim), signal.SIGKILL)
        wait_until(lambda: "ended by SIGKILL" in str(job(engine, victim).error))
        wait_until(lambda: job(engine, victim).state == "succeeded")
        assert job(engine, victim).result == {"attempts": 2}
        after = job(engine, bystander)
        assert (after.state, after.attempts, after.message, alive(pid)) == ("running", 1, f"pid {pid}", True)
        assert process.poll() is None


def test_a_stop_hands_back_the_jobs_of_all_lanes(engine: sa.Engine, settings: Settings) -> None:
    ids = [enqueue(engine, "endless", lane=lane) for lane in ("short", "long")]
    with worker(with_both_lanes(settings)) as process:
        pids = [runner_pid(engine, job_id) for job_id in ids]
        process.terminate()
        assert process.wait(10) == 0
        assert [alive(pid) for pid in pids] == [False, False]
    assert [(job(engine, each).state, job(engine, each).attempts) for each in ids] == [("queued", 0)] * 2


def test_the_long_runner_gives_way_on_a_cpu(engine: sa.Engine, settings: Settings) -> None:
    short, longer = (enqueue(engine, "endless", lane=lane) for lane in ("short", "long"))
    own = os.getpriority(os.PRIO_PROCESS, 0)
    with worker(with_both_lanes(settings)) as process:
        quick, patient = runner_pid(engine, short), runner_pid(engine, longer)
        # Among sessions Linux shares the cores out evenly, however idle their processes are.
        assert os.getsid(quick) == os.getsid(patient) == os.getsid(process.pid)
        assert os.getpriority(os.PRIO_PROCESS, quick) == own
        if hasattr(os, "SCHED_IDLE"):
            assert os.sched_getscheduler(quick) == os.sched_getscheduler(0)
            assert os.sched_getscheduler(patient) == os.SCHED_IDLE
        else:
            assert os.getpriority(os.PRIO_PROCESS, patient) == min(own + NICENESS, 19)


def test_a_worker_serves_only_its_lanes_and_says_which(engine: sa.Engine, settings: Settings) -> None:
    longer = enqueue(engine, "echo", lane="long")
    with worker(settings) as process:
        wait_until(lambda: live_workers(engine))
        assert [each.lanes for each in live_workers(engine)] == [["short"]]
        assert "serves the long lane" in str(waits_for(engine, longer))
        assert len(descendants(process.pid)) == 1
    with worker(with_both_lanes(settings)) as process:
        wait_until(lambda: job(engine, longer).state == "succeeded")
        wait_until(lambda: len(descendants(process.pid)) == 2)


@pytest.mark.parametrize(
    ("how", "error"), [("raise once", "ValueError: last line"), ("die once", "ended by SIGKILL")]
)
def test_other_failures_are_tried_again_in_a_fresh_runner(
    engine: sa.Engine, settings: Settings, monkeypatch: pytest.MonkeyPatch, how: str, error: str
) -> None:
    before = enqueue(engine, "misbehave", {"how": "not at all"}, priority=1)
    job_id = enqueue(engine, "misbehave", {"how": how})
    with worker(settings) as process:
        wait_until(lambda: job(engine, job_id).error)
        assert error in str(job(engine, job_id).error)
        assert job(engine, job_id).state in ("queued", "running")
        wait_until(lambda: job(engine, job_id).state == "succeeded")
        assert process.poll() is None
    first, second = job(engine, before).result, job(engine, job_id).result
    assert first is not None
    assert second is not None
    assert second["attempts"] == 2
    assert second["pid"] != first["pid"]


def test_a_job_longer_than_the_lease_keeps_it(engine: sa.Engine, settings: Settings) -> None:
    short = settings.model_copy(update={"lease_s": 1.0})
    job_id = enqueue(engine, "endless")
    with worker(short):
        pid = runner_pid(engine, job_id)
        first_lease = job(engine, job_id).lease_until or 0.0
        wait_until(lambda: (job(engine, job_id).lease_until or 0.0) > first_lease + 1.5)
        assert (job(engine, job_id).attempts, alive(pid)) == (1, True)
        assert job(engine, job_id).progress == 0.5  # seen while it runs


def test_cancelling_ends_the_computing(engine: sa.Engine, settings: Settings) -> None:
    job_id = enqueue(engine, "endless")
    with worker(settings) as process:
        pid = runner_pid(engine, job_id)
        with write_session(engine) as session:
            jobs.request_cancel(session, job_id)
        wait_until(lambda: job(engine, job_id).state == "cancelled")
        wait_until(lambda: not alive(pid))
        after = enqueue(engine, "echo")
        wait_until(lambda: job(engine, after).state == "succeeded")
        assert process.poll() is None


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_hands_the_job_back_at_once(
    engine: sa.Engine, settings: Settings, number: signal.Signals
) -> None:
    job_id = enqueue(engine, "endless")
    with worker(settings) as process:
        pid = runner_pid(engine, job_id)
        process.send_signal(number)
        assert process.wait(10) == 0
        assert not alive(pid)
    assert (job(engine, job_id).state, job(engine, job_id).attempts) == ("queued", 0)
    with read_session(engine) as session:
        assert session.scalars(sa.select(Worker)).all() == []


def test_an_idle_worker_stops_cleanly(engine: sa.Engine, settings: Settings) -> None:
    with worker(settings) as process:
        wait_until(lambda: live_workers(engine))
        process.terminate()
        assert process.wait(10) == 0


def live_workers(engine: sa.Engine) -> list[Worker]:
    with read_session(engine) as session:
        return list(catalogue.live_workers(session))


def test_takeover_after_kill_9(engine: sa.Engine, settings: Settings) -> None:
    short = settings.model_copy(update={"lease_s": SHORT_LEASE_S})
    job_id = enqueue(engine, "once_slow")
    with worker(short) as first, worker(short):
        pid = runner_pid(engine, job_id)
        wait_until(lambda: len(live_workers(engine)) == 2)
        holder = next(each for each in live_workers(engine) if each.id == job(engine, job_id).worker)
        os.kill(holder.pid, signal.SIGKILL)
        killed_at = time.monotonic()
        wait_until(lambda: not alive(pid))  # the runner goes with its supervisor
        wait_until(lambda: job(engine, job_id).state == "succeeded")
        assert time.monotonic() - killed_at < SHORT_LEASE_S + 5
        assert job(engine, job_id).worker != holder.id
        assert first.args is not None


def test_a_frozen_worker_that_wakes_up_is_fenced_off(engine: sa.Engine, settings: Settings) -> None:
    short = settings.model_copy(update={"lease_s": 1.0})
    job_id = enqueue(engine, "once_slow")
    with worker(short) as frozen:
        pid = runner_pid(engine, job_id)
        os.kill(frozen.pid, signal.SIGSTOP)
        with worker(short):
            wait_until(lambda: job(engine, job_id).state == "succeeded")
        os.kill(frozen.pid, signal.SIGCONT)
        wait_until(lambda: not alive(pid))
        after = enqueue(engine, "echo")
        wait_until(lambda: job(engine, after).state == "succeeded")
        assert frozen.poll() is None
    assert job(engine, job_id).result == {"attempts": 2}


def test_without_a_beat_the_runner_is_killed_within_the_lease(engine: sa.Engine, settings: Settings) -> None:
    """A writer holds SQLite's lock, so beats hang; the runner must not outlive the lease."""
    short = settings.model_copy(update={"lease_s": SHORT_LEASE_S})
    job_id = enqueue(engine, "endless")
    with worker(short):
        pid = runner_pid(engine, job_id)
        with write_session(engine) as session:
            session.execute(sa.text("SELECT 1"))
            blocked_at = time.monotonic()
            wait_until(lambda: not alive(pid))
            assert time.monotonic() - blocked_at < SHORT_LEASE_S
        wait_until(lambda: "No heartbeat" in str(job(engine, job_id).error))


def test_a_worker_refuses_a_database_that_is_not_migrated(settings: Settings) -> None:
    empty = settings.model_copy(update={"database_url": f"sqlite:///{settings.data_dir / 'empty.db'}"})
    found = subprocess.run(
        [sys.executable, "-m", "worker"], env=environment(empty), capture_output=True, text=True, timeout=150
    )
    assert found.returncode == NEEDS_A_PERSON
    assert found.stderr.strip().endswith("Run `shortlist migrate` first.")
    assert "Traceback" not in found.stderr


def test_a_worker_without_torch_says_what_to_install(settings: Settings, sqlite_url: str) -> None:
    hide_torch = (
        "import importlib.util as u, sys; find = u.find_spec;"
        "u.find_spec = lambda name, *rest: None if name == 'torch' else find(name, *rest);"
        "sys.argv = ['worker']; from worker.main import main; main()"
    )
    found = subprocess.run(
        [sys.executable, "-c", hide_torch],
        env=environment(settings),
        capture_output=True,
        text=True,
        timeout=150,
    )
    assert found.returncode == NEEDS_A_PERSON
    assert "pip install 'shortlist[worker]'" in found.stderr
    assert "Traceback" not in found.stderr


def test_up_knows_the_status_of_a_worker_that_needs_a_person() -> None:
    assert WHAT_UP_KNOWS == NEEDS_A_PERSON


def test_the_supervisor_never_imports_torch() -> None:
    seen = "import sys, worker.main; sys.exit('torch' in sys.modules or 'timm' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", seen], timeout=150).returncode == 0


def test_a_device_that_is_not_there_is_one_sentence(engine: sa.Engine, settings: Settings) -> None:
    """With torch, so this is also the start of a real worker."""
    there_is_none = environment(settings) | {"SHORTLIST_DEVICE": "cuda:99"}
    found = subprocess.run(
        [sys.executable, "-m", "worker"], env=there_is_none, capture_output=True, text=True, timeout=120
    )
    assert found.returncode == NEEDS_A_PERSON
    assert "SHORTLIST_DEVICE" in found.stderr
    assert "Traceback" not in found.stderr


def test_a_worker_stops_when_whoever_started_it_is_gone(engine: sa.Engine, settings: Settings) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "worker", "--stop-on-eof"],
        env=environment(settings),
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    wait_until(lambda: live_workers(engine), timeout_s=120)
    _, logged = process.communicate(timeout=150)  # closes its stdin
    assert process.returncode == 0
    assert b"Fatal" not in logged

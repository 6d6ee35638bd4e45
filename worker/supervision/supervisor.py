"""Claims jobs, hands them to warm runners, and keeps their leases while these compute.

A worker serves lanes, each with a runner of its own: a thread a lane claims, hands over and beats. The main thread says
that the worker lives, and stops all lanes when it is asked to or when one of them cannot go on.
"""

import os
import socket
import threading
import time
import uuid
from collections.abc import Callable
from functools import partial
from multiprocessing.connection import wait
from typing import Self, TypeVar

import sqlalchemy as sa
import structlog

from service.errors import ShortlistError
from service.settings import Settings
from service.store import catalogue, jobs, pipeline
from service.store.jobs import Cancelled, ClaimedJob, Lane, LeaseLost
from service.store.session import read_session, write_session
from service.store.tables import Worker
from worker.supervision.runner_process import (
    Elsewhere,
    Ended,
    Message,
    Progress,
    Ready,
    Refused,
    RunnerDied,
    RunnerProcess,
    Start,
)

BEAT_MAX_S = 2.0  # a cancel is seen this soon, however long the lease
PROGRESS_BEAT_S = 0.5  # news from the runner goes to the database at most this often
GIVE_UP_SHARE = 0.7  # of the lease without a beat: the runner is killed before another worker takes over
LAST_WORD_S = 2.0  # a lost lease often is a job that just ended: so long for its `Ended` to arrive
UNREACHABLE_WAIT_S = 1.0
LOOK_S = 1.0  # the main thread has nothing to do more often
STARTS = 3  # of the runner that may fail in a row
PURGE_INTERVAL_S = 3600.0
KEEP_ENDED_JOBS_S = 7 * 86400.0

T = TypeVar("T")
log = structlog.get_logger()


class RunnerDoesNotStart(ShortlistError):
    """The runner process does not start. {reason} What it wrote above says why."""

    code = "runner_does_not_start"


class RunnerRefuses(ShortlistError):
    """The worker cannot run. {reason}."""

    code = "runner_refuses"


class Stopping(Exception):
    """The supervisor was asked to stop."""


class Supervisor:
    def __init__(self, settings: Settings, engine: sa.Engine, jobs_package: str, plug_ins: bool) -> None:
        self._settings, self._engine = settings, engine
        host = socket.gethostname()
        self._worker = Worker(
            id=f"{host}-{os.getpid()}-{uuid.uuid4().hex[:6]}",
            host=host,
            pid=os.getpid(),
            device=settings.device,
            lanes=list(settings.lanes),
            has=[],
        )
        self._wake_reader, self._wake_writer = socket.socketpair()
        self._lanes = [
            _Lane(settings, engine, Start(settings, jobs_package, plug_ins, lane), self._worker.id, self)
            for lane in settings.lanes
        ]
        self._seeing = threading.Lock()  # two lanes at once would insert the worker twice
        self._error: BaseException | None = None
        self._purged_at = float("-inf")

    def stop(self) -> None:
        """From a signal handler or another thread: hand back the jobs and return from `run`."""
        self._wake_writer.send(b"x")

    @property
    def stopping(self) -> socket.socket:
        """Readable from `stop` on: nobody reads it, so that all lanes see it."""
        return self._wake_reader

    def run(self, until_idle: bool = False) -> None:
        """Until `stop`; with `until_idle` also when nothing runs or is queued, not even for later, that this worker
        could do.
        """
        threads = [threading.Thread(target=self._serve, args=(lane,), name=lane.name) for lane in self._lanes]
        for thread in threads:
            thread.start()
        try:
            self._oversee(until_idle)
        finally:
            self.stop()
            for thread in threads:
                thread.join()
            reach(self._forget, otherwise=None)
            self._wake_reader.close()
            self._wake_writer.close()
        if self._error is not None:
            raise self._error

    def _serve(self, lane: "_Lane") -> None:
        try:
            lane.run()
        except Stopping:
            log.info("lane stops", lane=lane.name)
        except BaseException as error:
            self._error = self._error or error  # a lane that is stopped because of it has none of its own
            self.stop()

    def _oversee(self, until_idle: bool) -> None:
        seen_at = time.monotonic()  # the first time when a runner is ready
        look_s = self._settings.poll_s if until_idle else LOOK_S
        while not wait([self.stopping], look_s):
            now = time.monotonic()
            if self._worker.has and now - seen_at >= catalogue.BEAT_S:
                seen_at = now
                self._see()
            if now - self._purged_at >= PURGE_INTERVAL_S:
                self._purged_at = now
                reach(lambda: jobs.purge(self._engine, KEEP_ENDED_JOBS_S), otherwise=0)
            idle = until_idle and all(lane.idle for lane in self._lanes)
            if idle and not reach(self._unfinished, otherwise=True):
                return

    def make_known(self, ready: Ready) -> None:
        """From a lane whose runner is warm: everyone is told what it can do."""
        self._worker.device, self._worker.has = ready.device, sorted(ready.has)
        self._see()
        if ready.catalogue:
            reach(partial(self._announce, ready), otherwise=None)

    def _see(self) -> None:
        def see() -> None:
            with self._seeing, write_session(self._engine) as session:
                catalogue.see_worker(session, self._worker)

        reach(see, otherwise=None)

    def _announce(self, ready: Ready) -> None:
        with write_session(self._engine) as session:
            catalogue.announce(session, ready.catalogue)

    def _forget(self) -> None:
        with write_session(self._engine) as session:
            catalogue.forget_worker(session, self._worker.id)

    def _unfinished(self) -> bool:
        with read_session(self._engine) as session:
            return jobs.unfinished(session, self._settings.lanes, self._worker.has)


def reach(do: Callable[[], T], otherwise: T) -> T:
    """Do it in the database. While that cannot be reached, say so and go on: leases guard the rest."""
    try:
        return do()
    except sa.exc.OperationalError as error:
        log.warning("database not reached", reason=str(error.orig))
        time.sleep(UNREACHABLE_WAIT_S)
        return otherwise


class _Lane:
    """A runner, and the job that it works on. Lives in one thread: the runner ends with the thread that started it."""

    def __init__(
        self, settings: Settings, engine: sa.Engine, start: Start, worker: str, supervisor: Supervisor
    ) -> None:
        self.name: Lane = start.lane
        self.idle = False  # it looked for a job, and there was none
        self._settings, self._engine, self._start = settings, engine, start
        self._worker, self._supervisor = worker, supervisor
        self._has: frozenset[str] = frozenset()
        self._runner: RunnerProcess

    def run(self) -> None:
        """Until the supervisor stops; raises `Stopping` then."""
        self._runner = RunnerProcess(self._start)
        try:
            self._get_ready()
            while True:
                if self._work_once():
                    continue
                self.idle = True
                self._wait(self._settings.poll_s)
        finally:
            self._runner.close()

    def _get_ready(self) -> None:
        """Wait for the runner to be warm; what it has is known then."""
        for start in range(1, STARTS + 1):
            try:
                ready = self._receive(timeout_s=None)
            except RunnerDied as died:
                log.error("runner did not start", reason=str(died))
                if start == STARTS:
                    raise RunnerDoesNotStart(reason=str(died)) from None
                self._replace_runner()
                continue
            if isinstance(ready, Refused):
                raise RunnerRefuses(reason=ready.sentence)
            assert isinstance(ready, Ready)
            self._has = ready.has
            self._supervisor.make_known(ready)
            log.info("worker ready", worker=self._worker, device=ready.device, lane=self.name)
            return

    def _replace_runner(self) -> None:
        self._runner.close()
        self._runner = RunnerProcess(self._start)

    def _work_once(self) -> bool:
        """Claim a job and see it to its end. False when there is none."""
        job = reach(self._claim, otherwise=None)
        if job is None:
            return False
        self.idle = False
        started = time.monotonic()
        job_log = log.bind(job=job.id, kind=job.kind, project=job.project_id, attempt=job.attempts)
        job_log.info("job started")
        outcome = self._run(job)
        job_log.info("job ended", outcome=outcome, seconds=round(time.monotonic() - started, 2))
        return True

    def _run(self, job: ClaimedJob) -> str:
        """Run the job; the outcome, for the log."""
        lease = _Lease(self._engine, job, self._settings.lease_s, self._runner)
        try:
            with lease:
                self._runner.run(job)
                ended = self._attend(lease)
        except Stopping:
            self._runner.kill()
            self._close_job(lambda: jobs.release(self._engine, job))
            raise
        except Cancelled:
            self._close_job(lambda: jobs.mark_cancelled(self._engine, job))
            self._restart_runner()
            return "cancelled"
        except LeaseLost:
            self._restart_runner()
            return "lease lost"
        except RunnerDied as died:
            sentence = lease.silence() if lease.gave_up else str(died)
            ended = Ended(error=sentence, broken=True)
        if ended.elsewhere is not None and self._may_fit(job, ended.elsewhere):
            elsewhere, reason = ended.elsewhere, str(ended.error)
            self._close_job(
                lambda: pipeline.hand_back(self._engine, job, elsewhere.missing, elsewhere.lane, reason)
            )
            return f"handed back. {reason}"
        if ended.gave_way:
            self._close_job(lambda: jobs.release(self._engine, job))
            return "gave way"
        if ended.error is not None:
            error, retry = ended.error, ended.retry
            self._close_job(lambda: jobs.fail(self._engine, job, error, retry))
        if ended.broken:
            self._restart_runner()
        return "lease lost" if ended.lease_lost else ended.error or "succeeded"

    def _may_fit(self, job: ClaimedJob, elsewhere: Elsewhere) -> bool:
        """Otherwise this very lane would get it again at once."""
        return elsewhere.lane not in (None, self.name) or not self._has.issuperset(elsewhere.missing)

    def _attend(self, lease: "_Lease") -> Ended:
        """Beat until the runner says how the job ended."""
        while True:
            message = self._receive(lease.seconds_to_beat())
            if isinstance(message, Ended):
                return message
            if isinstance(message, Progress):
                lease.news = message
            try:
                reach(lease.beat_if_due, otherwise=None)
            except LeaseLost:
                last_word = self._runner.receive(LAST_WORD_S)
                while isinstance(last_word, Progress):
                    last_word = self._runner.receive(LAST_WORD_S)
                if isinstance(last_word, Ended):
                    return last_word
                raise

    def _restart_runner(self) -> None:
        self._replace_runner()
        self._get_ready()

    def _receive(self, timeout_s: float | None) -> Message | None:
        """The runner's next message; None after the timeout. Raises `RunnerDied`, `Stopping`."""
        give_up_at = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            left_s = catalogue.BEAT_S if give_up_at is None else max(0.0, give_up_at - time.monotonic())
            ready = wait([self._runner.fileno(), self._supervisor.stopping], left_s)
            if self._supervisor.stopping in ready:
                raise Stopping
            if ready:
                return self._runner.receive(0.0)
            if give_up_at is not None:
                return None

    def _wait(self, seconds: float) -> None:
        """For work to arrive. A runner that dies meanwhile is replaced."""
        try:
            self._receive(seconds)
        except RunnerDied as died:
            log.error("runner died", reason=str(died))
            self._restart_runner()

    def _close_job(self, do: Callable[[], None]) -> None:
        try:
            reach(do, otherwise=None)
        except LeaseLost:
            log.info("job had ended or was taken over")

    def _claim(self) -> ClaimedJob | None:
        return jobs.claim(self._engine, self._worker, (self.name,), self._settings.lease_s, self._has)


class _Lease:
    """The lease of a running job. A thread kills the runner when no beat got through for too long: it can do
    so also while a beat hangs in the database."""

    def __init__(self, engine: sa.Engine, job: ClaimedJob, lease_s: float, runner: RunnerProcess) -> None:
        self._engine, self._job, self._lease_s, self._runner = engine, job, lease_s, runner
        self._patience_s = GIVE_UP_SHARE * lease_s
        self._beat_every_s = min(lease_s / 5, BEAT_MAX_S)
        self._beaten_at = time.monotonic()
        self._ended = threading.Event()
        self._guard = threading.Thread(target=self._watch, daemon=True)
        self.news: Progress | None = None
        self.gave_up = False

    def __enter__(self) -> Self:
        self._guard.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._guard.join()

    def seconds_to_beat(self) -> float:
        every_s = min(PROGRESS_BEAT_S, self._beat_every_s) if self.news else self._beat_every_s
        return max(0.0, self._beaten_at + every_s - time.monotonic())

    def beat_if_due(self) -> None:
        """Raises `LeaseLost`, `Cancelled`."""
        if self.seconds_to_beat() > 0:
            return
        now = time.monotonic()  # before the call: the new lease may count from there
        news, self.news = self.news, None
        progress, message = (news.fraction, news.message) if news else (None, None)
        jobs.heartbeat(self._engine, self._job, self._lease_s, progress, message)
        self._beaten_at = now

    def silence(self) -> str:
        return f"No heartbeat reached the database for {self._patience_s:.0f} s, so the job was stopped."

    def _watch(self) -> None:
        while not self._ended.wait(self._patience_s / 20):
            if time.monotonic() - self._beaten_at > self._patience_s:
                self.gave_up = True
                self._runner.kill()
                return

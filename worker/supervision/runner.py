"""The runner: a child of the supervisor that runs job after job, with torch imported once.

It holds no lease. It ends when its supervisor does, also when that is killed with -9.
"""

import importlib
import importlib.util
import os
import pkgutil
import queue
import sys
import threading
import time
from multiprocessing.connection import Connection

import sqlalchemy as sa
import structlog

from service.errors import ShortlistError
from service.logs import configure_logs
from service.store import jobs
from service.store.artifacts import Artifacts
from service.store.jobs import ClaimedJob
from service.store.session import make_engine
from worker.die_with_parent import die_with_parent
from worker.errors import GivesWay, JobFailed, Unsuited
from worker.jobs.context import JobContext
from worker.supervision.runner_process import Elsewhere, Ended, Progress, Ready, Refused, Start

REPORT_INTERVAL_S = 0.2
NICENESS = (
    10  # of the long lane on a CPU, where the system knows no idle scheduling, or a container forbids it
)

log = structlog.get_logger()


class Runner:
    def __init__(self, pipe: Connection, start: Start, has: frozenset[str]) -> None:
        self._pipe, self._has = pipe, has
        self._settings = start.settings
        self._jobs_package = start.jobs_package
        self._engine: sa.Engine = make_engine(start.settings.database)
        self._artifacts = Artifacts(start.settings.artifacts, start.settings.data_dir / "cache")
        self._reported_at = 0.0

    def run(self, job: ClaimedJob) -> Ended:
        """Run the job to its end; what it raises becomes the answer."""
        context = JobContext(
            job=job,
            settings=self._settings,
            engine=self._engine,
            artifacts=self._artifacts,
            report=self._report,
            has=self._has,
        )
        name = f"{self._jobs_package}.{job.kind}"
        if importlib.util.find_spec(name) is None:
            sentence = f"This worker knows no jobs of kind {job.kind!r}. Bring it to the service's version."
            return Ended(error=sentence, elsewhere=Elsewhere((f"kind:{job.kind}",), None))
        try:
            result = importlib.import_module(name).run(context)
            if not context.finished:
                with context.finish(result):
                    pass
        except jobs.LeaseLost:
            return Ended(lease_lost=True)
        except GivesWay:
            return Ended(gave_way=True)
        except Unsuited as error:
            return Ended(error=str(error), elsewhere=Elsewhere(error.missing, error.lane))
        except JobFailed as error:
            return Ended(error=str(error), retry=False)
        except ShortlistError as error:
            return Ended(error=str(error), retry=error.status >= 500)
        except Exception as error:
            log.exception("job raised", job=job.id, kind=job.kind)
            last_line = (str(error).strip().splitlines() or ["no message"])[-1]
            return Ended(error=f"{type(error).__name__}: {last_line}", broken=True)
        return Ended()

    def _report(self, fraction: float, message: str) -> None:
        now = time.monotonic()
        if now - self._reported_at >= REPORT_INTERVAL_S:
            self._reported_at = now
            self._pipe.send(Progress(float(fraction), message))


def main() -> None:
    pipe, supervisor_pid = Connection(int(sys.argv[1])), int(sys.argv[2])
    die_with_parent(supervisor_pid)  # the pipe's end says it too, but not to code that hogs the GIL
    start: Start = pipe.recv()
    configure_logs(start.settings)
    inbox: queue.Queue[ClaimedJob] = queue.Queue()
    threading.Thread(target=_read, args=(pipe, inbox), daemon=True).start()

    answer = _warm_up(start)
    pipe.send(answer)
    runner = Runner(pipe, start, answer.has if isinstance(answer, Ready) else frozenset())
    while True:
        pipe.send(runner.run(inbox.get()))


def _read(pipe: Connection, inbox: "queue.Queue[ClaimedJob]") -> None:
    while True:
        try:
            inbox.put(pipe.recv())
        except (EOFError, OSError):
            os._exit(1)


def _warm_up(start: Start) -> Ready | Refused:
    """Import what the jobs will need, so that none of them waits for it."""
    has = _kinds(start.jobs_package)
    if not start.plug_ins:
        _give_way(start, on_cpu=True)
        return Ready(device=start.settings.device, catalogue=(), has=frozenset(has))
    from worker.device import choose_devices, use_threads
    from worker.supervision.announcements import announcements, had

    use_threads(start.settings.threads)
    try:
        device = choose_devices(start.settings.device, start.settings.devices)[0]
    except ValueError as error:
        return Refused(f"SHORTLIST_DEVICE: {error}")
    _give_way(start, on_cpu=device.type == "cpu")
    catalogue = announcements()
    has |= had(catalogue)
    if device.type == "cuda":
        has.add("gpu")
    return Ready(device=str(device), catalogue=catalogue, has=frozenset(has))


def _kinds(package: str) -> set[str]:
    """The modules that have a `run` are kinds of jobs."""
    kinds = set()
    for module in pkgutil.iter_modules(importlib.import_module(package).__path__):
        if hasattr(importlib.import_module(f"{package}.{module.name}"), "run"):
            kinds.add(f"kind:{module.name}")
    return kinds


def _give_way(start: Start, on_cpu: bool) -> None:
    """The long lane takes what the short one leaves of a CPU; the processes that train together inherit it.

    A nice process is preempted by one that wakes up only at the end of its slice (Linux from 6.6 on), some 3 ms, and a
    ranking has hundreds of places where its threads wait for each other. An idle one is preempted at once.
    """
    if start.lane == "long" and on_cpu and not _become_idle():
        os.nice(NICENESS)


def _become_idle() -> bool:
    if not hasattr(os, "SCHED_IDLE"):
        return False
    try:
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    except OSError:
        return False
    return True


if __name__ == "__main__":
    main()

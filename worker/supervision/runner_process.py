"""The supervisor's hold on its runner: the child process that imports torch once and runs job after job.

What goes over the pipe: a `Start`, then `ClaimedJob`s one at a time; back come a `Ready` (or
`Refused`), then for each job `Progress` and one `Ended`.
"""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass

from service.settings import Settings
from service.store.catalogue import Announcement
from service.store.jobs import ClaimedJob, Lane


@dataclass(frozen=True)
class Start:
    settings: Settings
    jobs_package: str  # where `<kind>.run` is found
    plug_ins: bool  # import torch and every plug-in, and describe them
    lane: Lane  # of the jobs it will be given


@dataclass(frozen=True)
class Ready:
    device: str
    catalogue: tuple[Announcement, ...]
    has: frozenset[str]  # of what jobs may need (`service.store.pipeline`)


@dataclass(frozen=True)
class Refused:
    """The runner cannot work with these settings; the sentence says what to change."""

    sentence: str


@dataclass(frozen=True)
class Progress:
    fraction: float
    message: str


@dataclass(frozen=True)
class Elsewhere:
    """The job is for another worker, one that has what is missing here, or for another lane."""

    missing: tuple[str, ...]
    lane: Lane | None


@dataclass(frozen=True)
class Ended:
    error: str | None = None
    retry: bool = True
    lease_lost: bool = False
    elsewhere: Elsewhere | None = None  # nothing failed; `error` says why it goes there
    gave_way: bool = False  # to a job that is waited for; nothing failed
    broken: bool = False  # failed in a way that may have left the process in a bad state


Message = Ready | Refused | Progress | Ended


class RunnerDied(Exception):
    """The sentence names the signal or the exit status."""


class RunnerProcess:
    def __init__(self, start: Start) -> None:
        self._killing = threading.Lock()
        self._pipe, theirs = multiprocessing.Pipe()
        with theirs:
            # A group of its own: Ctrl-C reaches the supervisor only, a kill takes along what it started. Not a session:
            # Linux shares the cores out among sessions first (autogroup), so an idle lane would take half of them.
            self._process = subprocess.Popen(
                [sys.executable, "-m", "worker.supervision.runner", str(theirs.fileno()), str(os.getpid())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                process_group=0,
            )
        self._send(start)

    def fileno(self) -> int:
        """Readable when a message waits or the runner died."""
        return self._pipe.fileno()

    def run(self, job: ClaimedJob) -> None:
        """Raises `RunnerDied`."""
        self._send(job)

    def _send(self, message: Start | ClaimedJob) -> None:
        try:
            self._pipe.send(message)
        except OSError:
            raise self._died() from None

    def receive(self, timeout_s: float) -> Message | None:
        """The next message, None when there is none in time. Raises `RunnerDied`."""
        try:
            if not self._pipe.poll(timeout_s):
                return None
            message: Message = self._pipe.recv()
        except (EOFError, OSError):
            raise self._died() from None
        return message

    def _died(self) -> RunnerDied:
        self.kill()  # it may live on with its pipe closed
        status = self._process.returncode
        if status >= 0:
            return RunnerDied(f"The runner process ended by itself with status {status}.")
        hint = " The system may have run out of memory." if status == -signal.SIGKILL else ""
        return RunnerDied(f"The runner process was ended by {signal.Signals(-status).name}.{hint}")

    def kill(self) -> None:
        """At once, with everything it started. Safe to call from another thread, and twice."""
        with self._killing:
            if self._process.returncode is None:  # not waited for yet, so the number is still its own
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()

    def close(self) -> None:
        self.kill()
        self._pipe.close()

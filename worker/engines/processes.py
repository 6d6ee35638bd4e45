"""Shards in processes of their own: one that is killed costs the shard it was computing, not the job."""

import pickle
import sys
import traceback
from collections import deque
from collections.abc import Generator, Iterable
from contextlib import closing, suppress
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from os import getpid
from typing import Any, ClassVar, Generic

import structlog
import torch

from service.errors import ShortlistError
from service.logs import configure_logs
from service.settings import Settings
from worker.device import choose_devices, use_threads
from worker.die_with_parent import die_with_parent
from worker.engines import Engine, R, S, Work

_TRIES = 3  # of a shard whose process is lost each time
_STOP_S = 10.0  # for a process that has nothing more to do

log = structlog.get_logger()


class ProcessesLost(ShortlistError):
    """The process that computed a shard was lost {tries} times, the last time with exit status {status}. The device
    or the machine may have too little memory for it: set SHORTLIST_SHARD_SIZE lower."""

    code = "processes_lost"


class RaisedElsewhere(ShortlistError):
    """A process that computed a shard raised {sentence}."""

    code = "raised_elsewhere"


@dataclass(frozen=True)
class _Opened:
    """The process waits for its first shard."""


@dataclass(frozen=True)
class _Computed:
    result: Any


@dataclass(frozen=True)
class _Raised:
    error: Exception


@dataclass
class _Task(Generic[S]):
    shard: S
    losses: int = 0


class _Process(Generic[S]):
    """One process, and the task that is its own until the result is there."""

    def __init__(self, work: Work[S, Any, Any], device: torch.device, threads: int, task: _Task[S]) -> None:
        self.device, self.task = device, task
        context = get_context("spawn")  # CUDA does not survive a fork
        self.connection, theirs = context.Pipe()
        with theirs:
            arguments = (theirs, getpid(), work, str(device), threads)
            self._process = context.Process(target=_serve, args=arguments, name="engine", daemon=True)
            self._process.start()

    def send(self) -> None:
        """The task's shard; where nobody takes it, `receive` says so."""
        with suppress(BrokenPipeError, ConnectionResetError):
            self.connection.send(self.task.shard)

    def receive(self) -> _Opened | _Computed | _Raised | None:
        """None where the process is lost."""
        try:
            message: _Opened | _Computed | _Raised = self.connection.recv()
        except (EOFError, OSError):
            return None
        return message

    def end(self, wait_s: float = 0.0) -> int | None:
        """Let it close its work, or kill it; its exit status."""
        self.connection.close()
        self._process.join(wait_s)
        self._process.kill()
        self._process.join()
        status = self._process.exitcode
        self._process.close()
        return status


class ProcessesEngine(Engine):
    name: ClassVar[str] = "processes"

    def map(
        self, work: Work[S, Any, R], shards: Iterable[S], *, device: str, processes: int = 1
    ) -> Generator[R, None, None]:
        """As they are finished. Of several processes each has a CUDA device of its own, or its share of the cores.

        Raises `ProcessesLost` for a shard that loses its process three times, and `RaisedElsewhere` for an error that
        cannot be pickled.
        """
        threads = max(1, torch.get_num_threads() // processes)
        tasks = map(_Task, shards)
        free = deque(choose_devices(device, processes))
        running: dict[Connection, _Process[S]] = {}

        def start(task: _Task[S]) -> None:
            process = _Process(work, free.popleft(), threads, task)
            running[process.connection] = process

        def forget(process: _Process[S], wait_s: float = 0.0) -> int | None:
            free.append(process.device)
            del running[process.connection]
            return process.end(wait_s)

        try:
            while free and (first := next(tasks, None)) is not None:
                start(first)
            while running:
                for connection in wait(list(running)):
                    assert isinstance(connection, Connection)
                    process = running[connection]
                    match process.receive():
                        case _Opened():
                            process.send()
                        case _Computed(result):
                            yield result
                            following = next(tasks, None)
                            if following is None:
                                forget(process, _STOP_S)
                            else:
                                process.task = following
                                process.send()
                        case _Raised(error):
                            raise error
                        case None:
                            task, status = process.task, forget(process)
                            task.losses += 1
                            log.warning("a process of the engine was lost", status=status, losses=task.losses)
                            if task.losses == _TRIES:
                                raise ProcessesLost(tries=_TRIES, status=status)
                            start(task)
        finally:
            for process in running.values():
                process.end()


def _serve(parent: Connection, parent_pid: int, work: Work[S, Any, R], device: str, threads: int) -> None:
    """In the process: shards in, results out, until the parent has no more or is gone."""
    die_with_parent(parent_pid)
    configure_logs(Settings())
    use_threads(threads)
    try:
        with closing(work.open(device)) as running:
            _tell(parent, _Opened())
            while True:
                shard: S = _next(parent)
                _tell(parent, _Computed(running.compute(running.load(shard))))
    except Exception as error:
        _tell(parent, _Raised(_picklable(error)))


def _next(parent: Connection) -> Any:
    try:
        return parent.recv()
    except (EOFError, ConnectionResetError):
        sys.exit()


def _tell(parent: Connection, message: _Opened | _Computed | _Raised) -> None:
    try:
        parent.send(message)
    except (BrokenPipeError, ConnectionResetError):
        sys.exit()


def _picklable(error: Exception) -> Exception:
    """The error, and where it was raised; or one that says the same where it cannot be sent."""
    error.add_note("".join(traceback.format_exception(error)))
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RaisedElsewhere(sentence=f"{type(error).__name__}: {error}")
    return error

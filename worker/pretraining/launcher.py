"""A training by several trainers, as the job sees it: torchrun starts them, the first one tells how it goes.

No trainer knows the database or the artifacts. Each connects to the job's socket and is sent its assignment; back
come from the first one `Progress`, `Warned` and `Checkpoint`s, at the end `Ended`, or from any `Failed` or
`Raised`. When one is lost, torchrun ends the others and starts all again, from the newest checkpoint.
"""

import io
import multiprocessing
import os
import socket
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.reduction import send_handle
from tempfile import TemporaryDirectory
from typing import IO, Any, Self

import numpy as np
import numpy.typing as npt
import structlog
import torch

from service.errors import ShortlistError
from service.settings import Settings
from service.store.tables import PretextModel
from worker.arrays import Floats
from worker.evaluation.diagnostics import Diagnostics
from worker.jobs.context import JobFailed
from worker.pool.shared import SharedPool
from worker.pretraining.loop import State
from worker.pretraining.train import Told

# A killed trainer is gone at once; where the kernel does not kill it, when it finds itself alone.
_STOP_S = 10.0
_LOOPBACK = "lo0" if sys.platform == "darwin" else "lo"

log = structlog.get_logger()


class TrainersLost(ShortlistError):
    """The processes that pretrain together were lost more often than they are started again. {reason}"""

    code = "trainers_lost"


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """All that a trainer is told, beside its place."""

    task: dict[str, Any]
    backbone: str
    config: dict[str, Any]
    settings: Settings  # with the threads of one trainer
    pool: SharedPool
    sample: npt.NDArray[np.uint8]
    traits: dict[str, Floats]
    checkpoint: bytes | None

    def model(self) -> PretextModel:
        """What it needs of the row."""
        return PretextModel(task=self.task, backbone=self.backbone, config=self.config)


@dataclass(frozen=True)
class Progress:
    fraction: float
    message: str


@dataclass(frozen=True)
class Warned:
    sentence: str


@dataclass(frozen=True)
class Checkpoint:
    state: bytes


@dataclass(frozen=True)
class Ended:
    net: bytes
    untrained: Diagnostics
    trained: Diagnostics
    history: list[Diagnostics]


@dataclass(frozen=True)
class Failed:
    """A person must act."""

    sentence: str


@dataclass(frozen=True)
class Raised:
    """This trainer ends, and with it the others; all are started again."""

    sentence: str


Message = Progress | Warned | Checkpoint | Ended | Failed | Raised


def packed(state: State) -> bytes:
    file = io.BytesIO()
    torch.save(state, file)
    return file.getvalue()


def unpacked(data: bytes) -> State:
    """On the CPU, from whichever device."""
    state: State = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    return state


class Trainers:
    """Use it in a `with` block: none of them outlives it, nor the process it is in."""

    def __init__(self, trainers: int, assignment: Assignment, pixels: IO[bytes]) -> None:
        self._trainers, self._assignment, self._pixels = trainers, assignment, pixels
        self._connections: list[Connection] = []
        self._started = False
        self._reason = ""  # what the first that raised said

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            address = f"{stack.enter_context(TemporaryDirectory(prefix='shortlist-'))}/trainers"
            self._server = stack.enter_context(socket.socket(socket.AF_UNIX))
            self._server.bind(address)
            self._server.listen(self._trainers)
            self._alive, theirs = multiprocessing.Pipe(duplex=False)  # readable when torchrun has ended
            stack.enter_context(self._alive)
            with theirs:
                self._torchrun = subprocess.Popen(
                    [
                        *(sys.executable, "-m", "worker.pretraining.torchrun"),
                        *(str(os.getpid()), str(self._trainers), address),
                    ],
                    env=os.environ | self._environment(),
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                )
            stack.callback(self._end)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _environment(self) -> dict[str, str]:
        return {
            # Else torchrun opens a store of its own, to the network.
            "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
            # Else they listen where the machine's name points to.
            "GLOO_SOCKET_IFNAME": _LOOPBACK,
            "NCCL_SOCKET_IFNAME": f"={_LOOPBACK}",
            "OMP_NUM_THREADS": str(self._assignment.settings.threads),
            "TORCH_CPP_LOG_LEVEL": "ERROR",  # else it advises against what `worker.collectives` needs
        }

    def train(self, told: Told) -> Ended:
        """To the end. Raises `TrainersLost`, `JobFailed`, and what those raise that are told."""
        while True:
            ready = wait([self._server, self._alive, *self._connections])
            heard = [connection for connection in self._connections if connection in ready]
            for connection in heard:
                match self._receive(connection):
                    case Progress(fraction, message):
                        told.report(fraction, message)
                    case Warned(sentence):
                        told.warn(sentence)
                    case Checkpoint(state):
                        self._assignment = replace(self._assignment, checkpoint=state)
                        told.save(unpacked(state))
                    case Raised(sentence):
                        self._reason = self._reason or sentence
                    case Failed(sentence):
                        raise JobFailed(sentence)
                    case Ended() as ended:
                        return ended
            # Torchrun starts trainers when all lost ones are gone. Only when nothing is left to be heard of those
            # is the newest checkpoint known, which must be one for all.
            if self._server in ready and not heard:
                self._welcome()
            elif not heard:
                raise TrainersLost(reason=self._reason or "They did not say why; the worker's log may.")

    def _welcome(self) -> None:
        """The next trainer that connects."""
        if self._started and not self._connections:
            log.warning("trainers start again", reason=self._reason or "one of them was lost")
            self._reason = ""
        self._started = True
        connection = Connection(self._server.accept()[0].detach())
        self._connections.append(connection)
        try:
            connection.send(self._assignment)
            send_handle(connection, self._pixels.fileno(), None)
        except OSError:  # it is lost already
            self._forget(connection)

    def _receive(self, connection: Connection) -> Message | None:
        try:
            message: Message = connection.recv()
        except (EOFError, OSError):
            self._forget(connection)
            return None
        return message

    def _forget(self, connection: Connection) -> None:
        self._connections.remove(connection)
        connection.close()

    def _end(self) -> None:
        """All of them, and wait until they are gone: the next job wants their devices."""
        self._torchrun.kill()
        self._torchrun.wait()
        for connection in self._connections:
            with connection:
                _wait_for_end(connection)


def _wait_for_end(connection: Connection) -> None:
    try:
        while connection.poll(_STOP_S):
            connection.recv_bytes()
    except (EOFError, OSError):
        return

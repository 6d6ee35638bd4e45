"""Work for the tests of engines: it must be importable by processes that an engine starts."""

import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from service.errors import ItemNotFetched
from worker.engines.processes import ProcessesEngine


class Private(Exception):
    """No other process can make one of its arguments."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(f"{first} {second}")


@dataclass(frozen=True)
class Squares:
    """Of numbers. What processes do is written into the folder: `opened-<pid>`, and a line a shard in `computed`.

    kills   the shard that kills its process, until as many have died as `deaths`
    raises  the shard that raises, and the name of what
    """

    folder: Path
    kills: int | None = None
    deaths: int = 1
    raises: tuple[int, str] | None = None

    def open(self, device: str) -> "OpenSquares":
        assert device == "cpu"
        if self.raises is not None and self.raises[1] == "on opening":
            raise ValueError("it does not open")
        (self.folder / f"opened-{os.getpid()}").touch()
        return OpenSquares(self)


class OpenSquares:
    def __init__(self, work: Squares) -> None:
        self._work = work

    def load(self, shard: int) -> int:
        return shard

    def compute(self, loaded: int) -> tuple[int, np.ndarray]:
        work = self._work
        with (work.folder / "computed").open("a") as file:
            file.write(f"{loaded}\n")
        if loaded == work.kills and len(list(work.folder.glob("died-*"))) < work.deaths:
            (work.folder / f"died-{os.getpid()}").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if work.raises is not None and loaded == work.raises[0]:
            match work.raises[1]:
                case "end of file":
                    raise EOFError("the shard ends too soon")
                case "not fetched":
                    raise ItemNotFetched(key="a.png", reason="no route")
                case "private":
                    raise Private("two", "arguments")
        return loaded, np.arange(loaded) ** 2

    def close(self) -> None:
        (self._work.folder / f"closed-{os.getpid()}").touch()


if __name__ == "__main__":  # killed with -9 while its engine runs
    next(ProcessesEngine().map(Squares(Path(sys.argv[1])), iter(range(1_000)), device="cpu"))
    os.kill(os.getpid(), signal.SIGKILL)

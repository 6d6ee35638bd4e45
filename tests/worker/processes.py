"""A real worker process on the light job kinds: ``python -m tests.worker.processes [--until-idle] [--newer]``."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

from service.settings import Settings
from worker.main import run

REPOSITORY = Path(__file__).parents[2]


def environment(settings: Settings) -> dict[str, str]:
    """The SHORTLIST_… variables that give another process these settings."""
    values = settings.model_dump(mode="json", exclude_none=True)
    values = {name: ",".join(value) if isinstance(value, list) else value for name, value in values.items()}
    return os.environ | {f"SHORTLIST_{name.upper()}": str(value) for name, value in values.items()}


def start_worker(settings: Settings, *arguments: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tests.worker.processes", *arguments]
    # Its long lane gives way to all of its session, here to other tests; see `RunnerProcess`.
    return subprocess.Popen(command, env=environment(settings), cwd=REPOSITORY, start_new_session=True)


@contextmanager
def worker(settings: Settings, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    process = start_worker(settings, *arguments)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def wait_until(condition: Callable[[], object], timeout_s: float = 150.0) -> None:
    """As long is only waited where something goes wrong, or the machine is busy."""
    give_up_at = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < give_up_at, "it did not happen in time"
        time.sleep(0.02)


def alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):  # gone, or going while we read
        return False


def descendants(pid: int) -> set[int]:
    """What it started, and what these started, as far as it lives."""
    parents = {}
    for entry in Path("/proc").glob("[1-9]*"):
        try:
            parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):  # gone, or going while we read
            continue
    found, newest = set[int](), {pid}
    while newest:
        newest = {child for child, parent in parents.items() if parent in newest} - found
        found |= newest
    return {child for child in found if alive(child)}


def listening(pids: Iterable[int]) -> set[IPv4Address | IPv6Address]:
    """The addresses at which they wait for TCP connections. Only on Linux."""
    found = set()
    for process in (Path(f"/proc/{pid}") for pid in pids):
        try:
            sockets = _open_files(process)
            tables = [(process / "net" / table).read_text().splitlines()[1:] for table in ("tcp", "tcp6")]
        except (FileNotFoundError, ProcessLookupError):  # gone, or going while we read
            continue
        for fields in (line.split() for table in tables for line in table):
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in sockets:
                raw = bytes.fromhex(fields[1].partition(":")[0])  # words of four bytes, the last first
                words = (raw[start : start + 4][::-1] for start in range(0, len(raw), 4))
                found.add(ip_address(b"".join(words)))
    return found


def _open_files(process: Path) -> set[str]:
    found = set()
    for file in (process / "fd").iterdir():
        try:
            found.add(os.readlink(file))
        except FileNotFoundError:  # closed while we read
            continue
    return found


if __name__ == "__main__":
    kinds = "newer_jobs" if "--newer" in sys.argv else "light_jobs"
    run(Settings(), "--until-idle" in sys.argv, jobs_package=f"tests.worker.{kinds}", plug_ins=False)

"""A service and its worker as processes, for benchmarks."""

import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from service.settings import Settings
from shortlist_client import Shortlist

GIVE_UP_S = 120.0


@contextmanager
def running(settings: Settings, sources: str = "") -> Iterator[Shortlist]:
    """`shortlist up` on a free port, stopped at the end. sources: a folder that may be imported"""
    key, port = secrets.token_urlsafe(24), _free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "service.cli", "up", "--port", str(port)],
        env=os.environ
        | {"SHORTLIST_DATA_DIR": str(settings.data_dir), "SHORTLIST_ADMIN_KEY": key}
        | ({"SHORTLIST_SOURCE_ROOTS": sources} if sources else {}),
        stdout=subprocess.DEVNULL,
    )
    try:
        with Shortlist(f"http://127.0.0.1:{port}", key) as client:
            wait(lambda: process.poll() is not None or client.ready())
            yield client
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(30)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait(done: Callable[[], bool], every_s: float = 0.01) -> None:
    """every_s: more for what is asked by HTTP, whose answers cost the cores that are measured."""
    give_up = time.monotonic() + GIVE_UP_S
    while not done():
        if time.monotonic() > give_up:
            sys.exit("Gave up waiting; the service's log above says why.")
        time.sleep(every_s)

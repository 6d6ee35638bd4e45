"""`shortlist up` on a data folder, for whoever looks at its page."""

import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2 as httpx

_PATIENCE_S = 1800.0
Json = dict[str, Any]


class Site:
    def __init__(self, address: str, key: str) -> None:
        self.address, self.key = address, key
        self.http = httpx.Client(base_url=address, headers={"Authorization": f"Bearer {key}"}, timeout=300)

    def get(self, path: str, **params: Any) -> Any:
        return self._checked(self.http.get(path, params=params))

    def post(self, path: str, body: Json) -> Any:
        return self._checked(self.http.post(path, json=body))

    def settled(self, at: str) -> None:
        """Until the project has no job left."""
        give_up = time.monotonic() + _PATIENCE_S
        while self.get(f"{at}/metrics")["jobs"]:
            if time.monotonic() > give_up:
                sys.exit("Gave up waiting for the project's jobs.")
            time.sleep(0.5)

    @staticmethod
    def _checked(answer: httpx.Response) -> Any:
        if answer.is_error:
            sys.exit(f"{answer.request.method} {answer.request.url}: {answer.text}")
        return answer.json()


@contextmanager
def running(folder: Path, sources: Path) -> Iterator[Site]:
    """Stopped at the end; what `folder` holds stays."""
    key = secrets.token_urlsafe(24)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    process = subprocess.Popen(
        [sys.executable, "-m", "service.cli", "up", "--port", str(port)],
        env=os.environ
        | {
            "SHORTLIST_DATA_DIR": str(folder),
            "SHORTLIST_ADMIN_KEY": key,
            "SHORTLIST_SOURCE_ROOTS": str(sources),
        },
        stdout=subprocess.DEVNULL,
    )
    site = Site(f"http://127.0.0.1:{port}", key)
    try:
        give_up = time.monotonic() + _PATIENCE_S
        while not _ready(site):
            if process.poll() is not None or time.monotonic() > give_up:
                sys.exit("`shortlist up` did not come up; its log above says why.")
            time.sleep(0.5)
        yield site
    finally:
        site.http.close()
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def _ready(site: Site) -> bool:
    """A service that answers, and a worker that is alive."""
    try:
        return site.http.get("/readyz").status_code == 200
    except httpx.TransportError:
        return False

"""A real Label Studio 1.23.2, as `make label-studio-test` installs it: on loopback, in a folder of its own."""

import os
import secrets
import shutil
import signal
import socket
import subprocess
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import httpx2 as httpx

from tests.journeys.site import until
from tests.worker.processes import REPOSITORY

PROGRAM = REPOSITORY / ".venv-label-studio" / "bin" / "label-studio"
_MIGRATED = (
    REPOSITORY / ".venv-label-studio" / "migrated"
)  # 1.4 MB; migrating takes a minute on a quiet machine
TOKEN = "0123456789abcdef0123456789abcdef01234567"
_START_S = 400.0
CONFIG = """<View><Image name="image" value="$image"/><Choices name="label" toName="image" choice="single">
<Choice value="red"/><Choice value="green"/></Choices></View>"""
SEVERAL = CONFIG.replace('choice="single"', 'choice="multiple"')


class RealLabelStudio:
    """Stopped by leaving its context. `admin` is its first user; `sign_up` gives others."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._data = folder, folder / "data"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self._port}"
        self._process: subprocess.Popen[bytes] | None = None
        self._clients = ExitStack()
        self.admin = self.user(TOKEN)
        self.project = 0
        self._personal: str | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._clients.close()
        self.kill()

    def start(self) -> None:
        """Its address is the same each time. A new one begins with what the first one here has migrated."""
        if not self._data.exists():
            if not _MIGRATED.exists():
                self._run()
                self.kill()
                shutil.copytree(self._data, f"{_MIGRATED}.{os.getpid()}")
                os.rename(f"{_MIGRATED}.{os.getpid()}", _MIGRATED)
                shutil.rmtree(self._data)
            shutil.copytree(_MIGRATED, self._data)
        self._run()

    def _run(self) -> None:
        """Whatever might leave this machine is switched off."""
        outside = {
            name: value for name, value in os.environ.items() if not name.startswith(("LABEL_", "DJANGO"))
        }
        environment = outside | {
            "LABEL_STUDIO_USERNAME": "ann@lab.local",
            "LABEL_STUDIO_PASSWORD": secrets.token_hex(12),
            "LABEL_STUDIO_USER_TOKEN": TOKEN,
            "LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN": "true",
            "LABEL_STUDIO_LATEST_VERSION_CHECK": "false",
            "LABEL_STUDIO_COLLECT_ANALYTICS": "false",
            "LABEL_STUDIO_SENTRY_DSN": "",
            "LABEL_STUDIO_FRONTEND_SENTRY_DSN": "",
            "LABEL_STUDIO_ML_BLOCK_LOCAL_IP": "false",
            "LABEL_STUDIO_SSRF_PROTECTION_ENABLED": "false",
            "LABEL_STUDIO_WEBHOOK_TIMEOUT": "5.0",
        }
        with (self._folder / "log.txt").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    PROGRAM,
                    "start",
                    "--no-browser",
                    "--internal-host",
                    "127.0.0.1",
                    "-p",
                    str(self._port),
                    "--data-dir",
                    self._data,
                ],
                env=environment,
                cwd=self._folder,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        with httpx.Client(base_url=self.url, timeout=30) as client:
            until(lambda: _is_up(client), _START_S)

    def kill(self) -> None:
        """`kill -9`, with whatever it started."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def user(self, token: str) -> httpx.Client:
        client = httpx.Client(base_url=self.url, headers={"Authorization": f"Token {token}"}, timeout=120)
        return self._clients.enter_context(client)

    def sign_up(self, email: str, password: str | None = None) -> httpx.Client:
        """Another user of the same organization."""
        invited = self.admin.get("/api/invite").raise_for_status().json()["invite_url"]
        with httpx.Client(base_url=self.url, timeout=120, follow_redirects=True) as browser:
            browser.get(invited).raise_for_status()
            form = {
                "email": email,
                "password": password or secrets.token_hex(12),
                "csrfmiddlewaretoken": browser.cookies["csrftoken"],
            }
            browser.post(invited, data=form, headers={"Referer": self.url}).raise_for_status()
            token = browser.get("/api/current-user/token").raise_for_status().json()["token"]
        return self.user(token)

    def personal_token(self) -> str:
        """A refresh token of the first user."""
        if self._personal is None:  # there is one a user
            answer = self.admin.post("/api/token/").raise_for_status()
            self._personal = str(answer.json()["token"])
        return self._personal

    def create_project(self, title: str, tasks: list[dict[str, Any]], config: str = CONFIG) -> None:
        body = {"title": title, "label_config": config, "maximum_annotations": 1}
        self.project = self.admin.post("/api/projects/", json=body).raise_for_status().json()["id"]
        if tasks:
            self.admin.post(f"/api/projects/{self.project}/import", json=tasks).raise_for_status()

    def tasks(self) -> list[dict[str, Any]]:
        """All of the project, with their annotations, by number."""
        query: dict[str, str | int] = {"project": self.project, "fields": "all", "page_size": 1000}
        found: list[dict[str, Any]] = (
            self.admin.get("/api/tasks", params=query).raise_for_status().json()["tasks"]
        )
        return sorted(found, key=lambda task: int(task["id"]))

    def next_task(self, user: httpx.Client) -> dict[str, Any]:
        found: dict[str, Any] = user.get(f"/api/projects/{self.project}/next").raise_for_status().json()
        return found

    def next_or_none(self, user: httpx.Client) -> dict[str, Any] | None:
        """None while there is no open task."""
        answer = user.get(f"/api/projects/{self.project}/next")
        return None if answer.status_code == 404 else answer.raise_for_status().json()

    def change(self, task: int, *classes: str) -> None:
        """The first annotation of the task names others."""
        (first, *_) = self.admin.get(f"/api/tasks/{task}/annotations/").raise_for_status().json()
        body = {"result": _chosen(classes)}
        self.admin.patch(f"/api/annotations/{first['id']}/", json=body).raise_for_status()

    def annotate(self, user: httpx.Client, task: int, *classes: str, skip: bool = False) -> dict[str, Any]:
        body = {"result": _chosen(classes), "was_cancelled": skip, "lead_time": 1.5}
        answer = user.post(f"/api/tasks/{task}/annotations/?project={self.project}", json=body)
        found: dict[str, Any] = answer.raise_for_status().json()
        return found

    def model_version(self) -> str:
        """The version whose predictions it orders tasks by at this moment."""
        found = self.admin.get(f"/api/projects/{self.project}/").raise_for_status().json()
        return str(found["model_version"])


def _chosen(classes: Sequence[str]) -> list[dict[str, Any]]:
    value = {"choices": list(classes)}
    if not classes:
        return []
    return [{"from_name": "label", "to_name": "image", "type": "choices", "value": value}]


def _is_up(client: httpx.Client) -> bool:
    try:
        return client.get("/health").is_success
    except httpx.TransportError:
        return False

"""A data folder with the real programs running on it: `shortlist serve` and `python -m worker`, as processes."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self, TypeVar

import httpx2 as httpx

from service.store.catalogue import live_workers
from service.store.ids import row_number
from service.store.session import make_engine, read_session
from service.store.tables import Job, Worker
from shortlist_client import Shortlist
from tests.journeys.images import true_class
from tests.worker.processes import REPOSITORY, wait_until

T = TypeVar("T")
Json = dict[str, Any]

ADMIN_KEY = "an-admin-key-for-tests"
PATIENCE_S = 150.0  # only waited for where something goes wrong, or the machine is busy
QUICK = {"image_size": 16, "pretext_epochs": 1, "retrain_min_interval_s": 0}  # settings of most projects


class Site:
    """Stopped by leaving its context. The database is migrated and fresh; `settings` are those of both programs."""

    def __init__(self, folder: Path, database_url: str, **settings: object) -> None:
        self.folder = folder
        self.images = folder / "images"
        self.data_dir = folder / "data"
        self.images.mkdir(parents=True)
        self.data_dir.mkdir()
        given = {
            "data_dir": self.data_dir,
            "database_url": database_url,
            "source_roots": self.images,
            "admin_key": ADMIN_KEY,
            "device": "cpu",
            "threads": 1,
            "poll_s": 0.05,
        } | settings
        outside = {name: value for name, value in os.environ.items() if not name.startswith("SHORTLIST_")}
        self._environment = outside | {
            f"SHORTLIST_{name.upper()}": str(value) for name, value in given.items()
        }
        self.service: subprocess.Popen[str] | None = None
        self.workers: list[subprocess.Popen[str]] = []
        self._clients = ExitStack()
        self.engine = make_engine(database_url)  # to look at what no route tells

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes():
            process.kill()
            process.communicate()
        self._clients.close()
        self.engine.dispose()

    def _processes(self) -> list[subprocess.Popen[str]]:
        return [*self.workers, *([self.service] if self.service else [])]

    def start_service(self, port: int = 0) -> None:
        self.service = self._start("service.cli", "serve", "--port", str(port), stdout=subprocess.PIPE)
        assert self.service.stdout is not None
        address = self.service.stdout.readline().strip()
        self.client = self._clients.enter_context(Shortlist(address, ADMIN_KEY, timeout=PATIENCE_S))
        self.http = self._clients.enter_context(
            httpx.Client(
                base_url=address, headers={"Authorization": f"Bearer {ADMIN_KEY}"}, timeout=PATIENCE_S
            )
        )
        wait_until(lambda: answers(self.http), PATIENCE_S)

    def start_workers(self, count: int = 1, lanes: str | None = None) -> None:
        """Until they are ready to work, which they say in the database; so do some that were killed.

        lanes: those they serve, where not all; every lane is a process that loads torch.
        """
        variables = {"SHORTLIST_LANES": lanes} if lanes else {}
        started = [self._start("worker", variables=variables) for _ in range(count)]
        self.workers += started

        def ready() -> bool:
            with read_session(self.engine) as session:
                return {process.pid for process in started} <= {one.pid for one in live_workers(session)}

        wait_until(ready, PATIENCE_S)

    def worker_of(self, job: Json) -> subprocess.Popen[str]:
        """The one that runs the job."""
        with read_session(self.engine) as session:
            name = session.get_one(Job, row_number("j", job["id"])).worker
            pid = session.get_one(Worker, name).pid
        return next(process for process in self.workers if process.pid == pid)

    def kill(self, worker: subprocess.Popen[str]) -> None:
        """`kill -9`, supervisor and runner."""
        for pid in (*children(worker.pid), worker.pid):
            os.kill(pid, signal.SIGKILL)
        worker.wait()
        self.workers.remove(worker)

    def kill_service(self) -> None:
        """`kill -9`."""
        assert self.service is not None
        self.service.kill()
        self.service.communicate()
        self.service = None
        self._clients.close()

    def live_workers(self) -> int:
        ready = self.http.get("/readyz")
        return int(ready.json()["workers"]) if ready.status_code == 200 else 0

    def run_worker(self, **variables: str) -> subprocess.CompletedProcess[str]:
        """One that is expected to end by itself."""
        return subprocess.run(
            [sys.executable, "-m", "worker", "--until-idle"],
            env=self._environment | variables,
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
        )

    def _start(
        self,
        module: str,
        *arguments: str,
        stdout: int | None = None,
        variables: dict[str, str] | None = None,
    ) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", module, *arguments]
        environment = self._environment | (variables or {})
        # A session of its own: a worker's long lane gives way to all of its session, other tests among them.
        return subprocess.Popen(
            command, env=environment, cwd=REPOSITORY, stdout=stdout, text=True, start_new_session=True
        )

    def stop(self) -> list[int]:
        """As a person or a container engine stops it, SIGTERM; the exit statuses."""
        processes = self._processes()
        for process in processes:
            process.send_signal(signal.SIGTERM)
        for process in processes:
            process.communicate(timeout=30)
        self.workers.clear()
        self.service = None
        self._clients.close()
        return [process.returncode for process in processes]

    def get(self, path: str, **params: Any) -> Any:
        return self.client.get(path, **params)

    def post(self, path: str, body: Json | None = None) -> Any:
        return self.client.post(path, body)

    def refused(self, path: str, body: Json | None = None) -> Json:
        """The problem that a POST is answered with."""
        answer = self.http.post(path, json=body or {})
        assert answer.status_code >= 400, answer.text
        assert answer.headers["content-type"] == "application/problem+json"
        problem: Json = answer.json()
        return problem

    def ended(self, job: Json) -> Json:
        """The job, once nothing more will come of it."""

        def ask() -> Json | None:
            found: Json = self.get(f"/jobs/{job['id']}")
            return found if found["state"] not in ("queued", "running") else None

        return until(ask)

    def done(self, job: Json) -> Json:
        found = self.ended(job)
        assert found["state"] == "succeeded", found
        return found

    def jobs(self, project: Json, kind: str) -> list[Json]:
        """Newest first."""
        found: list[Json] = self.get("/jobs", project=project["id"], kind=kind)["items"]
        return found


class Project:
    """A project of a site, as an annotation tool drives it."""

    def __init__(
        self, site: Site, name: str, classes: tuple[str, ...] = ("red", "green"), **settings: Any
    ) -> None:
        self.site = site
        body = QUICK | settings | {"name": name, "classes": list(classes)}
        self.json: Json = site.post("/projects", body)
        self.at = f"/projects/{self.json['id']}"

    def add(self, folder: Path, **more: Any) -> Json:
        """Import it and wait; the job's result."""
        job = self.site.done(self.site.post(f"{self.at}/sources", {"uri": str(folder), **more}))
        result: Json = job["result"]
        return result

    def register(self, folder: Path) -> None:
        """Its files as items, which takes no worker."""
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        items = [{"key": str(path.relative_to(folder)), "uri": str(path)} for path in files]
        answer = self.site.post(f"{self.at}/items", {"items": items})
        assert answer["added"] == len(items), answer

    def pretrain(self) -> None:
        """… and score and rank."""
        self.site.done(self.site.post(f"{self.at}/pretrain"))
        until(lambda: self.metrics()["ranking"])
        self.settle()

    def settle(self) -> None:
        """Until no job is left."""
        wait_until(lambda: not self.metrics()["jobs"], PATIENCE_S)

    def metrics(self) -> Json:
        found: Json = self.site.get(f"{self.at}/metrics")
        return found

    def rounds(self) -> list[Json]:
        found: list[Json] = self.site.get(f"{self.at}/rounds")["items"]
        return found

    def items(self, **filters: Any) -> list[Json]:
        found: list[Json] = self.site.get(f"{self.at}/items", limit=1000, **filters)["items"]
        return found

    def next_batch(self, annotator: str, size: int = 10, **more: Any) -> Json:
        batch: Json = self.site.post(f"{self.at}/next-batch", {"annotator": annotator, "size": size, **more})
        return batch

    def label(self, annotator: str, items: list[Json], **more: Any) -> Json:
        """With their true classes."""
        labels = [
            {"item": item["id"], "class": true_class(item["key"]), "annotator": annotator, **more}
            for item in items
        ]
        answer: Json = self.site.post(f"{self.at}/labels", {"labels": labels})
        return answer

    def label_batch(self, annotator: str, size: int) -> Json:
        batch = self.next_batch(annotator, size)
        assert batch["reason"] is None
        return self.label(annotator, batch["items"], batch=batch["batch"])

    def labels(self) -> list[Json]:
        """All that are stored, also those replaced or not used."""
        answer = self.site.http.get(f"{self.at}/labels", params={"all": True})
        return [json.loads(line) for line in answer.text.splitlines()]


def until(look: Callable[[], T | None], timeout_s: float = PATIENCE_S) -> T:
    """What it sees at last."""
    give_up_at = time.monotonic() + timeout_s
    while not (seen := look()):
        assert time.monotonic() < give_up_at, "it did not happen in time"
        time.sleep(0.02)
    return seen


def children(pid: int) -> list[int]:
    """Of all its threads: a worker's lanes start their runners in threads of their own."""
    return [
        int(child)
        for each in Path(f"/proc/{pid}/task").glob("*/children")
        for child in each.read_text().split()
    ]


def answers(http: httpx.Client) -> bool:
    try:
        return bool(http.get("/healthz").is_success)
    except httpx.TransportError:
        return False

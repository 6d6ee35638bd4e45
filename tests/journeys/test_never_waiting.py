"""While items are available, next-batch answers with items: through cold start, a worker that dies, retraining, a
new ranking. One annotator asks on and on, in a thread of his own, while all of this happens.
"""

import itertools
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2 as httpx
import pytest

from tests.journeys.images import write_images
from tests.journeys.site import ADMIN_KEY, PATIENCE_S, Json, Project, Site, until


@pytest.fixture
def own_site(tmp_path: Path, database_url: str) -> Iterator[Site]:
    with Site(tmp_path / "site", database_url, lease_s=1.5, log_level="error") as site:
        site.start_service()
        yield site


class Poller(threading.Thread):
    """Takes five items, gives them back, and asks again, until it is stopped."""

    def __init__(self, project: Project) -> None:
        super().__init__()
        self._project, self._stopping = project, threading.Event()
        self.batches: list[Json] = []

    def run(self) -> None:
        key = {"Authorization": f"Bearer {ADMIN_KEY}"}
        with httpx.Client(base_url=self._project.site.http.base_url, headers=key, timeout=PATIENCE_S) as http:
            for number in itertools.count():
                if self._stopping.is_set():
                    return
                body = {"annotator": f"poller {number}", "size": 5}
                batch: Json = http.post(f"{self._project.at}/next-batch", json=body).raise_for_status().json()
                self.batches.append(batch)
                if batch["batch"] is not None:
                    http.delete(f"/batches/{batch['batch']}").raise_for_status()

    def stop(self) -> None:
        self._stopping.set()
        self.join(PATIENCE_S)


@contextmanager
def polling(project: Project) -> Iterator[Poller]:
    poller = Poller(project)
    poller.start()
    try:
        yield poller
    finally:
        poller.stop()


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)  # test_cold_start.py: SQLite
def test_items_through_everything(own_site: Site) -> None:
    site = own_site
    project = Project(site, "never waiting", round_size=10, retrain_min_labels=10)
    project.register(write_images(site.images / "never waiting", 60, ("red", "green")))

    def version() -> int:
        ranking = project.metrics()["ranking"]
        return ranking["version"] if ranking else 0

    with polling(project) as poller:
        until(lambda: len(poller.batches) > 3)  # before any worker could rank
        site.start_workers()
        training = site.post(f"{project.at}/pretrain")
        until(lambda: site.get(f"/jobs/{training['id']}")["state"] == "running")
        site.kill(site.worker_of(training))  # nobody works now
        while_down = len(poller.batches)
        until(lambda: len(poller.batches) > while_down + 3)
        until(lambda: site.live_workers() == 0)
        site.start_workers()
        site.done(training)
        first = until(version)

        project.label_batch("ann", 10)
        second = until(lambda: found if (found := version()) > first else 0)  # trained, ranked, switched
        site.http.patch(project.at, json={"strategy": "margin"}).raise_for_status()
        third = until(lambda: found if (found := version()) > second else 0)
        asked = len(poller.batches)
        until(lambda: len(poller.batches) > asked + 3)

    assert {batch["reason"] for batch in poller.batches} == {None}
    assert {len(batch["items"]) for batch in poller.batches} == {5}
    served = [
        {item["why"]["ranking"] for item in batch["items"] if item["arm"] == "selected"}
        for batch in poller.batches
    ]
    assert served[0] == set()
    assert all(len(versions) <= 1 for versions in served), "a batch mixes two rankings"
    seen = [number for versions in served for number in versions]
    assert seen == sorted(seen), "serving went back to an older ranking"
    assert {first, third} <= set(seen)

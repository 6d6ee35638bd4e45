"""Labels from the first minute, and never an empty batch while anything is being trained."""

import itertools
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.journeys.images import write_images
from tests.journeys.site import PATIENCE_S, Json, Project, Site


@pytest.fixture
def own_site(tmp_path: Path, database_url: str) -> Iterator[Site]:
    """Without a worker, who would rank by raw features sooner than a test can ask."""
    with Site(tmp_path / "site", database_url) as running:
        running.start_service()
        yield running


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)  # test_never_waiting.py: PostgreSQL
def test_labels_before_any_score_make_the_first_head(own_site: Site) -> None:
    site = own_site
    project = Project(site, "cold start", round_size=12, retrain_min_labels=10)
    project.register(write_images(site.images / "cold start", 60, ("red", "green")))

    batch = project.next_batch("ann", 12)
    assert [item["arm"] for item in batch["items"]] == ["control"] * 12
    assert {(item["rank"], item["why"]["ranking"], item["prediction"]) for item in batch["items"]} == {
        (None, None, None)
    }
    answer = project.label("ann", batch["items"])
    assert answer["retrain"] == {"queued": False, "job": None}
    assert answer["round"] == 2
    assert site.refused(f"{project.at}/retrain")["code"] == "no_score_run"

    taker = Taker(project)
    training = site.post(f"{project.at}/pretrain")
    site.start_workers()
    taker.take_until(lambda: project.metrics()["head"] is not None)
    assert site.done(training)["state"] == "succeeded"
    head = project.metrics()["head"]
    assert (head["labels_used"], head["trained_on"]) == (12, 12)
    assert project.rounds()[0]["state"] == "measured"
    assert project.rounds()[0]["metrics"]["measured_on"] == "control"

    project.settle()
    assert taker.arms_seen == {"control", "selected"}


def test_the_old_ranking_serves_while_the_head_is_trained(site: Site) -> None:
    project = Project(site, "retraining", round_size=10, retrain_min_labels=10)
    project.add(write_images(site.images / "retraining", 60, ("red", "green")))
    project.pretrain()
    old = project.metrics()["ranking"]["version"]
    project.label_batch("ann", 10)

    taker = Taker(project)
    taker.take_until(lambda: project.metrics()["ranking"]["version"] > old and not project.metrics()["jobs"])
    versions = taker.rankings_seen
    assert versions == sorted(versions), "serving went back to an older ranking"
    assert versions[0] >= old


class Taker:
    """Asks again and again as another annotator, and gives back what it got."""

    def __init__(self, project: Project) -> None:
        self._project = project
        self._names = (f"taker {number}" for number in itertools.count())
        self.arms_seen: set[str] = set()
        self.rankings_seen: list[int] = []

    def take_until(self, condition: Callable[[], bool]) -> None:
        give_up_at = time.monotonic() + PATIENCE_S
        for name in self._names:
            self._take(name)
            assert time.monotonic() < give_up_at, "it did not happen in time"
            if condition():
                self._take(name)
                return

    def _take(self, name: str) -> None:
        batch: Json = self._project.next_batch(name, 5)
        assert len(batch["items"]) == 5, batch["reason"]
        self.arms_seen |= {item["arm"] for item in batch["items"]}
        rankings = {item["why"]["ranking"] for item in batch["items"] if item["arm"] == "selected"}
        assert len(rankings) <= 1
        self.rankings_seen += rankings
        assert self._project.site.http.delete(f"/batches/{batch['batch']}").status_code == 204

"""The whole way of one item: from a folder to a class that made the next ranking better."""

import csv
import io
from pathlib import Path

import httpx2 as httpx
import pytest
from PIL import Image

from tests.journeys.images import COLOURS, SIDE, true_class, write_images
from tests.journeys.site import Project, Site, until


@pytest.fixture(scope="module")
def project(site: Site) -> Project:
    """Imported, with a test split from a manifest; pretrained, scored and ranked."""
    folder = site.images / "whole way"
    project = Project(
        site, "whole way", tuple(COLOURS), round_size=20, control_fraction=0.2, retrain_min_labels=10
    )
    assert project.add(write_images(folder / "pool", 90))["added"] == 90
    manifest = write_manifest(write_images(folder / "test", 45, seed=1))
    assert project.add(manifest, split="test", label_column="class")["added"] == 45
    project.pretrain()
    return project


def write_manifest(folder: Path) -> Path:
    path = folder / "items.csv"
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(("uri", "class"))
        for image in sorted(folder.rglob("*.png")):
            table.writerow((image, image.parent.name))
    return path


def test_from_a_folder_to_the_next_ranking(site: Site, project: Project) -> None:
    scores = [item["pretext_loss"] for item in project.items(split="pool", sort="-pretext_loss")]
    assert len(scores) == 90
    assert scores == sorted(scores, reverse=True)
    first_ranking = project.metrics()["ranking"]
    assert first_ranking["items"] == 90 - 18  # a fifth is kept for the control arm

    batch = project.next_batch("ann", 20)
    assert batch["reason"] is None
    selected = [item for item in batch["items"] if item["arm"] == "selected"]
    assert [item["rank"] for item in selected] == list(range(1, 17))
    assert [item["score"] for item in selected] == sorted((item["score"] for item in selected), reverse=True)
    for item in selected:
        why = item["why"]
        assert (why["strategy"], why["ranking"], why["head"]) == ("shortlist", first_ranking["version"], None)
        assert why["score_run"] == project.metrics()["score_run"]["id"]
        assert why["pretext_loss"] > 0
        assert 0 <= why["pretext_loss_percentile"] <= 100
        assert item["prediction"] is None  # there is no head yet
    control = [item for item in batch["items"] if item["arm"] == "control"]
    assert len(control) == 4
    assert {(item["rank"], item["why"]["strategy"], item["why"]["ranking"]) for item in control} == {
        (None, "random", None)
    }

    link = httpx.get(str(site.http.base_url).rstrip("/") + selected[0]["image_url"])  # no key
    assert link.headers["content-type"] == "image/png"
    assert Image.open(io.BytesIO(link.content)).size == (SIDE, SIDE)

    answer = project.label("ann", batch["items"], batch=batch["batch"], duration_ms=700)
    assert {result["outcome"] for result in answer["results"]} == {"accepted"}
    assert (answer["accepted"], answer["round"], answer["labels_used"]) == (20, 2, 20)
    assert answer["retrain"]["queued"]

    until(lambda: project.rounds()[0]["state"] == "measured")
    closed, opened = project.rounds()
    assert (closed["labels"], closed["arms"]) == (20, {"selected": 16, "control": 4})
    assert (closed["ranking"], closed["seed"]) == (first_ranking["id"], 0)
    assert closed["score_run"] == project.metrics()["score_run"]["id"]
    measured = closed["metrics"]
    assert (measured["measured_on"], measured["items"]) == ("test", 45)
    assert measured["accuracy_low"] <= measured["accuracy"] <= measured["accuracy_high"]
    assert measured["accuracy"] > 0.6  # chance is 0.33
    assert sum(map(sum, measured["confusion"])) == 45
    assert set(measured["recall"]) == set(COLOURS)
    assert (opened["number"], opened["state"], opened["labels"]) == (2, "open", 0)

    newer = until(lambda: ranking_newer_than(project, first_ranking["version"]))
    assert newer["labels_used"] == 20
    following = project.next_batch("ann", 20)
    served_before = {item["id"] for item in batch["items"]}
    assert served_before.isdisjoint(item["id"] for item in following["items"])
    selected = [item for item in following["items"] if item["arm"] == "selected"]
    assert {item["why"]["ranking"] for item in selected} == {newer["version"]}
    assert {item["prediction"]["head"] for item in selected} == {closed["head"]}
    right = [item["prediction"]["class"] == true_class(item["key"]) for item in selected]
    assert sum(right) > len(right) / 2  # the doubtful ones come first, chance is a third
    assert all(1 / 3 <= item["prediction"]["probability"] <= 1 for item in selected)
    assert {item["prediction"] for item in following["items"] if item["arm"] == "control"} == {None}


def ranking_newer_than(project: Project, version: int) -> dict[str, object] | None:
    ranking: dict[str, object] = project.metrics()["ranking"]
    return ranking if int(str(ranking["version"])) > version else None

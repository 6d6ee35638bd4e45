"""Several annotators and their agreement; then the project is copied, lent, exported, archived and deleted."""

import io
import zipfile

import pytest

from service.store.ids import row_number
from tests.journeys.images import COLOURS, true_class, write_images
from tests.journeys.site import Json, Project, Site, until


@pytest.fixture(scope="module")
def project(site: Site) -> Project:
    project = Project(
        site, "life", tuple(COLOURS), overlap=2, gold_fraction=0.2, round_size=40, retrain_min_labels=10
    )
    project.add(write_images(site.images / "life", 60))
    known = [{"item": item["id"], "class": true_class(item["key"])} for item in project.items()[::6]]
    assert site.post(f"{project.at}/gold", {"items": known}) == {"changed": 10}
    project.pretrain()
    return project


def wrong_class(key: str) -> str:
    names = tuple(COLOURS)
    return names[(names.index(true_class(key)) + 1) % len(names)]


def label_all(project: Project) -> None:
    """`ann` and `bob` are right, `cleo` is wrong every third time."""
    seen = 0
    while True:
        batches = {name: project.next_batch(name, 12) for name in ("ann", "bob", "cleo")}
        if not any(batch["items"] for batch in batches.values()):
            return
        for name, batch in batches.items():
            labels = []
            for item in batch["items"]:
                seen += 1
                wrong = name == "cleo" and seen % 3 == 0
                class_name = wrong_class(item["key"]) if wrong else true_class(item["key"])
                labels.append({"item": item["id"], "class": class_name, "annotator": name})
            if labels:
                project.site.post(f"{project.at}/labels", {"labels": labels})


def test_annotators_are_judged(site: Site, project: Project) -> None:
    label_all(project)
    project.settle()
    metrics = project.metrics()
    assert metrics["items"]["available"] == 0
    assert site.done(site.post(f"{project.at}/suspects/check"))["result"]["shared_items"] == 50
    project.settle()
    found = {one["annotator"]: one for one in site.get(f"{project.at}/annotators")["items"]}
    assert found["ann"]["gold"]["share"] == found["bob"]["gold"]["share"] == 1
    assert found["cleo"]["agreement"]["share"] < 0.9 < found["ann"]["agreement"]["share"]
    assert found["cleo"]["quality"] < min(found["ann"]["quality"], found["bob"]["quality"])
    agreement = project.metrics()["agreement"]
    assert (agreement["items"], 0.6 < agreement["pairs"] < 1) == (50, True)
    assert all(item["class"] == true_class(item["key"]) for item in project.items(gold=True))
    right = [item["class"] == true_class(item["key"]) for item in project.items()]
    assert sum(right) >= 58


def test_an_item_is_undone_and_asked_again(site: Site, project: Project) -> None:
    item = next(item for item in project.items() if not item["gold"])
    labels = [label for label in project.labels() if label["item"] == item["id"] and label["current"]]
    withdrawn = [{"item": item["id"], "class": None, "annotator": label["annotator"]} for label in labels]
    site.post(f"{project.at}/labels", {"labels": withdrawn})
    assert site.get(f"{project.at}/items/{item['id']}")["state"] == "available"
    assert [one["id"] for one in project.next_batch("ann")["items"]] == [item["id"]]
    project.label("ann", [item])
    project.label("bob", [item])
    assert site.get(f"{project.at}/items/{item['id']}")["class"] == true_class(item["key"])

    assert site.post(f"{project.at}/queue", {"items": [item["id"]], "annotator": "dora"})["reopened"] == 1
    assert project.next_batch("cleo")["reason"] == "not_your_turn"
    batch = project.next_batch("dora")
    assert item["id"] in [one["id"] for one in batch["items"]]
    project.label("dora", batch["items"], batch=batch["batch"])
    assert site.get(f"{project.at}/items/{item['id']}")["state"] == "done"
    project.settle()


def test_it_is_copied_exported_archived_and_deleted(site: Site, project: Project) -> None:
    job = site.done(site.post(f"{project.at}/copy", {"name": "life, copied"}))
    copy = f"/projects/{job['project']}"
    metrics: Json = until(lambda: found if (found := site.get(f"{copy}/metrics"))["ranking"] else None)
    assert metrics["labels_used"] == project.metrics()["labels_used"]
    assert metrics["score_run"]["pretext_model"] == project.metrics()["score_run"]["pretext_model"]
    assert site.get(f"{copy}/items", limit=1000)["items"][0]["class"] == project.items()[0]["class"]

    site.done(site.post(f"{project.at}/pretext-models/1/export"))
    exported = site.http.get(f"{project.at}/pretext-models/1/backbone")
    assert set(zipfile.ZipFile(io.BytesIO(exported.content)).namelist()) == {
        "config.json",
        "model.safetensors",
    }

    refused = site.http.delete(project.at)
    assert (refused.status_code, refused.json()["code"]) == (409, "pretext_in_use")
    assert site.http.patch(project.at, json={"state": "archived"}).is_success
    assert project.next_batch("ann")["reason"] == "project_archived"

    until(lambda: not site.get(f"{copy}/metrics")["jobs"])
    artifacts = site.data_dir / "artifacts"
    heads = artifacts / "heads" / str(row_number("p", project.json["id"]))
    assert heads.exists()
    for address in (copy, project.at):
        assert site.http.delete(address).status_code == 204
        assert site.http.get(address).status_code == 404
    until(lambda: not heads.exists())
    until(lambda: not site.get("/jobs", kind="delete_artifacts", state="queued")["items"])

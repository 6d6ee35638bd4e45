"""What goes wrong outside reaches people as a sentence that says what to do, and stops nothing else."""

from pathlib import Path

import pytest
from PIL import Image

from tests.journeys.images import write_images
from tests.journeys.site import Project, Site


def test_identical_images_can_be_labeled(site: Site) -> None:
    project = Project(site, "identical", retrain_min_labels=4, round_size=4)
    folder = site.images / "identical" / "red"
    folder.mkdir(parents=True)
    for number in range(30):
        Image.new("RGB", (16, 16), (90, 90, 90)).save(folder / f"{number}.png")
    assert project.add(folder.parent)["added"] == 30
    project.pretrain()
    losses = {item["pretext_loss_percentile"] for item in project.items()}
    assert losses == {50.0}  # none is harder than another
    project.label_batch("ann", 4)
    project.settle()
    # All of one class: a head would have nothing to tell apart, and says so.
    (job, *_) = site.jobs(project.json, "train_head")
    assert "at least two classes" in job["result"]["missing"]
    assert len(project.next_batch("ann")["items"]) == 10


@pytest.mark.parametrize("count", [1, 3])
def test_a_tiny_pool_is_served_to_the_end(site: Site, count: int) -> None:
    project = Project(site, f"pool of {count}", retrain_min_labels=2)
    project.add(write_images(site.images / f"pool of {count}", count, ("red", "green")))
    project.pretrain()
    batch = project.next_batch("ann")
    assert len(batch["items"]) == count
    project.label("ann", batch["items"])
    assert project.next_batch("ann")["reason"] == "pool_exhausted"
    project.settle()
    head = project.metrics()["head"]
    assert (head["trained_on"] if head else None) == (3 if count == 3 else None)


def test_broken_files_are_listed_and_stop_nothing(site: Site) -> None:
    project = Project(site, "broken")
    folder = write_images(site.images / "broken", 4, ("red", "green"))
    (folder / "text.png").write_text("this is no picture")
    (folder / "nothing.jpg").touch()
    whole = next(folder.rglob("*.png")).read_bytes()
    (folder / "half.png").write_bytes(whole[: len(whole) // 2])
    result = project.add(folder)
    assert (result["added"], result["quarantined"]) == (4, 3)
    listed = {item["key"]: item["quarantine_reason"] for item in project.items(state="quarantined")}
    assert listed.keys() == {"text.png", "nothing.jpg", "half.png"}
    assert listed["nothing.jpg"] == "the file is empty"
    assert all(listed.values())
    project.pretrain()
    assert project.metrics()["score_run"]["items"] == 4


def test_a_folder_without_images(site: Site) -> None:
    project = Project(site, "no images")
    folder = site.images / "no images"
    folder.mkdir()
    (folder / "notes.pdf").touch()
    job = site.ended(site.post(f"{project.at}/sources", {"uri": str(folder)}))
    assert job["state"] == "failed"
    assert "There are no images, audios, graphs, pairs, texts or videos in" in job["error"]
    assert str(folder) in job["error"]

    problem = site.refused(f"{project.at}/pretrain")
    assert (problem["status"], problem["code"]) == (409, "empty_pool")
    assert "The pool of this project is empty. Import a source" in problem["detail"]


def test_a_backbone_that_does_not_exist(site: Site) -> None:
    project = Project(site, "backbone", backbone="resnet81")
    project.add(write_images(site.images / "backbone", 4, ("red", "green")))
    job = site.ended(site.post(f"{project.at}/pretrain"))
    assert (job["state"], job["attempts"]) == ("failed", 1)
    assert "There is no backbone 'resnet81'. Close: " in job["error"]
    assert "resnet18" in job["error"]
    (model,) = site.get(f"{project.at}/pretext-models")["items"]
    assert model["state"] == "failed"


def test_a_torch_that_cannot_be_loaded(site: Site, tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise ImportError('libcudart is missing')")
    ended = site.run_worker(PYTHONPATH=str(tmp_path))
    assert ended.returncode != 0
    assert "The runner process does not start." in ended.stderr.splitlines()[-1]
    assert "libcudart is missing" in ended.stderr

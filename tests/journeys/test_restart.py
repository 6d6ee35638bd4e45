"""Service and worker are stopped and started again on the same data folder: nothing is lost."""

from pathlib import Path

from tests.journeys.images import write_images
from tests.journeys.site import Project, Site, until


def test_all_goes_on_where_it_was(tmp_path: Path, sqlite_url: str) -> None:
    with Site(tmp_path, sqlite_url) as site:
        site.start_service()
        site.start_workers()
        project = Project(site, "restart", round_size=20, retrain_min_labels=10)
        project.add(write_images(site.images, 60, ("red", "green")))
        project.pretrain()
        batch = project.next_batch("ann", 15)
        project.label("ann", batch["items"][:9], batch=batch["batch"])  # too few for a head

        # A second pretraining, longer than anybody waits, is stopped in the middle.
        site.http.patch(project.at, json={"pretext_epochs": 20}).raise_for_status()
        training = site.post(f"{project.at}/pretrain")
        until(lambda: len(newest_model(project)["history"]) >= 3)
        before = {
            "ranking": project.metrics()["ranking"],
            "labels": project.labels(),
            "rounds": project.rounds(),
            "items": project.items(),
        }
        history = newest_model(project)["history"]
        assert site.stop() == [0, 0]
        assert len(history) < 20

        site.start_service()
        job = site.get(f"/jobs/{training['id']}")
        assert (job["state"], job["attempts"]) == ("queued", 0)  # handed back, and no attempt lost
        after = {
            "ranking": project.metrics()["ranking"],
            "labels": project.labels(),
            "rounds": project.rounds(),
            "items": project.items(),
        }
        for items in (before["items"], after["items"]):  # links are signed anew
            for item in items:
                item.pop("image_url")
        assert after == before
        rest = project.next_batch("ann", 15)
        assert rest["batch"] == batch["batch"]
        assert rest["expires_at"] == batch["expires_at"]
        assert [item["id"] for item in rest["items"]] == [item["id"] for item in batch["items"][9:]]
        assert (
            site.http.get(batch["items"][-1]["image_url"], headers={"Authorization": ""}).status_code == 200
        )

        site.start_workers()
        answer = project.label("ann", rest["items"], batch=rest["batch"])
        assert {result["outcome"] for result in answer["results"]} == {"accepted"}
        assert answer["labels_used"] == 15
        site.done(training)
        finished = newest_model(project)["history"]
        assert len(finished) == 20
        assert finished[: len(history)] == history  # speeds and all: not trained again
        project.settle()
        assert project.metrics()["head"]["trained_on"] == 15
        assert project.metrics()["ranking"]["version"] > before["ranking"]["version"]
        assert project.metrics()["ranking"]["labels_used"] == 15


def newest_model(project: Project) -> dict[str, list[object]]:
    models: list[dict[str, list[object]]] = project.site.get(f"{project.at}/pretext-models")["items"]
    return models[0]

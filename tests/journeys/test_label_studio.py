"""With a real Label Studio: it hands out what is ranked first, what people do there arrives, restarts lose nothing.

The short form labels 16 items; LABEL_STUDIO_JOURNEY=full (`make label-studio-test`) 100, with restarts of either side.
"""

import base64
import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

from tests.journeys.images import write_images
from tests.journeys.label_studio import PROGRAM, TOKEN, RealLabelStudio
from tests.journeys.site import PATIENCE_S, Project, Site, until
from tests.worker.processes import REPOSITORY

FULL = os.environ.get("LABEL_STUDIO_JOURNEY") == "full"
pytestmark = [
    pytest.mark.skipif(
        not PROGRAM.exists(),
        reason="Label Studio is not installed here: `make label-studio-test` does it (1 GB)",
    ),
    pytest.mark.timeout(3000),
]
LABELS = 100 if FULL else 16


@pytest.fixture(scope="module")
def tool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealLabelStudio]:
    with RealLabelStudio(tmp_path_factory.mktemp("label-studio")) as running:
        yield running


def pictures(folder: Path, count: int) -> list[dict[str, Any]]:
    """Tasks, with the class in their data where no machine looks for it."""
    paths = sorted(write_images(folder, count, ("red", "green")).rglob("*.png"), key=lambda path: path.name)
    return [
        {
            "image": f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}",
            "truth": path.parent.name,
        }
        for path in paths
    ]


def connect(site: Site, tool: RealLabelStudio, token: str, into: str) -> None:
    """By the command, as a person would."""
    command = [
        sys.executable,
        "-m",
        "service.cli",
        "connect",
        "label-studio",
        "--url",
        tool.url,
        "--token",
        token,
        "--project",
        str(tool.project),
        "--into",
        into,
        "--callback",
        str(site.http.base_url).rstrip("/"),
    ]
    told = subprocess.run(
        command, env=site._environment, cwd=REPOSITORY, capture_output=True, text=True, timeout=PATIENCE_S
    )
    assert told.returncode == 0, told.stderr
    assert token not in told.stdout + told.stderr


def spearman_is_one(scores: list[float]) -> bool:
    return scores == sorted(scores)


def test_a_life_with_label_studio(tmp_path: Path, sqlite_url: str, tool: RealLabelStudio) -> None:
    with Site(tmp_path, sqlite_url) as site:
        site.start_service()
        site.start_workers()
        rules: dict[str, Any] = {"round_size": 20, "retrain_min_labels": 10, "control_fraction": 0.2}
        project = Project(site, "pets", **rules | {"retrain_min_interval_s": 3})
        tool.create_project("Pets", pictures(site.images, LABELS + 40))
        users = [tool.admin, tool.sign_up("bob@lab.local")]
        connect(site, tool, tool.personal_token() if FULL else TOKEN, "pets")
        at = f"{project.at}/integrations/label-studio"
        told = until(lambda: pushed(site, at))
        assert (told["error"], told["tasks"], told["webhook_accepted"]) == (None, LABELS + 40, True)

        handed: defaultdict[str, list[float]] = defaultdict(
            list
        )  # by model version, the scores in their order
        ranked = 0
        truth: dict[int, str] = {}  # of the tasks that were handed out, in their order
        for number in range(LABELS):
            if FULL and number == 40:  # the service and its worker are killed, and people go on
                restart_site(site)
                connected_again(site, project)
            if FULL and number == 70:
                tool.kill()
                tool.start()
            user = users[number % 2]
            followed = {tool.model_version()}
            task = tool.next_task(user)
            followed.add(tool.model_version())
            truth[task["id"]] = task["data"]["truth"]
            tool.annotate(user, task["id"], truth[task["id"]])
            scores = {each["model_version"]: each["score"] for each in task["predictions"]}
            ranked += not scores.keys().isdisjoint(followed)
            if len(followed) == 1:  # else it may have been handed out by either
                version = followed.pop()
                handed[version].append(scores[version])

        assert len(truth) == LABELS  # nobody got what the other had
        assert all(spearman_is_one(scores) for scores in handed.values()), handed
        assert ranked == LABELS  # none was handed out by chance
        assert sum(map(len, handed.values())) > LABELS / 2
        until(lambda: len(project.labels()) == LABELS)
        assert {(label["key"], label["annotator"], label["class"]) for label in project.labels()} == {
            (f"label-studio/{task}", ("ann@lab.local", "bob@lab.local")[place % 2], class_name)
            for place, (task, class_name) in enumerate(truth.items())
        }
        arms = {label["arm"] for label in project.labels()}
        assert arms == {"selected", "control"}
        if FULL:
            until(lambda: curve(project))
            assert curve(project)[-1] > 0.9

        counts = {version: len(scores) for version, scores in handed.items()}
        sys.stdout.write(f"Handed out, by model version: {counts}. Learning curve: {curve(project)}.\n")

        # What people change there changes here: another class, a second thought, a deletion, a skip.
        tasks = list(truth)
        annotations = tool.admin.get(f"/api/tasks/{tasks[0]}/annotations/").raise_for_status().json()
        other = "green" if truth[tasks[0]] == "red" else "red"
        value = [{"from_name": "label", "to_name": "image", "type": "choices", "value": {"choices": [other]}}]
        tool.admin.patch(
            f"/api/annotations/{annotations[0]['id']}/", json={"result": value}
        ).raise_for_status()
        until(lambda: current(project).get(tasks[0]) == other)
        second = tool.admin.get(f"/api/tasks/{tasks[2]}/annotations/").raise_for_status().json()
        tool.admin.delete(f"/api/annotations/{second[0]['id']}/").raise_for_status()
        until(lambda: tasks[2] not in current(project))
        skipped = tool.next_task(tool.admin)
        tool.annotate(tool.admin, skipped["id"], skip=True)
        until(lambda: current(project).get(skipped["id"], "") is None)
        tool.admin.delete(f"/api/tasks/{tasks[4]}/").raise_for_status()
        until(lambda: site.get(at)["tasks_gone"] == 1)
        assert site.get(at)["error"] is None
        assert tasks[4] in current(project)  # the label is kept


def pushed(site: Site, at: str) -> dict[str, Any] | None:
    told: dict[str, Any] = site.get(at)
    return told if told["model_version"] else None


def current(project: Project) -> dict[int, str | None]:
    """By task, the class that it is labeled with."""
    lines = project.site.http.get(f"{project.at}/labels", headers={"Accept": "application/json"})
    return {
        int(row["key"].rpartition("/")[2]): row["class"]
        for row in (httpx.Response(200, text=line).json() for line in lines.text.splitlines())
    }


def curve(project: Project) -> list[float]:
    return [point["accuracy"] for point in project.metrics()["learning_curve"]]


def restart_site(site: Site) -> None:
    assert site.service is not None
    for worker in list(site.workers):
        site.kill(worker)
    site.service.kill()
    site.service.communicate()
    site._clients.close()
    site.start_service()
    site.start_workers()


def connected_again(site: Site, project: Project) -> None:
    """Its port is another one now, so webhooks go nowhere: what they would have said is found all the same."""
    assert site.get(f"{project.at}/integrations/label-studio")["error"] is None

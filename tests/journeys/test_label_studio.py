"""With a real Label Studio: it hands out what is ranked first, what people do there arrives, restarts lose nothing.

The short form labels 16 items; LABEL_STUDIO_JOURNEY=full (`make label-studio-test`) 100 on either database, with
restarts of either side.
"""

import base64
import io
import os
import re
import secrets
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx2 as httpx
import numpy as np
import pytest
import sqlalchemy as sa
from PIL import Image

from service.store.session import read_session, write_session
from service.store.tables import Item, Reservation, ToolConnection
from tests.browsers import chromium
from tests.journeys.images import COLOURS, true_class, write_images
from tests.journeys.label_studio import PROGRAM, SEVERAL, TOKEN, RealLabelStudio
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
DATABASES = ["sqlite", "postgresql"] if FULL else ["sqlite"]
each_database = pytest.mark.parametrize("database_url", DATABASES, indirect=True)
RULES: dict[str, Any] = {
    "round_size": 20,
    "retrain_min_labels": 10,
    "retrain_min_interval_s": 3,
    "control_fraction": 0.2,
}


@pytest.fixture(scope="module")
def tool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealLabelStudio]:
    with RealLabelStudio(tmp_path_factory.mktemp("label-studio")) as running:
        yield running


@pytest.fixture(scope="module")
def users(tool: RealLabelStudio) -> list[httpx.Client]:
    return [tool.admin, tool.sign_up("bob@lab.local")]


@pytest.fixture
def driver() -> Iterator[Any]:
    with chromium() as driver:
        driver.set_window_size(1440, 900)
        yield driver


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


def connect(site: Site, tool: RealLabelStudio, token: str, into: str, *more: str) -> str:
    """By the command, as a person would; what it prints."""
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
        *more,
    ]
    told = subprocess.run(
        command, env=site._environment, cwd=REPOSITORY, capture_output=True, text=True, timeout=PATIENCE_S
    )
    assert told.returncode == 0, told.stderr
    assert token not in told.stdout + told.stderr
    return told.stdout


def spearman_is_one(scores: list[float]) -> bool:
    return scores == sorted(scores)


@each_database
def test_a_life_with_label_studio(
    tmp_path: Path, database_url: str, tool: RealLabelStudio, users: list[httpx.Client]
) -> None:
    with Site(tmp_path / "site", database_url) as site:
        site.start_service()
        site.start_workers()
        project = Project(site, "pets", **RULES)
        tool.create_project("Pets", pictures(site.images, LABELS + 40))
        connect(site, tool, tool.personal_token() if FULL else TOKEN, "pets", "--pre-annotate")
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

        # The head's class is shown beforehand, but not where chance chose, as those tasks measure.
        shown = until(lambda: shown_beforehand(tool))
        assert [] in shown.values()
        truths = {task["id"]: task["data"]["truth"] for task in tool.tasks()}
        right = [named == [truths[task]] for task, named in shown.items() if named]
        assert np.mean(right) > (0.9 if FULL else 0.6), shown

        # What people change there changes here: another class, a second thought, a deletion, a skip.
        tasks = list(truth)
        other = "green" if truth[tasks[0]] == "red" else "red"
        tool.change(tasks[0], other)
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


@each_database
def test_several_classes_a_task(tmp_path: Path, database_url: str, tool: RealLabelStudio) -> None:
    """`<Choices choice="multiple">`: any set of classes is an answer, also none."""
    wanted = 40 if FULL else 12
    with Site(tmp_path / "site", database_url) as site:
        site.start_service()
        site.start_workers()
        project = Project(site, "mosaics", **RULES, label_kind="multi")
        tool.create_project("Mosaics", mosaics(site.images, wanted + 20), SEVERAL)
        connect(site, tool, TOKEN, "mosaics", "--pre-annotate")
        at = f"{project.at}/integrations/label-studio"
        assert until(lambda: pushed(site, at))["error"] is None
        truth: dict[int, list[str]] = {}
        handed: defaultdict[str, list[float]] = defaultdict(list)
        for _ in range(wanted):
            before = tool.model_version()
            task = tool.next_task(tool.admin)
            truth[task["id"]] = task["data"]["truth"]
            if before == tool.model_version():
                handed[before] += [
                    each["score"] for each in task["predictions"] if each["model_version"] == before
                ]
            tool.annotate(tool.admin, task["id"], *truth[task["id"]])
        assert len(truth) == wanted
        assert [] in truth.values()
        assert ["green", "red"] in truth.values()
        assert all(spearman_is_one(scores) for scores in handed.values()), handed
        assert sum(map(len, handed.values())) > wanted / 2
        until(lambda: len(project.labels()) == wanted)
        assert {row["key"]: row["classes"] for row in project.labels()} == {
            f"label-studio/{task}": classes for task, classes in truth.items()
        }
        until(lambda: curve_of(project, "subset_accuracy") if FULL else project.metrics()["labels_used"])
        told = site.get(at)
        assert (told["error"], told["refused"]) == (None, 0)

        shown = until(lambda: shown_beforehand(tool))
        assert {name for named in shown.values() for name in named} <= {"red", "green"}

        # Second thoughts: another set, and nothing where something was.
        first, second, *_ = (task for task, classes in truth.items() if classes)
        tool.change(first, "green")
        until(lambda: current(project, "classes").get(first) == ["green"])
        tool.change(second)
        until(lambda: current(project, "classes").get(second) == [])
        exported = site.http.get(f"{project.at}/labels", params={"format": "label-studio"}).json()
        results = {task["data"]["key"]: task["annotations"][0]["result"] for task in exported}
        assert results[f"label-studio/{second}"] == []
        assert [one["value"]["choices"] for one in results[f"label-studio/{first}"]] == [["green"]]


def mosaics(folder: Path, count: int) -> list[dict[str, Any]]:
    """Pictures with a red half, a green half, both or none."""
    sets = [["red"], ["green"], ["green", "red"], []]
    tasks = []
    rng = np.random.default_rng(0)
    for number in range(count):
        classes = sets[number % len(sets)]
        pixels = rng.normal(128, 20, (16, 16, 3))
        for place, name in ((slice(0, 8), "red"), (slice(8, 16), "green")):
            if name in classes:
                pixels[place] += np.array(COLOURS[name]) - 128
        file = io.BytesIO()
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file, "PNG")
        encoded = base64.b64encode(file.getvalue()).decode()
        tasks.append({"image": f"data:image/png;base64,{encoded}", "truth": classes})
    return tasks


@each_database
def test_a_small_project_is_kept_filled(
    tmp_path: Path, database_url: str, tool: RealLabelStudio, users: list[httpx.Client]
) -> None:
    """Batch push: the pool is here, and whoever annotates there gets the next items, each once."""
    with Site(tmp_path / "site", database_url) as site:
        site.start_service()
        site.start_workers()
        project = Project(site, "filled", **RULES)
        write_images(site.images, LABELS + 40, ("red", "green"))
        project.register(site.images)
        project.pretrain()
        tool.create_project("Filled", [])
        connect(site, tool, TOKEN, "filled", "--batch-push", "--low-water", "4", "--pre-annotate")
        at = f"{project.at}/integrations/label-studio"
        handed: list[str] = []
        truth: dict[str, str] = {}
        for number in range(LABELS):
            if FULL and number in (30, 60):  # killed as soon as the tool has the next tasks
                until(partial(filled, tool, number))
                restart_site(site)
            if FULL and number == 80:
                tool.kill()
                tool.start()
            user = users[number % 2]
            task = until(partial(tool.next_or_none, user))
            key = str(task["data"]["key"])
            handed.append(key)
            truth[key] = true_class(key)
            tool.annotate(user, task["id"], truth[key])
        until(lambda: len(project.labels()) == LABELS)
        until(lambda: site.get(at)["tasks_open"] >= 4)
        assert site.get(at)["error"] is None
        keys = [task["data"]["key"] for task in tool.tasks()]
        assert len(keys) == len(set(keys))  # no item is a task twice
        assert handed == keys[:LABELS]  # as they were made, and …
        assert served(site)[:LABELS] == handed  # … reserved: selected ones as ranked, control ones among them
        labels = project.labels()
        assert {(row["key"], row["annotator"], row["class"]) for row in labels} == {
            (key, ("ann@lab.local", "bob@lab.local")[place % 2], truth[key])
            for place, key in enumerate(handed)
        }
        arms = [row["arm"] for row in labels]
        assert set(arms) == {"selected", "control"}
        assert abs(arms.count("control") - LABELS / 5) <= 3
        assert len(project.items()) == LABELS + 40  # what came back is what went out

        # An open task of an item that is withdrawn goes, and another one comes.
        open_task = next(task for task in tool.tasks() if not task["annotations"])
        item = open_task["data"]["shortlist_item"].partition(".")[0]
        site.post(f"{project.at}/items/withdraw", {"items": [item]})
        site.post(f"{at}/sync")
        until(lambda: open_task["id"] not in {task["id"] for task in tool.tasks()})
        predicted = [each for task in tool.tasks() for each in task["predictions"]]
        assert {each["model_version"] for each in predicted} == {"shortlist"}
        assert {each["result"][0]["type"] for each in predicted} == {"choices"}


def test_connect_model(tmp_path: Path, sqlite_url: str, tool: RealLabelStudio) -> None:
    """Its dialog finds a model that is connected, its action stores scores, and the webhook that it makes is heard."""
    with Site(tmp_path / "site", sqlite_url) as site:
        site.start_service()
        project = Project(site, "model", **RULES)
        tool.create_project("By model", pictures(site.images, 4))
        password = connect(site, tool, TOKEN, "model").rpartition("password ")[2].strip()
        until(lambda: site.get(f"{project.at}/integrations/label-studio")["tasks"] == 4)
        url = f"{str(site.http.base_url).rstrip('/')}/integrations/label-studio/{project.json['id']}"
        model = {
            "project": tool.project,
            "title": "shortlist",
            "url": url,
            "auth_method": "BASIC_AUTH",
            "basic_auth_user": "shortlist",
            "basic_auth_pass": password,
        }
        wrong = tool.admin.post("/api/ml/", json=model | {"basic_auth_pass": "wrong"})
        assert wrong.status_code == 400, wrong.text
        made = tool.admin.post("/api/ml/", json=model)
        assert made.status_code == 201, made.text
        assert tool.admin.get(f"/api/ml/{made.json()['id']}").raise_for_status().json()["state"] == "CO"
        action: dict[str, str | int] = {"id": "retrieve_tasks_predictions", "project": tool.project}
        everything = {"selectedItems": {"all": True, "excluded": []}}
        tool.admin.post("/api/dm/actions", params=action, json=everything).raise_for_status()
        shown = [each for task in tool.tasks() for each in task["predictions"]]
        # Before there is a ranking none is wanted more than another one.
        assert [(each["score"], each["model_version"]) for each in shown] == [(1.0, "shortlist")] * 4

        with write_session(site.engine) as session:  # as if a minute had passed
            session.execute(sa.update(ToolConnection).values(next_at=0.0))
        hooks = f"/api/webhooks/?project={tool.project}"
        until(lambda: all(hook["headers"] for hook in tool.admin.get(hooks).raise_for_status().json()))
        task = tool.tasks()[0]
        tool.annotate(tool.admin, task["id"], task["data"]["truth"])
        until(lambda: len(project.labels()) == 1)


def test_once_through_its_page(tmp_path: Path, sqlite_url: str, tool: RealLabelStudio, driver: Any) -> None:
    """In a browser: somebody signs in, labels five tasks, and gets them in our order."""
    with Site(tmp_path / "site", sqlite_url) as site:
        site.start_service()
        site.start_workers()
        project = Project(site, "page", **RULES)
        tool.create_project("By hand", pictures(site.images, 24))
        connect(site, tool, TOKEN, "page")
        until(lambda: pushed(site, f"{project.at}/integrations/label-studio"))
        project.settle()
        newest = f"shortlist-{project.metrics()['ranking']['version']}"
        until(lambda: tool.model_version() == newest)
        scores = {
            task["id"]: each["score"]
            for task in tool.tasks()
            for each in task["predictions"]
            if each["model_version"] == newest
        }
        truth = {task["id"]: task["data"]["truth"] for task in tool.tasks()}
        password = secrets.token_hex(12)
        tool.sign_up("dee@lab.local", password)

        page = Page(driver)
        driver.get(f"{tool.url}/user/login/")
        page.see("//input[@name='email']").send_keys("dee@lab.local")
        page.see("//input[@name='password']").send_keys(password)
        page.see("//button[@type='submit']").click()
        page.see("//*[contains(text(), 'By hand')]")
        driver.get(f"{tool.url}/projects/{tool.project}/data")
        page.see("//button[contains(., 'Label All Tasks')]").click()
        handed: list[int] = []
        for _ in range(5):
            task = until(lambda: page.another_task(handed))
            handed.append(task)
            page.see(f"//label[contains(., '{truth[task]}')]").click()
            driver.save_screenshot(str(tmp_path / f"task-{len(handed)}.png"))
            page.see("//button[@aria-label='Submit current annotation']").click()
        until(lambda: len(project.labels()) == 5)
        assert tool.model_version() == newest
        assert handed == sorted(scores, key=lambda task: scores[task])[:5]
        assert {(row["key"], row["annotator"], row["class"]) for row in project.labels()} == {
            (f"label-studio/{task}", "dee@lab.local", truth[task]) for task in handed
        }
        driver.get("about:blank")


class Page:
    """Label Studio's, in a browser."""

    def __init__(self, driver: Any) -> None:
        self._driver = driver

    def see(self, xpath: str) -> Any:
        """The first such element, once it is there and shown."""
        return until(lambda: next(iter(self._shown(xpath)), None))

    def _shown(self, xpath: str) -> list[Any]:
        from selenium.common.exceptions import StaleElementReferenceException

        try:
            return [each for each in self._driver.find_elements("xpath", xpath) if each.is_displayed()]
        except StaleElementReferenceException:  # it was drawn anew meanwhile
            return []

    def another_task(self, seen: list[int]) -> int | None:
        """The number of the task that is shown, with its choices, once it is none of these."""
        text = str(self._driver.execute_script("return document.body.innerText"))
        found = re.search(r"^(\d+)\n\d+ of \d+$", text, re.MULTILINE)  # before it stands a # of its own
        number = int(found[1]) if found else None
        return number if number not in seen and self._shown("//label[contains(., 'red')]") else None


def filled(tool: RealLabelStudio, done: int) -> bool:
    """As many tasks are open as `--low-water` promises: with four left, none need come."""
    return len(tool.tasks()) >= done + 4


def served(site: Site) -> list[str]:
    """Keys of items in the order in which they were reserved; those of a batch that are of the ranking, by rank."""
    with read_session(site.engine) as session:
        query = sa.select(Item.key, Reservation.batch_id, Reservation.rank, Reservation.ranking_id)
        rows = session.execute(
            query.join(Item, Item.id == Reservation.item_id).order_by(
                Reservation.batch_id, Reservation.position
            )
        ).all()
    ranks: defaultdict[int, list[int]] = defaultdict(list)
    for row in rows:
        if row.rank is not None:
            ranks[row.ranking_id].append(row.rank)
    assert all(found == sorted(found) for found in ranks.values()), ranks
    return [row.key for row in rows]


def shown_beforehand(tool: RealLabelStudio) -> dict[int, list[str]] | None:
    """By open task, the classes of the prediction that it shows; None while the ranking it follows had no head."""
    version = tool.model_version()
    shown = {
        task["id"]: [name for each in prediction["result"] for name in each["value"]["choices"]]
        for task in tool.tasks()
        for prediction in task["predictions"]
        if prediction["model_version"] == version and not task["annotations"]
    }
    return shown if any(shown.values()) else None


def pushed(site: Site, at: str) -> dict[str, Any] | None:
    told: dict[str, Any] = site.get(at)
    return told if told["model_version"] else None


def current(project: Project, field: str = "class") -> dict[int, Any]:
    """By task, the class, or the classes, that it is labeled with."""
    lines = project.site.http.get(f"{project.at}/labels", headers={"Accept": "application/json"})
    return {
        int(row["key"].rpartition("/")[2]): row[field]
        for row in (httpx.Response(200, text=line).json() for line in lines.text.splitlines())
    }


def curve(project: Project) -> list[float]:
    return curve_of(project, "accuracy")


def curve_of(project: Project, metric: str) -> list[float]:
    return [point[metric] for point in project.metrics()["learning_curve"]]


def restart_site(site: Site) -> None:
    assert site.service is not None
    for worker in list(site.workers):
        site.kill(worker)
    site.service.kill()
    site.service.communicate()
    site._clients.close()
    site.start_service()
    until(lambda: site.live_workers() == 0)  # else the killed ones count
    site.start_workers()


def connected_again(site: Site, project: Project) -> None:
    """Its port is another one now, so webhooks go nowhere: what they would have said is found all the same."""
    assert site.get(f"{project.at}/integrations/label-studio")["error"] is None

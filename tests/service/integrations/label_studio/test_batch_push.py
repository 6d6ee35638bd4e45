"""A small project of the tool is kept filled with the next items: in their order, in their arms, each once."""

import base64
import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from service.content.reader import content_hash_of
from service.integrations.label_studio.connections import LeaseLost
from service.store.session import read_session, write_session
from service.store.tables import Item, Project, RankedItem, Reservation, ToolConnection, ToolTask, utc_now
from tests import factories
from tests.journeys.sounds import recording
from tests.service.integrations.label_studio.conftest import Site
from tests.service.integrations.label_studio.fake import (
    TEXTS,
    FakeLabelStudio,
    chosen,
    data_uri,
    picture,
)

on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
POOL = 40


class Pool:
    """A project with a folder of pictures, 0.png, 1.png, …, and a small project of the tool that is kept filled."""

    def __init__(self, site: Site, tool: FakeLabelStudio, folder: Path) -> None:
        self.site, self.tool, self.folder = site, tool, folder

    def make(self, *, low_water: int = 4, pre_annotate: bool = False, **settings: Any) -> None:
        self.site.project(**{"control_fraction": 0} | settings)
        items = []
        for number in range(POOL):
            path = self.folder / f"{number}.png"
            path.write_bytes(picture(number))
            items.append({"key": path.name, "uri": str(path)})
        answer = self.site.client.post("/projects/p_1/items", json={"items": items})
        assert answer.json()["added"] == POOL, answer.text
        body: dict[str, Any] = {"batch_push": True, "low_water": low_water, "pre_annotate": pre_annotate}
        answer = self.site.connect(self.tool, **body)
        assert answer.status_code == 201, answer.text

    def rank(self, *numbers: int) -> None:
        """A new ranking, the first one wanted most, with a prediction each."""
        with write_session(self.site.engine) as session:
            project = session.get_one(Project, 1)
            by_key = {item.key: item for item in session.scalars(sa.select(Item))}
            items = [by_key[f"{number}.png"] for number in numbers]
            run = factories.make_score_run(session, project=project)
            ranking = factories.make_ranking(session, project=project, score_run=run, items=items)
            predicted = sa.update(RankedItem).where(RankedItem.ranking_id == ranking.id)
            session.execute(predicted.values(predicted_class="dog", predicted_probability=0.75))
            project.score_run_id, project.ranking_id = run.id, ranking.id

    def open(self) -> list[int]:
        """The pictures, in the order in which the tool hands them out."""
        return [self.picture(task) for task in self.tool.open_tasks()]

    def picture(self, task: int) -> int:
        return int(str(self.tool.tasks[task]["data"]["key"]).removesuffix(".png"))

    def task(self, number: int) -> int:
        return next(task for task in self.tool.tasks if self.picture(task) == number)

    def annotate(self, number: int, name: str = "cat", by: int = 1) -> None:
        self.tool.annotate(self.task(number), chosen(name), by)

    def held(self) -> list[tuple[str, str, str]]:
        """Item, annotator and state of all reservations, in their order."""
        with read_session(self.site.engine) as session:
            query = sa.select(Item.key, Reservation.annotator, Reservation.state)
            query = query.join(Item, Item.id == Reservation.item_id).order_by(Reservation.id)
            return [(key, annotator, state) for key, annotator, state in session.execute(query)]

    def withdraw(self, *numbers: int) -> None:
        with read_session(self.site.engine) as session:
            keys = [f"{number}.png" for number in numbers]
            found = session.scalars(sa.select(Item.id).where(Item.key.in_(keys))).all()
        body = {"items": [f"i_{number}" for number in found]}
        answer = self.site.client.post("/projects/p_1/items/withdraw", json=body)
        assert answer.status_code == 200, answer.text


@pytest.fixture
def pool(site: Site, tool: FakeLabelStudio, tmp_path: Path) -> Pool:
    return Pool(site, tool, tmp_path)


def test_the_next_items_are_tasks_in_their_order(pool: Pool, site: Site, tool: FakeLabelStudio) -> None:
    pool.make(low_water=3)
    pool.rank(*range(9, -1, -1))
    told = site.look()
    assert (told["error"], told["tasks"], told["tasks_open"], told["batch_push"]) == (None, 6, 6, True)
    assert tool.sampling == "Sequential sampling"
    assert pool.open() == [9, 8, 7, 6, 5, 4]
    assert tool.predictions == []
    shown = str(tool.tasks[pool.task(9)]["data"]["image"])
    assert base64.b64decode(shown.removeprefix("data:image/png;base64,")) == picture(9)
    assert site.count(Item) == POOL  # what comes back is what went out
    with site.engine.begin() as connection:  # on a slow machine a full look would be due soon
        connection.execute(sa.update(ToolConnection).values(next_at=4e9))
    tool.calls.clear()
    for _ in range(3):
        site.look(full=False)
    assert tool.calls == ["GET /api/tasks"] * 3  # enough is there: a hint costs the tool one call


def test_it_is_filled_up_when_little_is_left(pool: Pool, site: Site) -> None:
    pool.make(low_water=3)
    pool.rank(*range(10))
    site.look()
    for number in (0, 1, 2):
        pool.annotate(number)
    site.look(full=False)
    assert pool.open() == [3, 4, 5]
    pool.annotate(3)
    pool.rank(20, 21, 22, 23, 24, 25)
    site.look(full=False)
    assert pool.open() == [4, 5, 20, 21, 22, 23]  # what is there is not taken away: somebody may be at it
    assert {(row["key"], row["class"], row["arm"], row["ranking"]) for row in site.labels()} == {
        (f"{number}.png", "cat", "selected", "r_1") for number in range(4)
    }
    assert [row for row in pool.held() if row[2] == "labeled"] == [
        (f"{number}.png", "ann@lab.local", "labeled") for number in range(4)
    ]


def test_nobody_else_gets_what_is_open_there(pool: Pool, site: Site) -> None:
    pool.make(low_water=2)
    pool.rank(*range(12))
    site.look()
    batch = site.client.post("/projects/p_1/next-batch", json={"annotator": "cleo", "size": 3}).json()
    assert [item["key"] for item in batch["items"]] == ["4.png", "5.png", "6.png"]
    for number in range(4):
        pool.annotate(number)
    site.look(full=False)
    assert pool.open() == [7, 8, 9, 10]
    site.client.delete("/projects/p_1/integrations/label-studio")
    assert {row[2] for row in pool.held() if row[1] == "label-studio"} == {"released"}


def test_two_open_tasks_for_each_annotator(pool: Pool, site: Site, tool: FakeLabelStudio) -> None:
    pool.make(low_water=1)
    pool.rank(*range(30))
    site.look()
    assert pool.open() == [0, 1]
    tool.users |= {number: f"{number}@lab.local" for number in range(3, 6)}
    for number in (0, 1):
        for by in range(1, 6):
            pool.annotate(number, by=by)
    site.look()
    assert len(pool.open()) == 20  # five of them: filled below ten


def test_control_items_come_in_their_share_and_labels_say_so(
    pool: Pool, site: Site, tool: FakeLabelStudio
) -> None:
    pool.make(low_water=2, control_fraction=0.25, round_size=100)
    with read_session(site.engine) as session:
        order = session.scalars(sa.select(Item.key).order_by(Item.shuffle)).all()
    by_chance = [int(key.removesuffix(".png")) for key in order[:10]]
    pool.rank(*(number for number in range(POOL) if number not in by_chance))
    for _ in range(8):
        site.look(full=False)
        for number in pool.open()[:3]:
            pool.annotate(number)
    site.look()
    arms = [row["arm"] for row in site.labels()]
    assert (len(arms), arms.count("control"), set(arms)) == (24, 6, {"control", "selected"})
    control = {int(row["key"].removesuffix(".png")) for row in site.labels() if row["arm"] == "control"}
    assert control <= set(by_chance)


def test_what_is_no_work_any_more_goes(pool: Pool, site: Site, tool: FakeLabelStudio) -> None:
    pool.make(low_water=4)
    pool.rank(*range(20))
    site.look()
    pool.withdraw(1, 2)
    labels = [{"item": f"i_{number + 1}", "class": "cat", "annotator": "cleo"} for number in (3, 4, 5)]
    assert site.client.post("/projects/p_1/labels", json={"labels": labels}).status_code == 200
    tool.tasks[pool.task(5)]["drafts"] = [{"id": 1}]  # somebody has begun it
    told = site.look()
    assert told["error"] is None
    assert pool.open() == [0, 5, 6, 7, 8, 9, 10, 11, 12]
    assert (told["tasks_open"], told["tasks_gone"]) == (8, 4)
    del tool.tasks[pool.task(5)]["drafts"]
    assert site.look()["error"] is None
    assert 5 not in pool.open()
    assert len([row for row in pool.held() if row[1:] == ("label-studio", "open")]) == 8


def test_a_task_that_somebody_deletes_is_made_again(pool: Pool, site: Site, tool: FakeLabelStudio) -> None:
    pool.make(low_water=20)
    pool.rank(*range(POOL))
    assert site.look()["tasks_open"] == POOL
    before = dict(tool.tasks)
    tool.tasks.clear()
    assert site.look()["error"] is None
    assert pool.open() == list(range(POOL))
    assert not before.keys() & tool.tasks.keys()


KILLS = [
    "before it is asked",
    "before it answers",
    "half way",
    "before it is noted",
    "long before it does it",
]


@pytest.mark.parametrize("killed", KILLS)
def test_nothing_is_made_twice_if_either_side_is_killed(
    pool: Pool, site: Site, tool: FakeLabelStudio, killed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.integrations.label_studio.batch_push.CALL_BYTES", 1)  # a task a call
    pool.make(low_water=3)
    pool.rank(*range(10))
    imports: list[str] = []
    late: list[dict[str, Any]] = []

    def down(call: str) -> None:
        if call.endswith("/import"):
            imports.append(call)
            tool.down = len(imports) == (4 if killed == "half way" else 1)

    def lease_lost(call: str) -> None:
        if call.endswith("/import"):
            tool.after = lambda call: None
            with site.engine.begin() as connection:
                connection.execute(sa.update(ToolConnection).values(lease_token=99))

    if killed == "before it is asked":
        tool.before = down
    elif (
        killed == "long before it does it"
    ):  # it answers with an error, and stores the task all the same, later

        def hold_back(call: str) -> None:
            if call.endswith("/import"):
                late.append(tool.tasks.pop(max(tool.tasks)))
                tool.down = True

        tool.after = hold_back
    else:
        tool.after = lease_lost if killed == "before it is noted" else down
    if killed == "before it is noted":
        with pytest.raises(LeaseLost):
            site.look()
        with site.engine.begin() as connection:
            connection.execute(sa.update(ToolConnection).values(lease_until=0.0))
    else:
        assert "502" in site.look()["error"]
    tool.down = False
    tool.before = tool.after = lambda call: None
    told = site.look()
    assert (told["error"], told["tasks_open"]) == (None, 6)
    for task in late:  # … as late as after it was made again
        tool.add_task(**task["data"])
        assert site.look()["error"] is None
        assert site.look()["tasks_open"] == 6
    assert sorted(pool.open()) == list(range(6))
    assert site.count(Item) == POOL
    site.look()
    assert sorted(pool.open()) == list(range(6))


def test_an_answer_that_came_while_nobody_looked(pool: Pool, site: Site, tool: FakeLabelStudio) -> None:
    """The service was down for longer than reservations hold, and people went on."""
    pool.make(low_water=2)
    pool.rank(*range(10))
    site.look()
    with site.engine.begin() as connection:
        connection.execute(sa.update(Reservation).values(expires_at=utc_now() - timedelta(seconds=1)))
    site.client.post("/projects/p_1/next-batch", json={"annotator": "cleo", "size": 1})  # it gets the first
    for number in range(4):
        pool.annotate(number)
    assert site.look()["error"] is None
    assert {(row["key"], row["annotator"], row["arm"]) for row in site.labels()} == {
        (f"{number}.png", "ann@lab.local", "selected") for number in range(4)
    }
    assert site.client.get("/projects/p_1/metrics").json()["labels_used"] == 4
    assert pool.open() == [4, 5, 6, 7]


def test_skipped_tasks_are_no_work_for_who_skipped_them(
    pool: Pool, site: Site, tool: FakeLabelStudio
) -> None:
    pool.make(low_water=2)
    pool.rank(*range(10))
    site.look()
    for number in range(4):
        tool.annotate(pool.task(number), [], cancelled=True)
    site.look()
    site.look()
    assert pool.open() == [4, 5, 6, 7]
    assert {row["skip"] for row in site.labels()} == {"other"}


def test_several_annotators_a_task(pool: Pool, site: Site) -> None:
    """With `overlap` 2 the tool hands a task to two; it is not made twice for that."""
    pool.make(low_water=2, overlap=2)
    pool.rank(*range(10))
    site.look()
    for number in (0, 1, 2):
        pool.annotate(number, by=1)
    site.look()
    assert pool.open() == [3, 4, 5, 6]
    for number in (0, 1):
        pool.annotate(number, by=2)
    site.look()
    assert site.client.get("/projects/p_1/items/i_1").json()["state"] == "done"
    assert {(row["annotator"], row["arm"]) for row in site.labels() if row["key"] == "0.png"} == {
        ("ann@lab.local", "selected"),
        ("bob@lab.local", "selected"),
    }


@on_sqlite
def test_gold_items_stay_here(pool: Pool, site: Site, tool: FakeLabelStudio) -> None:
    pool.make(low_water=3, gold_fraction=0.5)
    with site.engine.begin() as connection:
        gold = sa.update(Item).where(Item.id.in_([1, 2, 3]))
        connection.execute(gold.values(gold=True, state="done", class_name="cat"))
    pool.rank(*range(3, 12))
    site.look()
    assert pool.open() == [3, 4, 5, 6, 7, 8]


@on_sqlite
def test_the_head_s_class_is_shown_where_it_is_wanted(pool: Pool, site: Site, tool: FakeLabelStudio) -> None:
    pool.make(low_water=4, pre_annotate=True, control_fraction=0.25)
    with read_session(site.engine) as session:
        first = session.scalars(sa.select(Item.key).order_by(Item.shuffle).limit(10)).all()
    by_chance = {int(key.removesuffix(".png")) for key in first}
    pool.rank(*(number for number in range(POOL) if number not in by_chance))
    site.look()
    shown = {pool.picture(each["task"]): each for each in tool.predictions}
    assert shown.keys() == set(pool.open()) - by_chance  # people are not swayed where chance chose
    assert len(shown) == 6
    for each in shown.values():
        assert (each["result"], each["score"], each["model_version"]) == (chosen("dog"), 0.75, "shortlist")


@on_sqlite
def test_texts(site: Site, tool: FakeLabelStudio) -> None:
    tool.label_config = TEXTS
    site.project(control_fraction=0, modality="text")
    items = [{"key": f"t{number}", "text": f"Zoë likes cat {number}"} for number in range(3)]
    assert site.client.post("/projects/p_1/items", json={"items": items}).json()["added"] == 3
    site.connect(tool, batch_push=True)
    assert site.look()["error"] is None
    shown = {task["data"]["key"]: task["data"]["text"] for task in tool.tasks.values()}
    assert shown == {f"t{number}": f"Zoë likes cat {number}" for number in range(3)}
    assert site.count(Item) == 3


@on_sqlite
def test_recordings(site: Site, tool: FakeLabelStudio, tmp_path: Path) -> None:
    tool.label_config = TEXTS.replace("Text name", "Audio name")
    (tmp_path / "rise.wav").write_bytes(recording("rise", 1))
    site.project(control_fraction=0, modality="audio")
    items = [{"key": "rise.wav", "uri": str(tmp_path / "rise.wav")}]
    assert site.client.post("/projects/p_1/items", json={"items": items}).json()["added"] == 1
    site.connect(tool, batch_push=True)
    assert site.look()["error"] is None
    (task,) = tool.tasks.values()
    sound = str(task["data"]["text"]).removeprefix("data:audio/wav;base64,")
    assert base64.b64decode(sound) == recording("rise", 1)
    assert site.count(Item) == 1


@on_sqlite
def test_what_people_bring_is_an_item_and_stays(pool: Pool, site: Site, tool: FakeLabelStudio) -> None:
    """Also a task that says it is another project's, or one that was made for an item there."""
    pool.make(low_water=3)
    foreign = [
        tool.add_task(image=data_uri(picture(900)), shortlist_item="i_1.0123456789abcdef"),
        tool.add_task(image=data_uri(picture(901)), shortlist_item=["no", "text"]),
    ]
    pool.rank(*range(10))
    assert site.look()["error"] is None
    assert site.count(Item) == POOL + 2
    assert len(tool.open_tasks()) == 6
    site.client.post("/projects/p_1/items/withdraw", json={"items": [f"i_{POOL + 1}", f"i_{POOL + 2}"]})
    site.look()
    assert set(foreign) <= tool.tasks.keys()


@on_sqlite
def test_connecting_again_finds_the_tasks(pool: Pool, site: Site, tool: FakeLabelStudio) -> None:
    pool.make(low_water=3)
    pool.rank(*range(10))
    site.look()
    site.client.delete("/projects/p_1/integrations/label-studio")
    site.connect(tool, batch_push=True, low_water=3)
    assert site.look()["error"] is None
    assert sorted(pool.open()) == list(range(6))
    with read_session(site.engine) as session:
        assert session.scalar(sa.select(sa.func.count()).where(ToolTask.pushed)) == 6
    assert site.count(Item) == POOL


@on_sqlite
def test_an_item_that_cannot_be_read_waits(pool: Pool, site: Site, tool: FakeLabelStudio) -> None:
    pool.make(low_water=3)
    with site.engine.begin() as connection:
        mark = sa.update(Item).where(Item.key == "1.png")
        connection.execute(mark.values(content_hash=content_hash_of(picture(1))))
    (pool.folder / "1.png").unlink()
    pool.rank(*range(10))
    told = site.look()
    assert "i_2" in told["error"]
    assert pool.open() == [0, 2, 3, 4, 5]
    (pool.folder / "1.png").write_bytes(picture(1))
    assert site.look()["error"] is None
    assert pool.open() == [0, 2, 3, 4, 5, 1]


@on_sqlite
def test_a_large_picture_is_shown_smaller(
    pool: Pool, site: Site, tool: FakeLabelStudio, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.integrations.label_studio.batch_push._LARGEST", 10)
    monkeypatch.setattr("service.integrations.label_studio.batch_push._SMALLER", 16)
    pool.make(low_water=1)
    pool.rank(0, 1, 2)
    site.look()
    shown = {str(task["data"]["image"]).partition(",")[0] for task in tool.tasks.values()}
    assert shown <= {"data:image/jpeg;base64", "data:image/png;base64", "data:image/webp;base64"}
    assert json.dumps(shown.pop())


def test_a_paused_project_is_not_filled(pool: Pool, site: Site, tool: FakeLabelStudio) -> None:
    pool.make(low_water=2)
    site.client.patch("/projects/p_1", json={"state": "paused"})
    pool.rank(*range(10))
    site.look()
    assert tool.tasks == {}
    site.client.patch("/projects/p_1", json={"state": "active"})
    site.look()
    assert pool.open() == [0, 1, 2, 3]

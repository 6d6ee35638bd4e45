"""Tasks and annotations come in, rankings go out; nothing twice, nothing lost, whatever happens in between."""

from typing import Any

import pytest
import sqlalchemy as sa

from service.content.reader import content_hash_of
from service.integrations.label_studio.connections import LeaseLost
from service.store import class_sets
from service.store.session import read_session, write_session
from service.store.tables import Item, Label, Project, ToolAnnotation, ToolConnection, ToolTask
from tests.journeys.sounds import recording
from tests.service.integrations.label_studio import fake as fakes
from tests.service.integrations.label_studio.conftest import Site
from tests.service.integrations.label_studio.fake import (
    BOXES,
    PERSONAL,
    TEXTS,
    FakeLabelStudio,
    boxed,
    chosen,
    picture,
)

on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@pytest.fixture
def connected(site: Site, tool: FakeLabelStudio) -> Site:
    """Five pictures, looked at once."""
    tool.add_pictures(5)
    site.project(control_fraction=0)
    assert site.connect(tool).status_code == 201
    assert site.look()["error"] is None
    return site


def test_tasks_become_items_and_annotations_labels(site: Site, tool: FakeLabelStudio) -> None:
    tool.add_pictures(3)
    tool.files["/data/upload/7/four.png"] = picture(400)
    tool.add_task(image="/data/upload/7/four.png")
    tool.annotate(2, chosen("dog"), by=2)
    tool.annotate(3, [], cancelled=True)
    site.project()
    assert site.connect(tool).status_code == 201
    told = site.look()
    assert (told["error"], told["tasks"], told["annotations"], told["refused"]) == (None, 4, 2, 0)
    with read_session(site.engine) as session:
        items = session.scalars(sa.select(Item).order_by(Item.id)).all()
        assert [(item.key, item.facts["width"] if item.facts else None) for item in items] == [
            (f"label-studio/{number}", 16) for number in range(1, 5)
        ]
    shown = site.client.get(site.client.get("/projects/p_1/items/i_4").json()["content"]["url"])
    assert shown.content == picture(400)
    (dog, skipped) = site.labels()
    assert (dog["annotator"], dog["class"], dog["arm"], dog["duration_ms"]) == (
        "bob@lab.local",
        "dog",
        "imported",
        1500,
    )
    assert dog["annotation"]["result"] == chosen("dog")
    assert (skipped["skip"], skipped["annotator"]) == ("other", "ann@lab.local")
    assert tool.sampling == "Uncertainty sampling"
    jobs = {job["kind"] for job in site.client.get("/projects/p_1/metrics").json()["jobs"]}
    assert jobs == {"score_raw", "train_pretext"}


@on_sqlite
def test_texts_come_as_texts(site: Site, tool: FakeLabelStudio) -> None:
    tool.label_config = TEXTS
    tool.add_task(text="Zoë likes cats")
    tool.add_task(text="")
    tool.add_task(other="nothing to show")
    site.project()
    assert site.connect(tool).status_code == 201
    told = site.look()
    assert (told["error"], told["tasks"], told["refused"]) == (None, 3, 2)
    assert told["refusals"][0] == "Task 2 is no item: its data has no text in 'text'."
    (item,) = site.client.get("/projects/p_1/items").json()["items"]
    assert item["content"]["text"] == "Zoë likes cats"


@on_sqlite
def test_recordings_and_texts_at_places(site: Site, tool: FakeLabelStudio) -> None:
    tool.label_config = TEXTS.replace("Text name", "Audio name")
    tool.files["/data/upload/7/rise.wav"] = recording("rise", 1)
    tool.add_task(text="/data/upload/7/rise.wav")
    tool.add_task(text=fakes.data_uri(b"no sound"))
    site.project()
    assert site.connect(tool).status_code == 201
    told = site.look()
    assert (told["error"], told["tasks"], told["refused"]) == (None, 2, 1)
    (item,) = site.client.get("/projects/p_1/items").json()["items"]
    assert item["facts"]["rate"] == 8_000
    assert site.client.get(item["content"]["url"]).content == recording("rise", 1)

    site.client.delete("/projects/p_1/integrations/label-studio")
    tool.label_config = TEXTS.replace("Text name", 'Text valueType="url" name')
    tool.files["/data/upload/7/note.txt"] = "Zoë likes cats".encode()
    tool.tasks.clear()
    tool.add_task(text="/data/upload/7/note.txt")
    site.project(name="notes")
    assert site.connect(tool, "p_2").status_code == 201
    assert site.look(project="p_2")["error"] is None
    (item,) = site.client.get("/projects/p_2/items").json()["items"]
    assert item["content"]["text"] == "Zoë likes cats"


def test_looking_again_stores_nothing_twice(connected: Site, tool: FakeLabelStudio) -> None:
    tool.annotate(1, chosen("cat"))
    for _ in range(3):
        connected.look()
    assert (connected.count(Item), connected.count(ToolTask), connected.count(Label)) == (5, 5, 1)
    assert connected.count(ToolAnnotation) == 1


def test_an_annotation_is_changed_and_deleted(connected: Site, tool: FakeLabelStudio) -> None:
    annotation = tool.annotate(1, chosen("cat"))
    connected.look()
    assert connected.said() == {"1": ("ann@lab.local", "cat")}
    tool.change(annotation, chosen("dog"))
    connected.look()
    assert connected.said() == {"1": ("ann@lab.local", "dog")}
    second = tool.annotate(1, chosen("cat"))
    connected.look()
    assert connected.said() == {"1": ("ann@lab.local", "cat")}
    tool.delete(second)  # the one before counts again
    connected.look()
    assert connected.said() == {"1": ("ann@lab.local", "dog")}
    tool.delete(annotation)
    connected.look()
    assert connected.said() == {}
    item = connected.client.get("/projects/p_1/items/i_1").json()
    assert (item["state"], item["class"]) == ("available", None)
    assert [row["revision"] for row in connected.labels("?all=true")] == [1, 2, 3, 4, 5]


def test_the_order_of_tasks_is_the_ranking(connected: Site, tool: FakeLabelStudio) -> None:
    version = connected.rank(4, 2, 5, 1, 3)
    told = connected.look()
    assert (told["model_version"], told["predictions"]) == (f"shortlist-{version}", 5)
    assert tool.order() == [4, 2, 5, 1, 3]
    assert [each["score"] for each in tool.predictions] == [0.0, 0.2, 0.4, 0.6, 0.8]
    tool.annotate(4, chosen("cat"))
    connected.look()
    (label,) = connected.labels()
    assert (label["arm"], label["ranking"]) == ("selected", "r_1")
    newer = connected.rank(3, 1, 2)
    connected.look()
    assert tool.order() == [3, 1, 2]
    assert {each["model_version"] for each in tool.predictions} == {f"shortlist-{newer}"}


def test_a_hint_costs_the_tool_one_call(connected: Site, tool: FakeLabelStudio) -> None:
    next_at = sa.select(ToolConnection.next_at)
    with read_session(connected.engine) as session:
        before = session.scalar(next_at)
    tool.annotate(1, chosen("cat"))
    tool.calls.clear()
    assert connected.look(full=False)["error"] is None
    assert tool.calls == ["GET /api/tasks"]
    assert connected.said() == {"1": ("ann@lab.local", "cat")}
    with read_session(connected.engine) as session:  # however many come, the full look comes in its time
        assert session.scalar(next_at) == before
    tool.users[3] = "cleo@lab.local"
    tool.annotate(2, chosen("dog"), by=3)
    connected.look(full=False)
    assert connected.said()["2"] == ("cleo@lab.local", "dog")


def test_a_ranking_that_is_told_is_not_told_again(connected: Site, tool: FakeLabelStudio) -> None:
    connected.rank(1, 2)
    connected.look()
    tool.calls.clear()
    connected.look()
    assert not [call for call in tool.calls if "predictions" in call or call.startswith("PATCH")]


@pytest.mark.parametrize("killed_at", ["import/predictions", "PATCH /api/projects/7/", "DELETE"])
def test_a_push_that_broke_off_is_done_again_and_not_twice(
    connected: Site, tool: FakeLabelStudio, killed_at: str
) -> None:
    connected.rank(1, 2, 3)
    connected.look()
    version = connected.rank(3, 2, 1)

    def after(call: str) -> None:
        if killed_at in call:
            tool.down = True

    tool.before = after
    assert "502" in connected.look()["error"]
    tool.before, tool.down = lambda call: None, False
    # … and, of the predictions, half had come.
    tool.predictions.append({"task": 2, "score": 0.9, "result": [], "model_version": f"shortlist-{version}"})
    told = connected.look()
    assert (told["error"], told["predictions"]) == (None, 3)
    assert tool.order() == [3, 2, 1]
    assert [each["model_version"] for each in tool.predictions] == [f"shortlist-{version}"] * 3


def test_control_items_stand_in_their_share_and_measure(site: Site, tool: FakeLabelStudio) -> None:
    tool.add_pictures(40)
    site.project(control_fraction=0.25)
    site.connect(tool, top=12)
    site.look()
    control = {each for each in range(1, 41) if _shuffle(site, each) < _shuffle_limit(site, 10)}
    ranked = [each for each in range(1, 41) if each not in control]
    site.rank(*ranked)
    site.look()
    order = tool.order()
    assert [number for number in order if number not in control] == ranked[:9]
    by_chance = [place for place, number in enumerate(order) if number in control]
    assert len(by_chance) == 3
    assert sorted((order[place] for place in by_chance), key=lambda each: _shuffle(site, each)) == [
        order[place] for place in by_chance
    ]
    tool.annotate(order[by_chance[0]], chosen("cat"))
    tool.annotate(ranked[0], chosen("cat"))
    site.look()
    assert sorted(label["arm"] for label in site.labels()) == ["control", "selected"]


def test_the_head_s_class_is_shown_where_it_is_wanted(site: Site, tool: FakeLabelStudio) -> None:
    """By the name that the tool has for it; never where chance chose, as people are not to be swayed there."""
    tool.add_pictures(8)
    site.project(classes=["cat", "hound", "bird"], control_fraction=0.25)
    with write_session(site.engine) as session:
        session.get_one(Project, 1).aliases = {"dog": "hound"}
    site.connect(tool, pre_annotate=True)
    site.look()
    ranked = [each for each in range(1, 9) if _shuffle(site, each) >= _shuffle_limit(site, 2)]
    site.rank(*ranked)  # before there is a head
    site.look()
    assert {str(each["result"]) for each in tool.predictions} == {"[]"}
    site.rank(*ranked, predicted="hound")
    assert site.look()["error"] is None
    shown = {each["task"]: each["result"] for each in tool.predictions}
    assert shown == {each: chosen("dog") if each in ranked else [] for each in range(1, 9)}
    assert [number for number in tool.order() if number in ranked] == ranked
    tool.label_config = tool.label_config.replace('name="label"', 'name="kind"')  # while it is followed
    site.look()
    names = {each["result"][0]["from_name"] for each in tool.predictions if each["result"]}
    assert names == {"kind"}
    site.rank(*ranked, predicted="bird")  # which the tool lacks
    site.look()
    assert {str(each["result"]) for each in tool.predictions} == {"[]"}


@on_sqlite
def test_several_classes_are_shown_beforehand(site: Site, tool: FakeLabelStudio) -> None:
    tool.label_config = tool.label_config.replace('choice="single"', 'choice="multiple"')
    tool.add_pictures(2)
    site.project(label_kind="multi", control_fraction=0)
    site.connect(tool, pre_annotate=True)
    site.look()
    for predicted, result in ((["dog", "cat"], chosen("cat", "dog")), ([], [])):
        site.rank(1, predicted=class_sets.joined(predicted))
        site.look()
        assert [each["result"] for each in tool.predictions] == [result]


def test_a_task_stands_once_though_the_pool_grew(site: Site, tool: FakeLabelStudio) -> None:
    """With more items there are more control items, some of which a ranking of before has, too."""
    tool.add_pictures(8)
    site.project(control_fraction=0.25)
    site.connect(tool)
    site.look()
    ranked = [each for each in range(1, 9) if _shuffle(site, each) >= _shuffle_limit(site, 2)]
    site.rank(*ranked)
    tool.add_pictures(60)
    assert site.look()["error"] is None
    tasks = [each["task"] for each in tool.predictions]
    assert len(tasks) == len(set(tasks))
    assert set(ranked) < set(tasks)


def _shuffle(site: Site, task: int) -> int:
    with read_session(site.engine) as session:
        query = sa.select(Item.shuffle).where(Item.key == f"label-studio/{task}")
        return session.scalars(query).one()


def _shuffle_limit(site: Site, count: int) -> int:
    with read_session(site.engine) as session:
        return session.scalars(sa.select(Item.shuffle).order_by(Item.shuffle)).all()[count]


@on_sqlite
def test_boxes_come_back_untouched_and_name_the_class(site: Site, tool: FakeLabelStudio) -> None:
    tool.label_config = BOXES
    tool.add_pictures(3)
    site.project()
    site.connect(tool)
    tool.annotate(1, boxed("cat", "cat"))
    tool.annotate(2, boxed("cat", "dog"))
    tool.annotate(3, [])
    told = site.look()
    assert site.said() == {"1": ("ann@lab.local", "cat")}
    assert site.labels()[0]["annotation"]["result"] == boxed("cat", "cat")
    assert told["refused"] == 2
    assert told["refusals"] == [
        "Annotation 3 of task 3: it names no class with RectangleLabels 'box'.",
        "Annotation 2 of task 2: it names 2 classes ('cat', 'dog'), and an item of this project has one.",
    ]


@on_sqlite
def test_boxes_outside_the_image_are_kept_as_they_are(site: Site, tool: FakeLabelStudio) -> None:
    """They are the tool's to judge: the class counts, and they go back as they came."""
    tool.label_config = BOXES
    tool.add_pictures(1)
    site.project()
    site.connect(tool)
    outside = boxed("dog")
    outside[0]["value"] |= {"x": -20.5, "y": 140, "width": 400}
    tool.annotate(1, outside)
    assert site.look()["refused"] == 0
    assert site.said() == {"1": ("ann@lab.local", "dog")}
    sent = site.client.get("/projects/p_1/labels", params={"format": "label-studio"}).json()
    assert sent[0]["annotations"][0]["result"] == outside


@on_sqlite
def test_a_megabyte_of_annotation_keeps_its_class(connected: Site, tool: FakeLabelStudio) -> None:
    region = chosen("cat")[0]
    tool.annotate(1, [region, {"from_name": "mask", "value": {"rle": [255] * 250_000}}])
    tool.annotate(2, [region, {"from_name": "mask", "value": {"x": float("nan")}}])
    told = connected.look()
    assert told["error"] is None
    assert connected.said() == {"1": ("ann@lab.local", "cat"), "2": ("ann@lab.local", "cat")}
    assert told["refused"] == 2
    assert "its class is kept, but not what was drawn" in told["refusals"][0]
    assert "262,144" in told["refusals"][1]


def test_a_class_that_the_project_lacks_waits_for_it(connected: Site, tool: FakeLabelStudio) -> None:
    tool.annotate(1, chosen("bird"))
    tool.annotate(2, chosen("CAT"))  # the same class, written otherwise
    told = connected.look()
    assert connected.said() == {"2": ("ann@lab.local", "cat")}
    assert "'bird' is not a class of this project" in told["refusals"][0]
    assert "add the new one to the project's `classes`" in told["refusals"][0]
    connected.client.patch("/projects/p_1", json={"classes": ["cat", "dog", "bird"]})
    fakes.long_ago(tool.tasks[1])
    assert connected.look()["refused"] == 0
    assert connected.said()["1"] == ("ann@lab.local", "bird")


def test_a_task_deleted_in_the_tool_is_missing_here(connected: Site, tool: FakeLabelStudio) -> None:
    tool.annotate(1, chosen("cat"))
    connected.look()
    del tool.tasks[1], tool.tasks[2]
    told = connected.look()
    assert (told["error"], told["tasks"], told["tasks_gone"]) == (None, 5, 2)
    states = [item["state"] for item in connected.client.get("/projects/p_1/items").json()["items"]]
    assert states == ["missing", "missing", "available", "available", "available"]
    assert connected.said() == {"1": ("ann@lab.local", "cat")}  # the label is kept
    connected.rank(5, 3)
    connected.look()
    assert tool.order() == [5, 3]


@on_sqlite
def test_most_tasks_gone_looks_like_a_mistake(site: Site, tool: FakeLabelStudio) -> None:
    tool.add_pictures(30)
    site.project()
    site.connect(tool)
    site.look()
    gone = {number: tool.tasks.pop(number) for number in range(1, 21)}
    assert site.look()["error"].startswith("20 of 30 tasks are not in the Label Studio project any more")
    assert site.client.get("/projects/p_1/items?state=missing").json()["items"] == []
    tool.tasks |= gone
    assert site.look()["error"] is None


@on_sqlite
def test_a_task_that_shows_something_else_is_another_item(connected: Site, tool: FakeLabelStudio) -> None:
    tool.annotate(1, chosen("cat"))
    connected.look()
    tool.tasks[1] |= {"data": {"image": fakes.data_uri(picture(900))}, "updated_at": fakes._now()}
    assert connected.look()["error"] is None
    items = connected.client.get("/projects/p_1/items?sort=key").json()["items"]
    assert [(item["key"], item["state"]) for item in items if item["state"] != "available"] == [
        ("label-studio/1#i_1", "changed")
    ]
    assert [item["replaces"] for item in items if item["key"] == "label-studio/1"] == ["i_1"]


@on_sqlite
def test_another_label_studio_has_tasks_of_the_same_numbers(connected: Site, tool: FakeLabelStudio) -> None:
    connected.client.delete("/projects/p_1/integrations/label-studio")
    with fakes.fake_label_studio() as other:
        other.add_task(image=fakes.data_uri(picture(1)))  # the same
        other.add_task(image=fakes.data_uri(picture(500)))  # another picture under a number that is taken
        assert connected.connect(other).status_code == 201
        other.annotate(2, chosen("dog"))
        assert connected.look()["error"] is None
    items = connected.client.get("/projects/p_1/items?sort=key").json()["items"]
    told = [(item["key"], item["state"], item["replaces"]) for item in items]
    assert ("label-studio/1", "available", None) in told
    assert ("label-studio/2", "done", None) in told
    assert ("label-studio/2#i_2", "changed", None) in told
    assert len(told) == 6


@on_sqlite
def test_an_item_that_is_there_already_is_taken(site: Site, tool: FakeLabelStudio, tmp_path: Any) -> None:
    """A pool that was imported from a folder, and is labeled in the tool: the same bytes are the same item."""
    (tmp_path / "one.png").write_bytes(picture(1))
    site.project()
    tool.add_pictures(2)  # pictures 1 and 2
    tool.add_task(image=fakes.data_uri(picture(1)))  # … and 1 again: another task, another item
    item = {"key": "one.png", "uri": str(tmp_path / "one.png")}
    assert site.client.post("/projects/p_1/items", json={"items": [item]}).json()["added"] == 1
    with site.engine.begin() as connection:  # as an import notes it
        connection.execute(sa.update(Item).values(content_hash=content_hash_of(picture(1))))
    site.connect(tool)
    site.look()
    with read_session(site.engine) as session:
        rows = session.execute(
            sa.select(ToolTask.task_id, Item.key)
            .join(Item, Item.id == ToolTask.item_id)
            .order_by(ToolTask.task_id)
        ).all()
    assert [tuple(row) for row in rows] == [(1, "one.png"), (2, "label-studio/2"), (3, "label-studio/3")]
    del tool.tasks[1], tool.tasks[2]  # the folder's item is where it was
    site.look()
    states = {item["key"]: item["state"] for item in site.client.get("/projects/p_1/items").json()["items"]}
    assert (states["one.png"], states["label-studio/2"]) == ("available", "missing")


def test_the_tool_is_down_for_an_hour(connected: Site, tool: FakeLabelStudio) -> None:
    tool.down = True
    for number in range(4):
        told = connected.look()
        assert told["failures"] == number + 1
    assert "answers" not in told["error"] or "502" in told["error"]
    tool.down = False
    tool.annotate(3, chosen("dog"))
    told = connected.look()
    assert (told["error"], told["failures"]) == (None, 0)
    assert connected.said() == {"3": ("ann@lab.local", "dog")}


@on_sqlite
def test_a_token_that_is_revoked_is_told_and_nothing_is_lost(connected: Site, tool: FakeLabelStudio) -> None:
    tool.annotate(3, chosen("dog"))
    tool.revoked = True
    assert "refuses this token" in connected.look()["error"]
    tool.revoked = False
    assert connected.look()["error"] is None
    assert connected.said() == {"3": ("ann@lab.local", "dog")}


@on_sqlite
def test_a_tool_that_is_upgraded_while_it_is_followed(
    connected: Site, tool: FakeLabelStudio, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool.release = "2.0.0"
    told = connected.look()
    assert (told["error"], told["tool_version"]) == (None, "2.0.0")
    assert told["warning"].startswith("It says it is version 2.0.0; this was tested with 1.23")
    answers: list[Any] = [{"tasks": [{"uid": "a"}], "total": 1}, {"results": []}, []]
    for answer in answers:
        monkeypatch.setattr(tool, "_page", lambda query, answer=answer: answer)
        assert "/api/tasks is answered in another form than by version 1.23" in connected.look()["error"]
    monkeypatch.undo()
    tool.release = "1.23.2"
    told = connected.look()
    assert (told["error"], told["warning"]) == (None, None)
    assert connected.count(Item) == 5


@on_sqlite
def test_a_picture_that_cannot_be_had_now_is_had_later(site: Site, tool: FakeLabelStudio) -> None:
    tool.add_pictures(2)
    tool.files["/data/late.png"] = picture(77)
    tool.add_task(image="/data/late.png")
    tool.add_task(image="/data/never.png")
    tool.add_task(image="file:///etc/passwd")
    tool.add_task(image="data:image/png;base64,@@@")
    tool.add_task(image=fakes.data_uri(b"no picture"))
    site.project()
    site.connect(tool)

    def late(call: str) -> None:
        tool.down = call == "GET /data/late.png"

    tool.before = late
    told = site.look()
    assert "'http" in told["error"] or "/data/late.png" in told["error"]
    assert told["tasks"] == 6
    tool.before, tool.down = lambda call: None, False
    told = site.look()
    assert (told["error"], told["tasks"], told["refused"]) == (None, 7, 4)
    why = " ".join(told["refusals"])
    assert "'/data/never.png' is answered with 404" in why
    assert "'file:///etc/passwd' is no place that can be fetched" in why
    assert "its data: URI is no base64" in why


@on_sqlite
def test_a_personal_token_is_refreshed(site: Site, tool: FakeLabelStudio) -> None:
    tool.add_pictures(1)
    tool.files["/data/a.png"] = picture(8)
    tool.add_task(image="/data/a.png")
    site.project()
    assert site.connect(tool, token=PERSONAL).status_code == 201

    def expires(call: str) -> None:
        if call in ("GET /api/tasks", "GET /data/a.png"):  # in the middle of a look
            tool.access, tool.before = "access-2", lambda call: None

    tool.before = expires
    told = site.look()
    assert (told["error"], told["tasks"]) == (None, 2)
    assert tool.calls.count("POST /api/token/refresh/") == 3


@on_sqlite
def test_ten_thousand_annotations_at_once(
    site: Site, tool: FakeLabelStudio, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.integrations.label_studio.client.PAGE", 500)
    tool.label_config = TEXTS
    for number in range(10_000):
        tool.add_task(text=f"text number {number}")
        tool.annotate(number + 1, chosen("cat"))
    site.project(round_size=5_000)
    site.connect(tool)
    told = site.look()
    assert (told["error"], told["tasks"], told["annotations"]) == (None, 10_000, 10_000)
    assert site.client.get("/projects/p_1/metrics").json()["labels_used"] == 10_000


def test_only_one_process_follows_a_connection(connected: Site) -> None:
    with connected.engine.begin() as connection:
        connection.execute(sa.update(ToolConnection).values(lease_until=4e9))
    before = connected.status()["synced_at"]
    assert connected.look()["synced_at"] == before


@on_sqlite
def test_whoever_lost_the_lease_stores_nothing(connected: Site, tool: FakeLabelStudio) -> None:
    tool.annotate(1, chosen("cat"))

    def taken_over(call: str) -> None:
        if call == "GET /api/tasks":
            with connected.engine.begin() as connection:
                connection.execute(sa.update(ToolConnection).values(lease_token=99))

    tool.before = taken_over
    with pytest.raises(LeaseLost):
        connected.look()
    assert connected.count(Label) == 0


@on_sqlite
def test_the_token_is_stored_encrypted_and_told_to_nobody(connected: Site, tool: FakeLabelStudio) -> None:
    with read_session(connected.engine) as session:
        row = session.scalars(sa.select(ToolConnection)).one()
        assert fakes.LEGACY not in row.token
    assert fakes.LEGACY not in str(connected.status())
    with connected.engine.begin() as connection:
        connection.execute(sa.update(ToolConnection).values(token="of another secret"))
    assert "cannot be decrypted" in connected.look()["error"]


@on_sqlite
def test_another_labeling_configuration_is_read_anew(connected: Site, tool: FakeLabelStudio) -> None:
    tool.annotate(1, boxed("dog"))
    assert "names no class" in connected.look()["refusals"][0]
    tool.label_config = BOXES
    fakes.long_ago(tool.tasks[1])
    told = connected.look()
    assert (told["control"], told["refused"]) == ("RectangleLabels", 0)
    assert connected.said() == {"1": ("ann@lab.local", "dog")}
    tool.label_config = "<View><Image name='image' value='$image'/></View>"
    assert "none of the tags that say a class" in connected.look()["error"]


def test_several_choices_are_several_classes_and_none_is_an_answer(site: Site, tool: FakeLabelStudio) -> None:
    tool.label_config = tool.label_config.replace('choice="single"', 'choice="multiple"')
    tool.add_pictures(4)
    site.project(label_kind="multi", control_fraction=0)
    both = chosen("dog", "cat")
    first, empty = tool.annotate(1, both), tool.annotate(2, [])
    tool.annotate(3, [], cancelled=True)
    assert site.connect(tool).status_code == 201
    told = site.look()
    assert (told["error"], told["refused"]) == (None, 0)
    assert [(row["item"], row["classes"], row["skip"]) for row in site.labels()] == [
        ("i_1", ["cat", "dog"], None),
        ("i_2", [], None),
        ("i_3", None, "other"),
    ]
    assert site.labels()[0]["annotation"]["result"] == both
    tool.change(first, chosen("dog"))
    tool.delete(empty)
    site.look()
    assert [(row["item"], row["classes"]) for row in site.labels()] == [("i_3", None), ("i_1", ["dog"])]
    again = site.client.get("/projects/p_1/labels", params={"format": "label-studio"}).json()
    assert [task["annotations"][0]["result"] for task in again] == [chosen("dog")]


@on_sqlite
def test_boxes_say_the_classes_that_are_there(site: Site, tool: FakeLabelStudio) -> None:
    tool.label_config = BOXES
    tool.add_pictures(2)
    site.project(label_kind="multi", control_fraction=0)
    drawn = boxed("cat", "dog", "cat")
    tool.annotate(1, drawn)
    assert site.connect(tool).status_code == 201
    assert site.look()["refused"] == 0
    (row,) = site.labels()
    assert row["classes"] == ["cat", "dog"]
    assert row["annotation"]["result"] == drawn

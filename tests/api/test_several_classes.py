"""A project whose items have any number of classes, over HTTP."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient

from service.store.artifacts import Artifacts
from service.store.class_sets import joined
from service.store.head_answers import HeadAnswers
from service.store.item_map import Guesses, ItemMap
from service.store.session import write_session
from service.store.tables import Item, Project, Round
from tests import factories
from tests.api.conftest import created
from tests.api.test_labeling import fill
from tests.api.test_maps import unpacked

ONLY_SQLITE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


def fill_other(engine: sa.Engine) -> None:
    """Project p_2 gets items with the keys of p_1's."""
    with write_session(engine) as session:
        for number in range(6):
            factories.make_item(session, project=session.get_one(Project, 2), key=f"{number:03}")


@pytest.fixture
def project(admin: TestClient, engine: sa.Engine) -> dict[str, Any]:
    found = created(admin, label_kind="multi", classes=["coat", "hat", "shirt"])
    fill(engine, 6)
    return found


def send(client: TestClient, *labels: dict[str, Any]) -> Any:
    return client.post(
        "/projects/p_1/labels", json={"labels": [{"annotator": "ann"} | each for each in labels]}
    )


def item(client: TestClient, number: int) -> Any:
    return client.get(f"/projects/p_1/items/i_{number}").json()


def exported(client: TestClient, **query: Any) -> list[dict[str, Any]]:
    return [json.loads(line) for line in client.get("/projects/p_1/labels", params=query).text.splitlines()]


def test_the_kind_is_told_and_never_changes(admin: TestClient, project: dict[str, Any]) -> None:
    assert project["label_kind"] == admin.get("/projects/p_1").json()["label_kind"] == "multi"
    assert created(admin, name="other")["label_kind"] == "single"
    assert admin.patch("/projects/p_1", json={"label_kind": "single"}).status_code == 422


@ONLY_SQLITE
def test_answers_of_other_projects_have_no_field_for_it(admin: TestClient, engine: sa.Engine) -> None:
    created(admin)
    fill(engine, 2)
    assert send(admin, {"item": "i_1", "class": "coat"}).status_code == 200
    found = item(admin, 1)
    assert found["class"] == "coat"
    assert not {"classes", "predicted_classes"} & found.keys()
    assert "classes" not in found["labels"][0]
    assert "classes" not in exported(admin)[0]


def test_a_label_has_any_number_of_classes(admin: TestClient, project: dict[str, Any]) -> None:
    answer = send(
        admin,
        {"item": "i_1", "classes": ["shirt", "coat"]},
        {"item": "i_2", "classes": []},
        {"item": "i_3", "classes": ["hat", "hat"]},
        {"item": "i_4", "skip": "unsure"},
    ).json()
    assert [one["outcome"] for one in answer["results"]] == ["accepted"] * 4
    assert answer["labels_used"] == 3
    first, second = item(admin, 1), item(admin, 2)
    assert (first["state"], first["class"], first["classes"]) == ("done", None, ["coat", "shirt"])
    assert (second["state"], second["classes"]) == ("done", [])
    assert item(admin, 4)["state"] == "available"
    assert (first["labels"][0]["class"], first["labels"][0]["classes"]) == (None, ["coat", "shirt"])
    assert [row["classes"] for row in exported(admin)] == [["coat", "shirt"], [], ["hat"], None]
    metrics = admin.get("/projects/p_1/metrics").json()
    assert metrics["class_balance"] == {"coat": 1, "hat": 1, "shirt": 1}
    assert metrics["items"]["done"] == 3


def test_sent_again_revised_and_withdrawn(admin: TestClient, project: dict[str, Any]) -> None:
    send(admin, {"item": "i_1", "classes": ["coat", "hat"]})
    again = send(admin, {"item": "i_1", "classes": ["hat", "coat"]}).json()
    assert [one["outcome"] for one in again["results"]] == ["duplicate"]
    revised = send(admin, {"item": "i_1", "classes": ["hat"]}).json()
    assert [one["outcome"] for one in revised["results"]] == ["revised"]
    assert item(admin, 1)["classes"] == ["hat"]
    assert send(admin, {"item": "i_1", "classes": None}).json()["labels_used"] == 0
    found = item(admin, 1)
    assert found["state"] == "available"
    assert "classes" not in found
    assert [row["classes"] for row in exported(admin, all=True)] == [["coat", "hat"], ["hat"], None]


def test_each_class_is_decided_by_the_majority(admin: TestClient, engine: sa.Engine) -> None:
    created(admin, label_kind="multi", classes=["coat", "hat", "shirt"], overlap=2)
    fill(engine, 2)
    for annotator, classes in (("ann", ["coat", "hat"]), ("bob", ["coat"])):
        send(admin, {"item": "i_1", "classes": classes, "annotator": annotator})
    assert item(admin, 1)["state"] == "available"
    send(admin, {"item": "i_1", "classes": ["hat", "shirt"], "annotator": "eve"})
    assert item(admin, 1)["classes"] == ["coat", "hat"]


@pytest.mark.parametrize(
    ("label", "code", "field", "says"),
    [
        ({"class": "coat"}, "label_kind_differs", "labels[0].class", "Send `classes`, a list"),
        ({"classes": ["coat", "sock"]}, "unknown_class", "labels[0].classes[1]", "'sock' is not a class"),
        ({"classes": ["coat"], "class": "coat"}, "malformed", "labels[0]", "either `class` or `classes`"),
        ({"classes": ["coat"], "skip": "unsure"}, "malformed", "labels[0]", "either"),
        ({"classes": "coat"}, "malformed", "labels[0].classes", "list"),
    ],
)
@ONLY_SQLITE
def test_what_is_wrong_is_said(
    admin: TestClient, project: dict[str, Any], label: dict[str, Any], code: str, field: str, says: str
) -> None:
    answer = send(admin, {"item": "i_1"} | label)
    assert answer.status_code == 422
    told = answer.json()
    assert (told["code"], says in answer.text) == (code, True), told
    assert field in answer.text


@ONLY_SQLITE
def test_several_are_refused_where_an_item_has_one(admin: TestClient, engine: sa.Engine) -> None:
    created(admin)
    fill(engine, 2)
    answer = send(admin, {"item": "i_1", "classes": ["coat"]})
    assert (answer.status_code, answer.json()["code"]) == (422, "label_kind_differs")
    assert "Send `class`, one name" in answer.json()["detail"]
    gold = admin.post("/projects/p_1/gold", json={"items": [{"item": "i_1", "classes": ["coat"]}]})
    assert (gold.status_code, gold.json()["code"]) == (422, "label_kind_differs")


@pytest.mark.parametrize("format", ["ndjson", "csv", "parquet", "json"])
@ONLY_SQLITE
def test_tables_come_back(admin: TestClient, project: dict[str, Any], engine: sa.Engine, format: str) -> None:
    drawn = {"boxes": [1, 2]}
    send(
        admin,
        {"item": "i_1", "classes": ["shirt", "coat"], "annotation": drawn},
        {"item": "i_2", "classes": []},
        {"item": "i_3", "skip": "unsure"},
        {"item": "i_4", "classes": ["hat"]},
    )
    change = {"kind": "rename", "classes": ["hat"], "to": "cap"}
    assert admin.post("/projects/p_1/classes/changes", json=change).status_code == 200
    before = exported(admin)
    assert before[3]["classes"] == ["cap"]
    assert before[3]["said"] == ["hat"]
    file = admin.get("/projects/p_1/labels", params={"format": format})
    assert file.status_code == 200
    if format == "parquet":
        assert pq.read_table(io.BytesIO(file.content)).column("classes").to_pylist()[0] == ["coat", "shirt"]
    copy = created(admin, name="again", label_kind="multi", classes=["coat", "cap", "shirt"])
    fill_other(engine)
    answer = admin.post(
        f"/projects/{copy['id']}/labels/import", params={"format": format}, content=file.content
    )
    assert answer.json()["refused"] == []
    rows = [json.loads(line) for line in admin.get(f"/projects/{copy['id']}/labels").text.splitlines()]
    same = ("key", "classes", "said", "skip", "annotation", "revision", "arm")
    assert [{name: row[name] for name in same} for row in rows] == [
        {name: row[name] for name in same} for row in before
    ]


@pytest.mark.parametrize("format", ["coco", "voc", "cvat", "label-studio"])
@ONLY_SQLITE
def test_files_of_tools_come_back(
    admin: TestClient, project: dict[str, Any], engine: sa.Engine, format: str
) -> None:
    send(
        admin,
        {"item": "i_1", "classes": ["shirt", "coat"]},
        {"item": "i_2", "classes": []},
        {"item": "i_4", "classes": ["hat"]},
    )
    file = admin.get("/projects/p_1/labels", params={"format": format})
    copy = created(admin, name="again", label_kind="multi", classes=["coat", "hat", "shirt"])
    fill_other(engine)
    answer = admin.post(
        f"/projects/{copy['id']}/labels/import",
        params={"format": format, "annotator": "file"},
        content=file.content,
    )
    assert answer.json()["refused"] == []
    rows = [json.loads(line) for line in admin.get(f"/projects/{copy['id']}/labels").text.splitlines()]
    found = {row["key"]: row["classes"] for row in rows}
    expected = {"000": ["coat", "shirt"], "003": ["hat"]}
    if format in ("label-studio", "voc"):
        expected["001"] = []
    else:
        assert "nothing is here" in file.headers["Shortlist-Left-Out"]
    assert found == expected


@ONLY_SQLITE
def test_a_file_of_a_tool_may_say_several_where_an_item_has_one(
    admin: TestClient, project: dict[str, Any], engine: sa.Engine
) -> None:
    send(admin, {"item": "i_1", "classes": ["shirt", "coat"]}, {"item": "i_2", "classes": ["hat"]})
    file = admin.get("/projects/p_1/labels", params={"format": "coco"})
    other = created(admin, name="single", classes=["coat", "hat", "shirt"])
    fill_other(engine)
    answer = admin.post(
        f"/projects/{other['id']}/labels/import",
        params={"format": "coco", "annotator": "file"},
        content=file.content,
    ).json()
    assert answer["outcomes"] == {"accepted": 1}
    assert "is of several classes" in answer["refused"][0]["message"]


def test_classes_change(admin: TestClient, project: dict[str, Any]) -> None:
    send(
        admin,
        {"item": "i_1", "classes": ["coat", "hat"]},
        {"item": "i_2", "classes": ["hat", "shirt"]},
        {"item": "i_3", "classes": []},
        {"item": "i_4", "classes": ["shirt"]},
    )
    uses = {one["name"]: one for one in admin.get("/projects/p_1/classes").json()["items"]}
    assert {name: (use["labels"], use["items"]) for name, use in uses.items()} == {
        "coat": (1, 1),
        "hat": (2, 2),
        "shirt": (2, 2),
    }
    refused = admin.post("/projects/p_1/classes/changes", json={"kind": "remove", "classes": ["shirt"]})
    assert (refused.status_code, refused.json()["code"]) == (409, "class_in_use")
    answer = admin.post(
        "/projects/p_1/classes/changes", json={"kind": "merge", "classes": ["coat", "hat"], "to": "outer"}
    )
    assert answer.status_code == 200, answer.text
    assert [item(admin, number)["classes"] for number in (1, 2, 3, 4)] == [
        ["outer"],
        ["outer", "shirt"],
        [],
        ["shirt"],
    ]
    assert [row["said"] for row in exported(admin)] == [["coat", "hat"], ["hat", "shirt"], None, None]
    late = send(admin, {"item": "i_5", "classes": ["hat", "coat", "shirt"]})
    assert late.status_code == 200
    assert item(admin, 5)["classes"] == ["outer", "shirt"]
    assert item(admin, 5)["labels"][0]["said"] == ["coat", "hat", "shirt"]


def test_gold_and_test_items(admin: TestClient, project: dict[str, Any], tmp_path: Any) -> None:
    gold = {"items": [{"item": "i_1", "classes": ["coat", "hat"]}, {"item": "i_2", "classes": []}]}
    assert admin.post("/projects/p_1/gold", json=gold).json() == {"changed": 2}
    assert (item(admin, 1)["classes"], item(admin, 2)["classes"]) == (["coat", "hat"], [])
    for number, classes in ((1, ["hat", "coat"]), (2, ["coat"])):
        send(admin, {"item": f"i_{number}", "classes": classes})
    (report,) = admin.get("/projects/p_1/annotators").json()["items"]
    assert (report["gold"]["items"], report["gold"]["right"]) == (2, 1)


def test_items_by_a_class_among_theirs(admin: TestClient, project: dict[str, Any]) -> None:
    send(admin, {"item": "i_1", "classes": ["coat", "hat"]}, {"item": "i_2", "classes": ["shirt"]})
    found = admin.get("/projects/p_1/items", params={"class": "hat"}).json()["items"]
    assert [one["id"] for one in found] == ["i_1"]


@ONLY_SQLITE
def test_suspects_tell_the_classes_in_doubt(
    admin: TestClient, project: dict[str, Any], engine: sa.Engine
) -> None:
    send(
        admin,
        {"item": "i_1", "classes": ["coat", "hat"]},
        {"item": "i_2", "classes": []},
        {"item": "i_3", "classes": ["hat"]},
    )
    with write_session(engine) as session:
        for number, suggested in ((1, ["coat"]), (2, ["hat", "shirt"]), (3, ["coat"])):
            found = session.get_one(Item, number)
            factories.make_suspect(
                session,
                item=found,
                class_name=str(found.class_name),
                suggested_class=joined(suggested),
                quality=0.1 * number,
            )
    listed = admin.get("/projects/p_1/suspects").json()["items"]
    told = [(one["classes"], one["suggested_classes"], one["doubted_classes"]) for one in listed]
    assert told == [
        (["coat", "hat"], ["coat"], ["hat"]),
        ([], ["hat", "shirt"], ["hat", "shirt"]),
        (["hat"], ["coat"], ["coat", "hat"]),
    ]
    assert listed[0]["class"] is listed[0]["suggested_class"] is None
    assert admin.post("/projects/p_1/suspects/queue", json={"count": 1}).json() == {"added": 1, "reopened": 1}
    merge = {"kind": "merge", "classes": ["coat", "hat"], "to": "outer"}
    assert admin.post("/projects/p_1/classes/changes", json=merge).status_code == 200
    (left,) = admin.get("/projects/p_1/suspects").json()["items"]  # the third contradicts nothing any more
    assert left["doubted_classes"] == ["outer", "shirt"]


@ONLY_SQLITE
def test_the_items_that_the_head_missed(
    admin: TestClient, project: dict[str, Any], engine: sa.Engine, artifacts: Artifacts
) -> None:
    with write_session(engine) as session:
        found = session.get_one(Project, 1)
        head = factories.make_head(
            session,
            project=found,
            score_run=factories.make_score_run(session, project=found),
            artifact="heads/1/1.npz",
            classes=["coat", "hat"],
        )
        session.scalars(sa.select(Round)).one().head_id = head.id
    members = np.array([[1, 1], [1, 0], [0, 0], [0, 1]], np.bool_)
    told = np.array([[0.9, 0.2], [0.75, 0.1], [0.6, 0.3], [0.1, 0.8]], np.float16)
    HeadAnswers(np.arange(1, 5), ((told >= 0.5) == members).all(axis=1), members, told >= 0.5, told).store(
        artifacts, "heads/1/1.npz"
    )

    def asked(**query: str) -> list[tuple[str, float]]:
        answer = admin.get("/projects/p_1/rounds/1/answers", params=query)
        assert answer.status_code == 200, answer.text
        return [(one["id"], round(one["answered_probability"], 2)) for one in answer.json()["items"]]

    assert asked(**{"class": "hat", "not_answered_class": "hat"}) == [("i_1", 0.8)]
    assert asked(**{"class": "coat", "answered_class": "coat"}) == [("i_1", 0.9), ("i_2", 0.75)]
    assert asked(not_class="coat", answered_class="coat") == [("i_3", 0.6)]
    assert asked(not_class="coat", not_answered_class="coat") == [("i_4", 0.9)]
    assert asked()[0] == ("i_1", 0.72)  # of exactly these
    (first,) = admin.get(
        "/projects/p_1/rounds/1/answers", params={"not_class": "coat", "answered_class": "coat"}
    ).json()["items"]
    assert (first["measured_class"], first["measured_classes"], first["answered_classes"]) == (
        None,
        [],
        ["coat"],
    )


@ONLY_SQLITE
def test_the_map_tells_one_class_at_a_time(
    admin: TestClient, project: dict[str, Any], engine: sa.Engine, artifacts: Artifacts
) -> None:
    send(admin, {"item": "i_1", "classes": ["coat", "hat"]}, {"item": "i_2", "classes": []})
    with write_session(engine) as session:
        found = session.get_one(Project, 1)
        run = factories.make_score_run(session, project=found, artifact="scores/1/arrays", items=6)
        head = factories.make_head(session, project=found, score_run=run)
        found.score_run_id, found.head_id, version = run.id, head.id, head.version
    ids = np.arange(1, 7)
    with artifacts.writing("scores/1/arrays/ids.npy") as file:
        np.save(file, ids)
    ItemMap(ids, np.zeros((6, 2), np.uint16), np.zeros(6, np.uint8)).store(artifacts, "scores/1/arrays")
    probabilities = np.array([[0.9, 0.4, 0.1], [0.2, 0.6, 0.1]], np.float32)
    Guesses.of(["coat", "hat", "shirt"], ids, np.array([2, 3]), probabilities, several=True).store(
        artifacts, "scores/1/arrays", version
    )
    header, columns = unpacked(admin.get("/projects/p_1/map", params={"class": "hat"}).content)
    assert header["classes"] == ["without hat", "hat"]
    assert columns["class"].tolist() == [1, 0, -1, -1, -1, -1]
    assert columns["guess"].tolist() == [-1, -1, 0, 1, -1, -1]
    header, columns = unpacked(admin.get("/projects/p_1/map").content)
    assert set(columns["class"]) == set(columns["guess"]) == {-1}
    assert columns["doubt"].tolist() == [255, 255, round(254 * 1.2 / 3), round(254 * 1.4 / 3), 255, 255]
    refused = admin.get("/projects/p_1/map", params={"class": "sock"})
    assert (refused.status_code, refused.json()["code"]) == (422, "unknown_class")


@ONLY_SQLITE
def test_a_grid_is_of_items_with_exactly_the_same_guess(
    admin: TestClient, project: dict[str, Any], engine: sa.Engine
) -> None:
    guesses = [["hat"], [], ["coat", "hat"], [], ["hat"], []]
    with write_session(engine) as session:
        found = session.get_one(Project, 1)
        run = factories.make_score_run(session, project=found)
        ranking = factories.make_ranking(session, project=found, score_run=run)
        ranking.items = 6
        for number, guess in enumerate(guesses, start=1):
            factories.make_ranked_item(
                session,
                ranking=ranking,
                item=session.get_one(Item, number),
                rank=number,
                predicted_class=joined(guess),
                predicted_probability=0.9,
            )
        found.ranking_id = ranking.id
        found.settings = {**found.settings, "control_fraction": 0.0}

    def asked(annotator: str, **more: Any) -> Any:
        return admin.post("/projects/p_1/next-batch", json={"annotator": annotator, "grid": True, **more})

    answers = [
        asked("ann", predicted_classes=["hat", "coat"]),
        asked("bob", predicted_classes=["hat"]),
        asked("eve"),  # what most are taken for: nothing
    ]
    found_items = [[one["id"] for one in answer.json()["items"]] for answer in answers]
    assert found_items == [["i_3"], ["i_1", "i_5"], ["i_2", "i_4", "i_6"]]
    assert answers[2].json()["items"][0]["prediction"]["classes"] == []
    wrong = asked("sam", predicted_classes=["hat", "sock"])
    assert (wrong.status_code, wrong.json()["code"]) == (422, "unknown_class")
    assert "predicted_classes[1]" in wrong.text
    assert asked("sam", predicted_class="hat").json()["code"] == "label_kind_differs"
    change = {"kind": "rename", "classes": ["hat"], "to": "cap"}
    assert admin.post("/projects/p_1/classes/changes", json=change).status_code == 200
    again = asked("bob").json()["items"]
    assert [one["prediction"]["classes"] for one in again] == [["cap"], ["cap"]]


@ONLY_SQLITE
def test_what_is_for_one_class_says_so(tmp_path: Path, admin: TestClient, project: dict[str, Any]) -> None:
    asked = [
        admin.get("/projects/p_1/labels", params={"format": "imagefolder"}),
        admin.post("/projects/p_1/sources", json={"uri": str(tmp_path), "split": "test"}),
    ]
    assert admin.post("/projects/p_1/suspects/check").json()["code"] == "no_score_run"
    for answer in asked:
        assert (answer.status_code, answer.json()["code"]) == (409, "single_only"), answer.text
        assert "label_kind is multi" in answer.json()["detail"]

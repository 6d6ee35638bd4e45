"""Labels known already, withdrawals and reports of annotators through HTTP."""

import json
from typing import Any

import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient

from service.store.session import write_session
from service.store.tables import Project
from tests import factories
from tests.api.conftest import Callers, created
from tests.api.test_labeling import fill

ONLY_SQLITE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


def send(client: TestClient, *lines: Any) -> Any:
    body = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    return client.post(
        "/projects/p_1/labels/import", content=body, headers={"Content-Type": "application/x-ndjson"}
    )


def test_lines_are_labels_by_key_or_item(admin: TestClient, engine: sa.Engine) -> None:
    created(admin)
    fill(engine, 4)
    answer = send(
        admin,
        {"key": "000", "class": "coat", "annotator": "import 2024"},
        {"item": "i_2", "class": "shirt", "annotator": "import 2024"},
        "",
        {"key": "002", "skip": "broken", "annotator": "import 2024"},
        {"key": "nowhere", "class": "coat", "annotator": "import 2024"},
        {"key": "003", "class": "hat", "annotator": "import 2024"},
        {"key": "003", "annotator": "import 2024"},
        {"key": "003", "class": "coat"},
        "{",
        {"key": "000", "class": "coat", "annotator": "import 2024"},
    )
    assert answer.json() == {
        "outcomes": {"accepted": 3, "duplicate": 1},
        "refused": [
            {"line": 7, "code": "malformed"}, {"line": 8, "code": "annotator_missing"},
            {"line": 9, "code": "malformed"}, {"line": 5, "code": "unknown_key"}, {"line": 6, "code": "unknown_class"},
        ],
        "refused_count": 5, "labels_used": 2,
    }  # fmt: skip
    labels = [json.loads(line) for line in admin.get("/projects/p_1/labels").text.splitlines()]
    assert [(label["key"], label["class"], label["arm"]) for label in labels] == [
        ("000", "coat", "imported"), ("001", "shirt", "imported"), ("002", None, "imported"),
    ]  # fmt: skip


@ONLY_SQLITE
def test_more_lines_than_a_transaction_takes(admin: TestClient, engine: sa.Engine) -> None:
    created(admin, round_size=400)
    fill(engine, 1201)
    lines = [{"key": f"{n:03}", "class": "coat", "annotator": "import"} for n in range(1201)]
    answer = send(admin, *lines).json()
    assert (answer["outcomes"], answer["labels_used"]) == ({"accepted": 1201}, 1201)
    assert len(admin.get("/projects/p_1/rounds").json()["items"]) == 4


@ONLY_SQLITE
def test_a_bound_key_imports_for_itself_only(admin: TestClient, engine: sa.Engine, caller: Callers) -> None:
    created(admin)
    fill(engine, 2)
    ann = caller("annotator", annotator="ann")
    answer = send(
        ann, {"key": "000", "class": "coat"}, {"key": "001", "class": "coat", "annotator": "bob"}
    ).json()
    assert answer["outcomes"] == {"accepted": 1}
    assert answer["refused"] == [{"line": 2, "code": "bound_to_annotator"}]
    assert ann.post("/projects/p_1/labels/import", json={}).status_code == 415
    assert caller("reader").post("/projects/p_1/labels/import", json={}).status_code == 403


@ONLY_SQLITE
def test_labels_by_key_and_their_withdrawal(admin: TestClient, engine: sa.Engine) -> None:
    created(admin)
    fill(engine, 2)

    def label(**values: Any) -> Any:
        return admin.post("/labels", json={"labels": [{"annotator": "ann", **values}]})

    assert label(key="000", **{"class": "coat"}).json()["results"] == [{"item": "000", "outcome": "accepted"}]
    answer = label(item="i_1", **{"class": None}).json()
    assert (answer["results"][0]["outcome"], answer["labels_used"]) == ("revised", 0)
    assert admin.get("/projects/p_1/labels").text == ""
    history = [json.loads(line) for line in admin.get("/projects/p_1/labels?all=true").text.splitlines()]
    assert [(row["class"], row["revision"], row["current"]) for row in history] == [
        ("coat", 1, False), (None, 2, False),
    ]  # fmt: skip
    assert admin.get("/projects/p_1/items/i_1").json()["state"] == "available"
    for bad in (
        {"item": "i_1"}, {"item": "i_1", "key": "000", "class": "coat"}, {"class": "coat"},
        {"item": "i_1", "class": "coat", "skip": "unsure"},
    ):  # fmt: skip
        assert label(**bad).status_code == 422, bad
    unknown = label(key="nowhere", **{"class": "coat"})
    assert (unknown.status_code, unknown.json()["code"]) == (422, "unknown_key")
    assert unknown.json()["errors"][0]["field"] == "labels[0].key"


def test_annotators_are_reported_with_intervals(admin: TestClient, engine: sa.Engine) -> None:
    created(admin)
    with write_session(engine) as session:
        project = session.get_one(Project, 1)
        for number in range(20):
            item = factories.make_item(session, project=project)
            factories.make_label(session, item=item, annotator="bob", class_name="coat", duration_ms=100)
            item.gold, item.class_name = True, "coat" if number < 18 else "shirt"
        item = factories.make_item(session, project=project)
        factories.make_label(session, item=item, annotator="ann", class_name="coat", duration_ms=300)
        item = factories.make_item(session, project=project)
        factories.make_label(session, item=item, annotator="ann", class_name=None, skip="unsure")
        checked = {"bob": {"shared": 10, "agreed": 9, "quality": 0.8}}
        factories.make_label_check(
            session, project=project, annotators=checked, shared_items=10, agreement=0.9, alpha=0.8
        )
    ann, bob = admin.get("/projects/p_1/annotators").json()["items"]
    assert (ann["annotator"], ann["labels"], ann["skips"], ann["mean_duration_ms"]) == ("ann", 1, 1, 300)
    assert (ann["gold"]["share"], ann["agreement"], ann["quality"]) == (None, None, None)
    assert (bob["labels"], bob["gold"]["items"], bob["gold"]["right"]) == (0, 20, 18)
    # Wilson's interval of 18 of 20, from a table
    assert (round(bob["gold"]["low"], 3), round(bob["gold"]["high"], 3)) == (0.699, 0.972)
    assert (bob["agreement"]["share"], bob["quality"]) == (0.9, 0.8)
    page = admin.get("/projects/p_1/annotators", params={"limit": 1}).json()
    rest = admin.get("/projects/p_1/annotators", params={"cursor": page["next_cursor"]}).json()
    assert [found["annotator"] for found in rest["items"]] == ["bob"]
    agreement = admin.get("/projects/p_1/metrics").json()["agreement"]
    assert agreement == {"items": 10, "pairs": 0.9, "alpha": 0.8}

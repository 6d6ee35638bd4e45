"""Labels known already, withdrawals and reports of annotators through HTTP."""

import io
import json
import unicodedata
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient

from service.store.session import write_session
from service.store.tables import Label, Project
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
    found = answer.json()
    refused = found.pop("refused")
    assert found == {"outcomes": {"accepted": 3, "duplicate": 1}, "refused_count": 5, "labels_used": 2}
    assert [(one["line"], one["code"], one["field"]) for one in refused] == [
        (7, "malformed", "line"),
        (8, "annotator_missing", "annotator"),
        (9, "malformed", "line"),
        (5, "unknown_key", "key"),
        (6, "unknown_class", "class"),
    ]
    assert "send `class` or `skip`" in refused[0]["message"]
    assert "this is no JSON" in refused[2]["message"]
    assert "nowhere" in refused[3]["message"]
    assert "coat" in refused[4]["message"]  # the classes there are
    labels = [json.loads(line) for line in admin.get("/projects/p_1/labels").text.splitlines()]
    assert [(label["key"], label["class"], label["arm"]) for label in labels] == [
        ("000", "coat", "imported"),
        ("001", "shirt", "imported"),
        ("002", None, "imported"),
    ]


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
    (refused,) = answer["refused"]
    assert (refused["line"], refused["code"], refused["field"]) == (2, "bound_to_annotator", "annotator")
    assert ann.post("/projects/p_1/labels/import", data={"a": "b"}).status_code == 415
    assert caller("reader").post("/projects/p_1/labels/import", json={}).status_code == 403


NDJSON, CSV, PARQUET = "application/x-ndjson", "text/csv", "application/vnd.apache.parquet"
# What the numbers of another installation are.
OTHERS = ("item", "batch", "ranking")


def post_body(client: TestClient, body: bytes, kind: str, project: str = "p_1") -> Any:
    return client.post(f"/projects/{project}/labels/import", content=body, headers={"Content-Type": kind})


def exported(client: TestClient, project: str, history: bool = True) -> list[dict[str, Any]]:
    lines = client.get(f"/projects/{project}/labels", params={"all": history}).text.splitlines()
    return [{name: cell for name, cell in json.loads(line).items() if name not in OTHERS} for line in lines]


@pytest.fixture
def labeled(admin: TestClient, engine: sa.Engine) -> str:
    """A project with a history: served and known labels, replaced, stale, late and withdrawn ones, over rounds."""
    name = created(admin, round_size=4)["id"]
    fill(engine, 12)
    served = admin.post(f"/projects/{name}/next-batch", json={"annotator": "ann", "size": 3}).json()["items"]
    held = {item["id"] for item in served}
    others = [f"i_{number}" for number in range(1, 10) if f"i_{number}" not in held]

    def label(item: str, **values: Any) -> None:
        answer = admin.post(f"/projects/{name}/labels", json={"labels": [{"item": item, **values}]})
        assert answer.status_code == 200, answer.text

    for item in served:
        label(item["id"], annotator="ann", **{"class": "coat"}, duration_ms=700)
    label(others[0], annotator='Zoë, "Z"', **{"class": "shirt"}, revision=7)
    label(others[0], annotator='Zoë, "Z"', **{"class": "coat"}, revision=3)  # stale
    label(others[1], annotator="ann", skip="unsure")
    label(others[1], annotator="ann", **{"class": "coat"})
    label(others[1], annotator="ann", **{"class": None})
    label(others[1], annotator="ann", **{"class": "shirt"})
    label(others[2], annotator="bob", skip="broken")
    label(others[3], annotator="bob", **{"class": "coat"})
    label(others[3], annotator="cy", **{"class": "shirt"})  # of an item that is done
    label(others[4], annotator="bob", **{"class": None})
    with write_session(engine) as session:
        for number, found in enumerate(session.scalars(sa.select(Label).order_by(Label.id))):
            found.created_at = datetime(2026, 1, 1, 12, 0, number, 123456, UTC)
        session.scalars(sa.select(Label).where(Label.annotator == "cy")).one().outcome = "late"
    return str(name)


@pytest.mark.parametrize("kind", [NDJSON, CSV, PARQUET])
@pytest.mark.parametrize("history", [True, False])
def test_what_is_exported_is_read_to_the_same_state(
    kind: str, history: bool, labeled: str, admin: TestClient, engine: sa.Engine
) -> None:
    body = admin.get(f"/projects/{labeled}/labels", params={"all": history}, headers={"Accept": kind}).content
    other = created(admin, name="elsewhere", round_size=4)["id"]
    with write_session(engine) as session:
        project = session.get_one(Project, 2)
        for number in range(12):
            factories.make_item(session, project=project, key=f"{number:03}")

    answer = post_body(admin, body, kind, other).json()

    before = exported(admin, labeled, history)
    assert (answer["refused"], sum(answer["outcomes"].values())) == ([], len(before))
    after = exported(admin, other, history)
    made_anew = () if history else ("outcome", "round")  # what came between is not there
    assert [{**row, **dict.fromkeys(made_anew)} for row in after] == [
        {**row, **dict.fromkeys(made_anew)} for row in before
    ]
    if history:
        assert len({row["arm"] for row in after}) > 1  # what was served and what was known
        assert {row["outcome"] for row in after} == {"accepted", "revised", "stale", "late"}
        assert [row["created_at"] for row in after] == sorted(row["created_at"] for row in before)
    states = [admin.get(f"/projects/{one}/rounds").json()["items"] for one in (labeled, other)]
    assert [(one["number"], one["labels"]) for one in states[1]] == [
        (one["number"], one["labels"]) for one in states[0]
    ] or not history
    counts = [
        admin.get(f"/projects/{one}/items", params={"state": "done"}).json() for one in (labeled, other)
    ]
    assert [item["key"] for item in counts[1]["items"]] == [item["key"] for item in counts[0]["items"]] != []
    again = post_body(admin, body, kind, other).json()
    assert again["outcomes"] == {"duplicate": len(before)}
    assert exported(admin, other, history) == after


@ONLY_SQLITE
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_lines_as_windows_writes_them(
    encoding: str, ending: str, admin: TestClient, engine: sa.Engine
) -> None:
    created(admin)
    fill(engine, 3)
    lines = [{"key": f"{n:03}", "class": "coat", "annotator": "Zoë 🦊"} for n in range(3)]
    body = ending.join(json.dumps(line, ensure_ascii=False) for line in lines).encode(encoding)
    assert post_body(admin, body, NDJSON).json()["outcomes"] == {"accepted": 3}
    table = ending.join(["Key;CLASS; annotator", *(f"{n:03};coat;Zoë 🦊" for n in range(3))]).encode(encoding)
    assert post_body(admin, table, CSV).json()["outcomes"] == {"duplicate": 3}
    assert {row["annotator"] for row in exported(admin, "p_1")} == {"Zoë 🦊"}


@ONLY_SQLITE
def test_half_a_character_of_utf16_is_told(admin: TestClient) -> None:
    created(admin)
    answer = post_body(admin, '{"key": "000"}\n'.encode("utf-16")[:-1], NDJSON)
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "body")


@ONLY_SQLITE
def test_a_json_array_is_taken(admin: TestClient, engine: sa.Engine) -> None:
    created(admin)
    fill(engine, 3)
    rows = [{"key": f"{n:03}", "class": "coat", "annotator": "ann"} for n in range(3)]
    url = "/projects/p_1/labels/import"
    answer = admin.post(url, json=[*rows[:2], "no label", {**rows[2], "class": "cot"}]).json()
    assert answer["outcomes"] == {"accepted": 2}
    assert [(one["line"], one["field"]) for one in answer["refused"]] == [(3, "line"), (4, "class")]
    assert admin.post(url, json={"labels": rows}).json()["outcomes"] == {"duplicate": 2, "accepted": 1}
    wrong: Any
    for wrong in ({}, "x", {"labels": {}}, 3):
        answer = admin.post(url, json=wrong)
        assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "body")
    assert post_body(admin, b"[" * 100_000, "application/json").status_code == 422


@ONLY_SQLITE
def test_a_refused_line_says_which_field_and_why(admin: TestClient, engine: sa.Engine) -> None:
    created(admin)
    fill(engine, 2)
    good = {"key": "000", "class": "coat", "annotator": "ann"}
    future = "2999-01-01T00:00:00Z"
    wrong: list[tuple[str, Any]] = [
        ("line", [good]),
        ("line", "text"),
        ("line", {"class": "coat", "annotator": "ann"}),
        ("revision", {**good, "revision": 0}),
        ("created_at", {**good, "created_at": future}),
        ("created_at", {**good, "created_at": "yesterday"}),
        ("colour", {**good, "colour": "red"}),
        ("duration_ms", {**good, "duration_ms": "long"}),
        ("arm", {**good, "arm": "left"}),
        ("suggested_class", {"key": "000", "item": "i_1", "suggested_class": "coat", "duplicate_of": "i_2"}),
        ("skip", {"key": "000", "annotator": "ann", "skip": "later"}),
        ("key", {**good, "key": "nowhere"}),
        ("item", {"item": "i_99", "class": "coat", "annotator": "ann"}),
        ("class", {**good, "class": "cot"}),
        ("annotator", {"key": "000", "class": "coat"}),
        ("annotator", {**good, "annotator": " "}),
        ("batch", {**good, "batch": "b_9"}),
    ]
    answer = send(admin, *(row if not isinstance(row, str) else json.dumps(row) for _, row in wrong)).json()

    by_line = sorted(answer["refused"], key=lambda one: one["line"])
    assert answer["outcomes"] == {}
    assert [(one["line"], one["field"]) for one in by_line] == [
        (line, field) for line, (field, _) in enumerate(wrong, 1)
    ]
    assert all(one["message"] for one in by_line)
    assert "no such column, but key, item, class" in by_line[6]["message"]
    assert exported(admin, "p_1") == []


def test_names_that_read_the_same_are_the_same(admin: TestClient, engine: sa.Engine, caller: Callers) -> None:
    """As macOS writes them, and as all else does."""
    one, other = unicodedata.normalize("NFC", "café"), unicodedata.normalize("NFD", "café")
    created(admin, classes=["tea", other])
    assert admin.get("/projects/p_1").json()["classes"] == ["tea", one]
    assert admin.post("/projects", json={"name": "x", "classes": [one, other]}).status_code == 422
    with write_session(engine) as session:
        project = session.get_one(Project, 1)
        project.classes = ["tea", other]  # as an earlier version stored it
        for key in (f"{one}/1.png", f"{other}/2.png", f"{one}/3.png", f"{other}/3.png"):
            factories.make_item(session, project=project, key=key)

    answer = send(
        admin,
        {"key": f"{other}/1.png", "class": one, "annotator": f"{one} 1"},
        {"key": f"{one}/1.png", "class": other, "annotator": f"{other} 1"},
        {"key": f"{one}/2.png", "class": one, "annotator": "ann"},
        {"key": f"{one}/3.png", "class": "tea", "annotator": "ann"},
        {"key": f"{other}/3.png", "class": one, "annotator": "ann"},
    ).json()

    assert answer["outcomes"] == {"accepted": 4, "duplicate": 1}
    assert [(row["key"], row["class"], row["annotator"]) for row in exported(admin, "p_1")] == [
        (f"{one}/1.png", other, f"{one} 1"),
        (f"{other}/2.png", other, "ann"),
        (f"{one}/3.png", "tea", "ann"),
        (f"{other}/3.png", other, "ann"),
    ]
    assert admin.patch("/projects/p_1", json={"classes": ["tea", one, "milk"]}).status_code == 200
    assert admin.get("/projects/p_1").json()["classes"] == ["tea", other, "milk"]
    bound = caller("annotator", annotator=one)
    assert send(bound, {"key": f"{one}/1.png", "class": "tea", "annotator": other}).json()["refused"] == []


@ONLY_SQLITE
def test_a_label_of_a_gold_item_is_gold_where_the_item_is(admin: TestClient, engine: sa.Engine) -> None:
    created(admin)
    with write_session(engine) as session:
        project = session.get_one(Project, 1)
        for key, gold in (("gold", True), ("plain", False)):
            factories.make_item(session, project=project, key=key, gold=gold)
    rows = [{"key": key, "class": "coat", "annotator": "ann", "arm": "gold"} for key in ("gold", "plain")]

    assert send(admin, *rows).json()["refused"] == []
    assert [row["arm"] for row in exported(admin, "p_1")] == ["gold", "imported"]


@ONLY_SQLITE
def test_tables_of_people(admin: TestClient, engine: sa.Engine) -> None:
    created(admin)
    fill(engine, 4)
    table = (
        "key,class,skip,annotator,revision\n000,coat,,ann,\n001,,unsure,ann,2\n\n002,,,ann,\n003,coat,,,x\n"
    )
    answer = post_body(admin, table.encode(), CSV).json()
    assert answer["outcomes"] == {"accepted": 2}
    assert [(one["line"], one["field"]) for one in answer["refused"]] == [(5, "line"), (6, "revision")]
    assert [(row["key"], row["class"], row["skip"], row["revision"]) for row in exported(admin, "p_1")] == [
        ("000", "coat", None, 1),
        ("001", None, "unsure", 2),
    ]
    floats = pa.table(
        {"key": ["000", "002"], "class": ["coat"] * 2, "annotator": ["ann"] * 2, "revision": [1.0, None]}
    )
    sink = io.BytesIO()
    pq.write_table(floats, sink)
    answer = post_body(admin, sink.getvalue(), "application/x-parquet").json()
    assert (answer["outcomes"], answer["refused"]) == ({"duplicate": 1, "accepted": 1}, [])
    for body, kind in ((b"PAR1", PARQUET), (b"\xff\xff,x", CSV), (b'key\n"' + b"x" * 10, CSV)):
        answer = post_body(admin, body, kind)
        assert answer.status_code in (200, 422), answer.text
        assert answer.json().get("outcomes", {}) == {}


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
        ("coat", 1, False),
        (None, 2, False),
    ]
    assert admin.get("/projects/p_1/items/i_1").json()["state"] == "available"
    for bad in (
        {"item": "i_1"},
        {"item": "i_1", "key": "000", "class": "coat"},
        {"class": "coat"},
        {"item": "i_1", "class": "coat", "skip": "unsure"},
    ):
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

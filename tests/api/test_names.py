"""Names and keys are stored as they are sent, whatever letters they have; what a database cannot store is said."""

import unicodedata
from typing import Any

import pytest
from fastapi.testclient import TestClient

from service.settings import Settings
from tests.api.conftest import created

ODD = [
    "👕👚",
    "a\x01b\x1f",
    "tab\there",
    "line\nbreak",
    "\u202eright to left",
    "é",
    "e\u0301",
    "%2F..",
    "\U0010fffd",
]


def as_class(odd: str) -> str:
    """U+001F stands between the classes of an item with several, and no class is called with it."""
    return odd.replace("\x1f", "\x1e")


def test_odd_names_come_back_as_they_were_sent(admin: TestClient, settings: Settings) -> None:
    classes = [
        as_class(odd) for odd in ODD if unicodedata.is_normalized("NFC", odd)
    ]  # two that look alike are one
    project = created(admin, name=ODD[0] + ODD[1], classes=classes)
    assert (project["name"], project["classes"]) == (ODD[0] + ODD[1], classes)
    at, root = f"/projects/{project['id']}", settings.source_roots[0]
    entries = [{"key": odd, "uri": f"{root}/{odd}", "meta": {odd: odd}} for odd in ODD]
    assert admin.post(f"{at}/items", json={"items": entries}).json()["added"] == len(ODD)
    assert admin.post(f"{at}/items", json={"items": entries}).json()["known"] == len(ODD)

    listed: list[dict[str, Any]] = []
    cursor: str | None = ""
    while cursor is not None:  # one a page, so that every key goes through a cursor
        page = admin.get(f"{at}/items", params={"limit": 1} | ({"cursor": cursor} if cursor else {})).json()
        listed, cursor = listed + page["items"], page["next_cursor"]
    assert {item["key"]: (item["uri"], item["meta"]) for item in listed} == {
        odd: (f"{root}/{odd}", {odd: odd}) for odd in ODD
    }

    for item, odd in zip(listed, ODD, strict=True):
        sent = {"item": item["id"], "class": as_class(odd), "annotator": f"ann {odd}"}
        assert admin.post(f"{at}/labels", json={"labels": [sent]}).json()["accepted"] == 1
    exported = admin.get(f"{at}/labels").text.split("\n")
    assert len(exported) == len(ODD) + 1, "a line break in a name broke a line"
    assert admin.post("/keys", json={"name": ODD[0], "role": "reader"}).json()["name"] == ODD[0]


@pytest.mark.parametrize("bad", ["a\0b", "\ud800"])
def test_what_no_database_stores_is_refused_with_a_sentence(
    admin: TestClient, settings: Settings, bad: str
) -> None:
    created(admin)
    json_type = {"Content-Type": "application/json"}
    escaped = bad.encode("unicode_escape").decode().replace("\\x00", "\\u0000")
    for path, body in (
        ("/projects", f'{{"name": "{escaped}", "classes": ["a", "b"]}}'),
        ("/projects/p_1/items", f'{{"items": [{{"key": "{escaped}", "uri": "/x"}}]}}'),
        ("/projects/p_1/next-batch", f'{{"annotator": "{escaped}"}}'),
    ):
        answer = admin.post(path, content=body.encode(), headers=json_type)
        assert (answer.status_code, answer.json()["code"]) == (422, "malformed"), (path, answer.text)
        assert answer.json()["errors"]


def test_annotators_whose_names_read_the_same_are_told(admin: TestClient, settings: Settings) -> None:
    created(admin, classes=["cat", "dog"])
    root = settings.source_roots[0]
    admin.post("/projects/p_1/items", json={"items": [{"key": "a", "uri": f"{root}/a.png"}]})
    for annotator in ("Ann", "ann", "bob", "ann  b", "Ann B"):
        sent = {"key": "a", "class": "cat", "annotator": annotator}
        assert admin.post("/projects/p_1/labels", json={"labels": [sent]}).status_code == 200
    found = admin.get("/projects/p_1/annotators").json()["items"]
    assert {each["annotator"]: each["alike"] for each in found} == {
        "Ann": ["ann"],
        "ann": ["Ann"],
        "bob": [],
        "ann  b": ["Ann B"],
        "Ann B": ["ann  b"],
    }
    first = admin.get("/projects/p_1/annotators", params={"limit": 1}).json()["items"]
    assert [(each["annotator"], each["alike"]) for each in first] == [("Ann", ["ann"])]

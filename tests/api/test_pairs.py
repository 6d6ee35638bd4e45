"""Projects of pairs over HTTP: halves that come with the call, shown one by one; of any two kinds."""

import json
from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient

from service.content.pair import halves
from service.content.reader import ItemBytes
from service.settings import Settings
from service.store.session import read_session
from service.store.tables import Item, Job, Project
from tests.api.conftest import created
from tests.journeys.captions import caption, picture

NDJSON = {"Content-Type": "application/x-ndjson"}
RED = picture("red", 1)
on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


def inline(data: bytes = RED) -> str:
    return f"data:image/png;base64,{b64encode(data).decode()}"


def register(client: TestClient, *entries: dict[str, Any]) -> dict[str, Any]:
    answer = client.post("/projects/p_1/items", json={"items": list(entries)})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def read_all(engine: sa.Engine, settings: Settings) -> dict[str, tuple[bytes, bytes]]:
    with read_session(engine) as session:
        items = session.scalars(sa.select(Item)).all()
    return {item.key: halves(ItemBytes(settings).read(item.uri)) for item in items}


def test_halves_inline_and_by_place(
    admin: TestClient, anyone: TestClient, engine: sa.Engine, settings: Settings, tmp_path: Path
) -> None:
    (tmp_path / "a.png").write_bytes(RED)
    created(admin, modality="pair")
    entries = [
        {"key": "placed", "image": str(tmp_path / "a.png"), "text": caption("red", 1)},
        {"key": "inline", "image": inline(), "text": "two\nlines"},
    ]
    assert register(admin, *entries)["added"] == 2
    assert read_all(engine, settings) == {
        "placed": (RED, caption("red", 1).encode()),
        "inline": (RED, b"two\nlines"),
    }
    assert register(admin, *entries)["known"] == 2
    other = register(admin, entries[0] | {"text": "something else"}, entries[1])
    assert (other["changed"], other["known"]) == (1, 1)
    assert read_all(engine, settings)["placed"] == (RED, b"something else")

    (item,) = [one for one in admin.get("/projects/p_1/items").json()["items"] if one["key"] == "inline"]
    content = item["content"]
    assert (content["kind"], content["text"]) == ("pair", "two\nlines")
    assert [(part["kind"], part["text"]) for part in content["parts"]] == [
        ("image", None),
        ("text", "two\nlines"),
    ]
    shown = [anyone.get(part["url"]) for part in content["parts"]]
    assert [one.headers["content-type"] for one in shown] == ["image/png", "text/plain; charset=utf-8"]
    assert (shown[0].content, shown[1].text) == (RED, "two\nlines")
    assert anyone.get(content["url"]).content == RED


@on_sqlite
@pytest.mark.parametrize(
    ("entry", "field", "words"),
    [
        ({"image": "/data/a.png"}, "items[1].text", "half of the pair is missing"),
        ({"text": "x"}, "items[1].image", "half of the pair is missing"),
        ({"image": inline(), "text": "  "}, "items[1].text", "half of the pair is missing"),
        (
            {"image": inline(), "text": "x", "audio": "/a.wav"},
            "items[1].audio",
            "pairs, of `image` and `text`",
        ),
        ({"image": inline(), "text": "x", "uri": "/a.png"}, "items[1].uri", "not both"),
        ({}, "items[1].uri", "needs its `uri`"),
    ],
)
def test_a_half_that_is_missing_is_named(
    entry: dict[str, Any], field: str, words: str, admin: TestClient
) -> None:
    created(admin, modality="pair")
    entries = [{"key": "good", "image": inline(), "text": "x"}, {"key": "bad"} | entry]
    answer = admin.post("/projects/p_1/items", json={"items": entries})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == field
    assert words in answer.json()["detail"]
    assert admin.get("/projects/p_1/items").json()["items"] == []


@on_sqlite
def test_a_stream_of_pairs(admin: TestClient) -> None:
    created(admin, modality="pair")
    entries = [
        {"key": "good", "image": inline(), "text": "x"},
        {"key": "half", "text": "x"},
        {"key": "outside", "image": "/etc/hostname", "text": "x"},
        {"key": "another's", "image": "upload:2/a.png", "text": "x"},
        {"key": "broken", "image": inline(RED[:90]), "text": "x"},
        {"key": "no base64", "image": "data:image/png;base64,%", "text": "x"},
        {"key": "large", "image": inline(b"x" * 1_000_001), "text": "x"},
        {"key": "third", "image": inline(), "text": "x", "video": "/a.mp4"},
    ]
    answer = admin.post(
        "/projects/p_1/items", content="\n".join(map(json.dumps, entries)), headers=NDJSON
    ).json()
    assert answer["added"] == 1
    assert [(one["line"], one["code"]) for one in answer["refused"]] == [
        (2, "half_missing"),
        (3, "uri_not_allowed"),
        (4, "uri_not_allowed"),
        (5, "half_unusable"),
        (6, "half_unusable"),
        (7, "half_too_large"),
        (8, "half_missing"),
    ]


@on_sqlite
def test_pairs_for_another_project(admin: TestClient) -> None:
    created(admin, modality="text")
    entry = {"key": "a", "image": inline(), "text": "x"}
    answer = admin.post("/projects/p_1/items", json={"items": [entry]})
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "items[0].image")
    streamed = admin.post("/projects/p_1/items", content=json.dumps(entry), headers=NDJSON).json()
    assert streamed["refused"] == [{"line": 1, "code": "pair_not_taken"}]


def test_two_texts(admin: TestClient, anyone: TestClient, engine: sa.Engine, settings: Settings) -> None:
    answer = created(admin, pair_of=["text", "text"])
    assert (answer["modality"], answer["pair_of"]) == ("pair", ["text", "text"])
    assert register(admin, {"key": "a", "first": "Why?", "second": "So."})["added"] == 1
    assert read_all(engine, settings) == {"a": (b"Why?", b"So.")}
    content = admin.get("/projects/p_1/items").json()["items"][0]["content"]
    assert content["text"] == "Why?\n\nSo."
    assert [anyone.get(part["url"]).text for part in content["parts"]] == ["Why?", "So."]

    fixed = admin.patch("/projects/p_1", json={"pair_of": ["image", "text"]})
    assert (fixed.status_code, fixed.json()["code"]) == (409, "modality_fixed")
    assert "`pair_of`" in fixed.json()["detail"]
    with read_session(engine) as session:
        needs = session.scalars(sa.select(Job.needs)).all()
    assert needs
    assert all({"modality:text", "modality:pair"} <= set(one) for one in needs)


@on_sqlite
def test_what_pairs_may_be_of(admin: TestClient, engine: sa.Engine) -> None:
    def refused(**body: Any) -> str:
        answer = admin.post("/projects", json={"name": "x", "classes": ["a", "b"]} | body)
        assert answer.status_code == 422, answer.text
        return str(answer.json()["errors"][0]["field"])

    assert refused(pair_of=["text"]).startswith("pair_of")
    assert refused(pair_of=["text", "smell"]).startswith("pair_of")
    assert refused(pair_of=["text", "text"], modality="image") == "pair_of"
    created(admin, pair_of=["audio", "text"])
    assert refused(pair_of=["text", "text"], pretext_from="p_1") == "pretext_from"
    other = admin.post("/projects", json={"name": "y", "classes": ["a", "b"], "pretext_from": "p_1"}).json()
    assert other["pair_of"] == ["audio", "text"]
    with read_session(engine) as session:
        assert {project.modality for project in session.scalars(sa.select(Project))} == {"pair"}

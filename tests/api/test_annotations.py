"""What a tool draws or writes beside the class: stored, revised, exported and imported as it is."""

import json
from typing import Any

import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient

from service.settings import Settings
from tests.api.conftest import created
from tests.api.test_labeling import fill

BOXES = [
    {"type": "rectanglelabels", "value": {"x": 12.5, "y": 3, "width": 40, "rectanglelabels": ["coat"]}},
    {"type": "transcript", "value": {"text": 'Zoë 🦊 "quoted", with; commas\nand lines'}},
]
LIMIT = 256 * 1024


def label(key: str, annotation: Any = None, **more: Any) -> dict[str, Any]:
    return {"key": key, "class": "coat", "annotator": "ann", "annotation": annotation} | more


def send(client: TestClient, *labels: dict[str, Any]) -> Any:
    return client.post("/projects/p_1/labels", json={"labels": labels})


def exported(client: TestClient, query: str = "") -> list[dict[str, Any]]:
    return [json.loads(line) for line in client.get(f"/projects/p_1/labels{query}").text.splitlines()]


@pytest.fixture
def pool(admin: TestClient, engine: sa.Engine) -> TestClient:
    created(admin)
    fill(engine, 4)
    return admin


def test_it_is_stored_and_given_back_untouched(pool: TestClient) -> None:
    answer = send(pool, label("000", BOXES), label("001", {"mask": []}), label("002"))
    assert answer.json()["accepted"] == 3
    assert [row["annotation"] for row in exported(pool)] == [BOXES, {"mask": []}, None]
    assert pool.get("/projects/p_1/items/i_1").json()["labels"][0]["annotation"] == BOXES


def test_it_is_part_of_what_a_label_says(pool: TestClient) -> None:
    def outcomes(annotation: Any) -> list[str]:
        return [each["outcome"] for each in send(pool, label("000", annotation)).json()["results"]]

    assert outcomes(BOXES) == ["accepted"]
    assert outcomes(BOXES) == ["duplicate"]
    assert outcomes([]) == ["revised"]
    assert outcomes(None) == ["revised"]
    assert outcomes(None) == ["duplicate"]
    history = exported(pool, "?all=true")
    assert [(row["revision"], row["current"], row["annotation"]) for row in history] == [
        (1, False, BOXES),
        (2, False, []),
        (3, True, None),
    ]
    metrics = pool.get("/projects/p_1/metrics").json()
    assert metrics["labels_used"] == 1


def test_a_skip_may_carry_one_and_a_withdrawal_may_not(pool: TestClient) -> None:
    skipped = {"key": "000", "skip": "unsure", "annotator": "ann", "annotation": {"why": "blurred"}}
    assert send(pool, skipped).json()["accepted"] == 1
    refused = send(pool, label("000", BOXES) | {"class": None})
    assert refused.status_code == 422
    assert "`annotation` goes with a `class` or a `skip`" in refused.json()["detail"]


@pytest.mark.parametrize("annotation", ["boxes", 3, True])
def test_it_is_an_object_or_an_array(pool: TestClient, annotation: Any) -> None:
    refused = send(pool, label("000", annotation))
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["field"] == "labels[0].annotation"


def test_the_limit_is_named_and_counts_bytes(pool: TestClient) -> None:
    fits = {"mask": "é" * ((LIMIT - len('{"mask":""}')) // 2)}
    assert send(pool, label("000", fits)).status_code == 200
    refused = send(pool, label("001"), label("002", {"mask": fits["mask"] + "é"}))
    assert refused.status_code == 422
    (error,) = refused.json()["errors"]
    assert error["field"] == "labels[1].annotation"
    assert "262,144 (256 KB)" in error["message"]
    assert len(exported(pool)) == 1


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("application/x-ndjson", "application/x-ndjson"),
        ("text/csv", "text/csv"),
        ("application/vnd.apache.parquet", "application/vnd.apache.parquet"),
    ],
)
def test_exports_are_imported_again(pool: TestClient, settings: Settings, accept: str, kind: str) -> None:
    send(pool, label("000", BOXES), label("001"))
    send(pool, label("000", {"spans": [[0, 4]]}))
    body = pool.get("/projects/p_1/labels?all=true", headers={"Accept": accept}).content
    before = exported(pool, "?all=true")
    created(pool, name="another")
    folder = settings.source_roots[0]
    copied = pool.post(
        "/projects/p_2/items",
        json={"items": [{"key": key, "uri": f"{folder}/{key}.png"} for key in ("000", "001")]},
    )
    assert copied.status_code == 200, copied.text
    answer = pool.post("/projects/p_2/labels/import", content=body, headers={"Content-Type": kind})
    assert answer.json()["refused"] == []
    after = [json.loads(line) for line in pool.get("/projects/p_2/labels?all=true").text.splitlines()]
    told = [(row["key"], row["revision"], row["annotation"]) for row in before]
    assert [(row["key"], row["revision"], row["annotation"]) for row in after] == told


def test_one_that_is_too_large_is_one_refused_line(pool: TestClient) -> None:
    lines = [label("000", {"mask": "x" * 2**20}), label("001", BOXES), label("002") | {"annotation": "{"}]
    answer = pool.post(
        "/projects/p_1/labels/import",
        content="\n".join(map(json.dumps, lines)),
        headers={"Content-Type": "application/x-ndjson"},
    ).json()
    assert answer["outcomes"] == {"accepted": 1}
    assert [(one["line"], one["field"]) for one in answer["refused"]] == [
        (1, "annotation"),
        (3, "annotation"),
    ]
    assert "262,144" in answer["refused"][0]["message"]

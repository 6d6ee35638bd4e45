"""The map through HTTP; how it is drawn is tested in tests/worker/jobs/test_map_items.py."""

import json
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient

from service.settings import Settings
from service.store import pipeline
from service.store.artifacts import Artifacts
from service.store.ids import public_id
from service.store.item_map import Guesses, ItemMap
from service.store.session import write_session
from service.store.tables import Item, Job, Project, ScoreRun
from tests import factories
from tests.api.conftest import Callers, created
from tests.worker.jobs.scored_projects import CLASSES, ScoredProject, make_scored_project

ARTIFACT = "scores/1/arrays"


@pytest.fixture
def scored(engine: sa.Engine, artifacts: Artifacts) -> ScoredProject:
    return make_scored_project(engine, artifacts, pool=20, test=2)


@pytest.fixture
def mapped(scored: ScoredProject, artifacts: Artifacts) -> ScoredProject:
    """Item k lies at (1000 k, 500 k)."""
    steps = np.arange(22, dtype=np.uint16)
    places = np.stack([1_000 * steps, 500 * steps], axis=1)
    ItemMap(scored.ids, places, (10 * steps).astype(np.uint8)).store(artifacts, ARTIFACT)
    return scored


def unpacked(data: bytes) -> tuple[dict[str, Any], dict[str, Any]]:
    """As docs/map.md says."""
    length = int.from_bytes(data[:4], "little")
    header, at, columns = json.loads(data[4 : 4 + length]), 4 + length, {}
    for column in header["columns"]:
        columns[column["name"]] = np.frombuffer(data, column["type"], header["items"], at)
        at += -(-columns[column["name"]].nbytes // 8) * 8
    assert at == len(data)
    return header, columns


def test_what_is_known_of_each_item(
    admin: TestClient, mapped: ScoredProject, engine: sa.Engine, artifacts: Artifacts
) -> None:
    with write_session(engine) as session:
        project = session.get_one(Project, mapped.id)
        done = session.get_one(Item, mapped.pool[3])
        label = factories.make_label(session, item=done, class_name="owl", arm="control", round_number=7)
        done.state, done.class_name, done.decided_by = "done", "owl", label.id
        session.get_one(Item, mapped.pool[4]).state = "withdrawn"
        head = factories.make_head(session, project=project, score_run=session.get_one(ScoreRun, 1))
        project.head_id = head.id
        version = head.version
    probabilities = np.array([[0.2, 0.8, 0], [1, 0, 0]], np.float32)
    Guesses.of(["gone", "dog", "owl"], mapped.ids, np.array([5, 6]), probabilities).store(
        artifacts, ARTIFACT, version
    )
    answer = admin.get("/projects/p_1/map")
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-encoding"] == "gzip"
    header, columns = unpacked(answer.content)
    assert (header["items"], header["head"], header["classes"]) == (22, version, CLASSES)
    assert columns["item"].tolist() == mapped.ids.tolist()
    assert columns["x"].tolist() == [1_000 * step for step in range(22)]
    assert columns["loss"][2] == 20
    assert [header["states"][each] for each in columns["state"]] == [
        "available",
        "available",
        "available",
        "done",
        "aside",
        *["available"] * 15,
        "test",
        "test",
    ]
    assert columns["class"][3] == CLASSES.index("owl")
    assert columns["class"][0] == -1
    assert columns["class"][20] == mapped.truth[20]
    assert header["arms"][columns["arm"][3]] == "control"
    assert (columns["round"][3], columns["round"][0]) == (7, 0)
    assert (columns["guess"][5], columns["doubt"][5]) == (1, round(0.4 * 254))
    assert (columns["guess"][6], columns["doubt"][6]) == (-1, 0)  # of a class that is gone
    assert (columns["guess"][0], columns["doubt"][0]) == (-1, 255)
    again = admin.get("/projects/p_1/map", headers={"If-None-Match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    plain = admin.get("/projects/p_1/map", headers={"Accept-Encoding": "identity"})
    assert "content-encoding" not in plain.headers
    assert plain.content == answer.content


def test_items_within_an_outline(admin: TestClient, mapped: ScoredProject) -> None:
    asked = {"outline": "4500,0,9500,0,9500,9000,4500,9000"}
    expected = [public_id("i", mapped.pool[step]) for step in range(5, 10)]
    first = admin.get("/projects/p_1/map/items", params=asked | {"limit": 3}).json()
    assert [item["id"] for item in first["items"]] == expected[:3]
    rest = admin.get("/projects/p_1/map/items", params=asked | {"cursor": first["next_cursor"]}).json()
    assert [item["id"] for item in rest["items"]] == expected[3:]
    assert rest["next_cursor"] is None


@pytest.mark.parametrize("outline", ["", "1,2,3,4", "1,2,3,4,5", "a,b,c,d,e,f", "1,2,3,4,5,nan", "0," * 500])
def test_what_is_no_outline_is_refused(admin: TestClient, mapped: ScoredProject, outline: str) -> None:
    answer = admin.get("/projects/p_1/map/items", params={"outline": outline})
    assert answer.status_code == 422
    assert "outline" in answer.text


def test_a_map_that_is_not_there_yet(
    admin: TestClient, caller: Callers, scored: ScoredProject, engine: sa.Engine
) -> None:
    missing = admin.get("/projects/p_1/map")
    assert (missing.status_code, missing.json()["code"]) == (409, "map_missing")
    assert "/projects/p_1/map" in missing.json()["detail"]
    assert caller("annotator").post("/projects/p_1/map").status_code == 403
    asked = caller("reader").post("/projects/p_1/map")
    assert (asked.status_code, asked.json()["kind"]) == (202, "index_items")  # which queues the map
    created(admin, name="unscored")
    assert admin.get("/projects/p_2/map").json()["code"] == "no_score_run"
    assert admin.post("/projects/p_2/map").json()["code"] == "no_score_run"


def test_only_readers_see_it(caller: Callers, mapped: ScoredProject) -> None:
    assert caller("reader").get("/projects/p_1/map").status_code == 200
    assert caller("annotator").get("/projects/p_1/map").status_code == 403


def test_the_map_waits_in_the_long_lane(scored: ScoredProject, engine: sa.Engine, settings: Settings) -> None:
    with write_session(engine) as session:
        job = session.get_one(Job, pipeline.queue_map_items(session, session.get_one(Project, scored.id)))
        assert job.lane == "long"

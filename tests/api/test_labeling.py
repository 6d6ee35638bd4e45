"""next-batch and labels through HTTP; the rules themselves are tested in tests/service."""

import csv
import io
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient

from service.store.session import write_session
from service.store.tables import Project, Round
from tests import factories
from tests.api.conftest import created


def fill(engine: sa.Engine, items: int, *, ranked: int = 0, **predictions: Any) -> None:
    """Items i_1, i_2, … of project p_1; the last `ranked` of them ranked, the first of these first."""
    with write_session(engine) as session:
        project = session.get_one(Project, 1)
        made = [factories.make_item(session, project=project, key=f"{number:03}") for number in range(items)]
        if not ranked:
            return
        score_run = factories.make_score_run(session, project=project)
        head = factories.make_head(session, project=project, score_run=score_run, version=4)
        ranking = factories.make_ranking(
            session, project=project, score_run=score_run, version=7, head_id=head.id, seed=3
        )
        ranking.items = ranked
        for rank, item in enumerate(made[-ranked:], start=1):
            factories.make_ranked_item(
                session, ranking=ranking, item=item, rank=rank, score=1 / rank, **predictions
            )
            factories.make_score(session, score_run=score_run, item=item, pretext_loss=1.31, percentile=97.2)
        project.score_run_id, project.ranking_id = score_run.id, ranking.id


def labels_for(batch: dict[str, Any], class_name: str = "coat", annotator: str = "ann") -> dict[str, Any]:
    return {
        "labels": [
            {"item": item["id"], "class": class_name, "annotator": annotator, "batch": batch["batch"]}
            for item in batch["items"]
        ]
    }


def test_a_batch_says_why(admin: TestClient, engine: sa.Engine) -> None:
    created(admin, control_fraction=0.5)
    fill(engine, 4, ranked=2, predicted_class="coat", predicted_probability=0.41)
    batch = admin.post("/next-batch", json={"annotator": "ann", "size": 2}).json()
    assert batch["reason"] is None
    assert batch["expires_at"].endswith("Z")
    by_arm = {item["arm"]: item for item in batch["items"]}
    selected, control = by_arm["selected"], by_arm["control"]
    assert (selected["rank"], selected["score"], selected["key"]) == (1, 1.0, "002")
    assert selected["why"] == {
        "strategy": "shortlist",
        "ranking": 7,
        "score_run": "s_1",
        "head": 4,
        "seed": 3,
        "pretext_loss": 1.31,
        "pretext_loss_percentile": 97.2,
        "pretext_loss_spread": None,
    }
    assert selected["prediction"] == {"class": "coat", "probability": 0.41, "head": 4}
    assert (control["rank"], control["score"], control["prediction"]) == (None, None, None)
    assert (control["why"]["strategy"], control["why"]["ranking"]) == ("random", None)


def test_a_round_trip(admin: TestClient, engine: sa.Engine) -> None:
    created(admin, round_size=3, retrain_min_labels=2)
    fill(engine, 8, ranked=4)
    batch = admin.post("/projects/p_1/next-batch", json={"annotator": "ann", "size": 4}).json()
    answer = admin.post("/projects/p_1/labels", json=labels_for(batch)).json()
    assert answer["accepted"] == 4
    assert [result["item"] for result in answer["results"]] == [item["id"] for item in batch["items"]]
    assert (answer["round"], answer["labels_used"], answer["retrain"]["queued"]) == (2, 4, True)
    assert admin.get(f"/jobs/{answer['retrain']['job']}").json()["kind"] == "train_head"
    first, second = admin.get("/projects/p_1/rounds").json()["items"]
    assert (first["state"], first["labels"], first["labels_used"]) == ("closed", 3, 3)
    assert (second["state"], second["labels"], second["labels_used"]) == ("open", 1, 4)
    assert first["strategy"] == {"name": "shortlist", "params": {}}
    metrics = admin.get("/projects/p_1/metrics").json()
    assert (metrics["labels_used"], metrics["pool_items"]) == (4, 8)
    assert metrics["items"] == {"available": 4, "done": 4}
    assert metrics["class_balance"] == {"coat": 4, "shirt": 0}
    assert metrics["label_rate"] == {"last_hour": 4, "annotators": 1}
    assert [job["kind"] for job in metrics["jobs"]] == ["train_head"]
    assert metrics["ranking"]["version"] == 7
    assert metrics["ranking"]["score_run"] == metrics["score_run"]["id"] == "s_1"


def test_a_measured_round_shows_its_head(admin: TestClient, engine: sa.Engine) -> None:
    created(admin)
    measured = {
        "measured_on": "control",
        "items": 40,
        "accuracy": 0.8,
        "accuracy_low": 0.65,
        "accuracy_high": 0.9,
        "macro_f1": 0.79,
        "nll": 0.6,
        "ece": 0.05,
        "recall": {"coat": 0.75, "shirt": None},
        "reliability": None,
        "confusion": [[15, 5], [0, 0]],
        "temperature": 1.2,
        "pretext_loss_correlation": {"rho": 0.1, "low": -0.2, "high": 0.4, "items": 40},
        "random_curve": [
            {"labels": n, "items": 40, "accuracy": 0.7, "accuracy_low": 0.55, "accuracy_high": 0.82}
            for n in (10, 20, 40)
        ],
        "picks_gain": {
            "gain": -0.02,
            "low": -0.1,
            "high": 0.06,
            "labels": 40,
            "items": 40,
            "strategy": "shortlist",
        },
        "trained": "linear",
        "promoted": False,
        "note": "Not promoted: less accurate than head 1.",
    }
    with write_session(engine) as session:
        project = session.get_one(Project, 1)
        score_run = factories.make_score_run(session, project=project)
        head = factories.make_head(
            session, project=project, score_run=score_run, metrics=measured, labels_used=50, seconds=2.5
        )
        project.head_id = head.id
        first = factories.make_round(
            session,
            project=project,
            number=2,
            labels=50,
            labels_before=0,
            head_id=head.id,
            closed_at=head.created_at,
            measured_at=head.created_at,
        )
        assert first.number == 2
    found = admin.get("/projects/p_1/rounds/2").json()
    assert (found["state"], found["metrics"], found["training_seconds"]) == ("measured", measured, 2.5)
    (brief,) = admin.get("/projects/p_1/rounds?newest_first=true&brief=true&limit=1").json()["items"]
    assert brief == found | {"metrics": measured | {"recall": None, "confusion": None}}
    metrics = admin.get("/projects/p_1/metrics").json()
    (point,) = metrics["learning_curve"]
    assert (point["labels_used"], point["accuracy"], point["accuracy_low"]) == (50, 0.8, 0.65)
    assert metrics["head"]["metrics"] == measured | {"recall": None, "confusion": None}
    assert metrics["head_note"] == "Not promoted: less accurate than head 1."
    assert metrics["advice"]["gain"] is None
    assert metrics["advice"]["text"].endswith("that takes 4 measured rounds, there are 1.")
    random = metrics["random_selection"]
    assert random["labels"] == 50
    assert random["accuracy"]["low"] < 0.7 < random["accuracy"]["high"]
    assert admin.get("/projects/p_1/rounds/3").status_code == 404


@pytest.mark.parametrize("newest_first", [False, True])
def test_the_pages_of_rounds_have_no_gap(admin: TestClient, engine: sa.Engine, newest_first: bool) -> None:
    created(admin)
    with write_session(engine) as session:
        project = session.get_one(Project, 1)
        session.scalars(sa.select(Round)).one().closed_at = project.created_at  # only one may be open
        for number in range(2, 8):
            closed_at = None if number == 7 else project.created_at
            factories.make_round(session, project=project, number=number, labels=0, closed_at=closed_at)
    numbers: list[int] = []
    params: dict[str, Any] = {"newest_first": newest_first, "limit": 3}
    while True:
        answer = admin.get("/projects/p_1/rounds", params=params).json()
        numbers += [found["number"] for found in answer["items"]]
        if answer["next_cursor"] is None:
            break
        params["cursor"] = answer["next_cursor"]
    assert numbers == ([7, 6, 5, 4, 3, 2, 1] if newest_first else [1, 2, 3, 4, 5, 6, 7])


def test_reasons_come_with_retry_after_where_waiting_helps(admin: TestClient, engine: sa.Engine) -> None:
    created(admin, reservation_ttl_s=100)
    empty = admin.post("/next-batch", json={"annotator": "ann"})
    assert (empty.status_code, empty.json()) == (
        200,
        {"batch": None, "expires_at": None, "items": [], "reason": "pool_exhausted"},
    )
    assert "Retry-After" not in empty.headers
    fill(engine, 2)
    held = admin.post("/next-batch", json={"annotator": "ann"}).json()
    waiting = admin.post("/next-batch", json={"annotator": "bob"})
    assert waiting.json()["reason"] == "all_reserved"
    assert 90 <= int(waiting.headers["Retry-After"]) <= 101
    assert admin.delete(f"/batches/{held['batch']}").status_code == 204
    assert len(admin.post("/next-batch", json={"annotator": "bob"}).json()["items"]) == 2
    gone = admin.post(f"/batches/{held['batch']}/renew")
    assert (gone.status_code, gone.json()["code"]) == (409, "reservation_expired")


def test_a_wrong_label_stores_none_and_is_named(admin: TestClient, engine: sa.Engine) -> None:
    created(admin)
    fill(engine, 3)
    good = {"item": "i_1", "class": "coat", "annotator": "ann"}
    for bad, field, code in [
        (good | {"class": "bird"}, "labels[1].class", "unknown_class"),
        (good | {"item": "i_99"}, "labels[1].item", "unknown_item"),
        (good | {"item": "nonsense"}, "labels[1].item", "unknown_item"),
        (good | {"batch": "b_77"}, "labels[1].batch", "unknown_batch"),
        (good | {"skip": "unsure"}, "labels[1]", "malformed"),
        ({"item": "i_1", "annotator": "ann"}, "labels[1]", "malformed"),
        ({"item": "i_1", "skip": "boring", "annotator": "ann"}, "labels[1].skip", "malformed"),
        ({"item": "i_1", "class": "coat"}, "labels[1].annotator", "annotator_missing"),
        (good | {"annotator": ""}, "labels[1].annotator", "malformed"),
        (good | {"revision": 0}, "labels[1].revision", "malformed"),
        (good | {"duration_ms": -1}, "labels[1].duration_ms", "malformed"),
        (good | {"claas": "coat"}, "labels[1].claas", "malformed"),
    ]:
        answer = admin.post("/labels", json={"labels": [good, bad]})
        problem = answer.json()
        assert (answer.status_code, problem["code"], problem["errors"][0]["field"]) == (422, code, field), bad
    assert (
        "coat, shirt" in admin.post("/labels", json={"labels": [good | {"class": "bird"}]}).json()["detail"]
    )
    assert admin.get("/projects/p_1/metrics").json()["labels_used"] == 0
    assert admin.post("/labels", json={"labels": [good] * 1001}).status_code == 422


def test_labels_are_exported_in_three_formats(admin: TestClient, engine: sa.Engine) -> None:
    created(admin, classes=["coat", 'Mäntel, "lang" 🧥'])
    fill(engine, 3)
    for class_name in ("coat", 'Mäntel, "lang" 🧥'):
        admin.post("/labels", json={"labels": [{"item": "i_1", "class": class_name, "annotator": "ann"}]})
    admin.post("/labels", json={"labels": [{"item": "i_2", "skip": "unsure", "annotator": "bob"}]})

    def export(accept: str, query: str = "") -> Any:
        answer = admin.get(f"/projects/p_1/labels{query}", headers={"Accept": accept})
        assert answer.status_code == 200
        return answer

    lines = [json.loads(line) for line in export("*/*").text.splitlines()]
    assert [(row["key"], row["class"], row["skip"], row["revision"]) for row in lines] == [
        ("000", 'Mäntel, "lang" 🧥', None, 2),
        ("001", None, "unsure", 1),
    ]
    assert lines[0]["created_at"].endswith("Z")
    history = [json.loads(line) for line in export("application/x-ndjson", "?all=true").text.splitlines()]
    assert [(row["class"], row["current"]) for row in history][:2] == [
        ("coat", False),
        ('Mäntel, "lang" 🧥', True),
    ]
    rows = list(csv.DictReader(io.StringIO(export("text/csv").text)))
    assert [(row["class"], row["annotator"]) for row in rows] == [('Mäntel, "lang" 🧥', "ann"), ("", "bob")]
    parquet = export("application/vnd.apache.parquet;q=0.9, text/html")
    table = pq.read_table(io.BytesIO(parquet.content))
    assert table.column("class").to_pylist() == ['Mäntel, "lang" 🧥', None]
    refused = admin.get("/projects/p_1/labels", headers={"Accept": "text/html"})
    assert (refused.status_code, refused.json()["code"]) == (406, "not_acceptable")


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_an_export_of_nothing_has_a_head(admin: TestClient) -> None:
    created(admin)
    assert admin.get("/projects/p_1/labels").text == ""
    assert admin.get("/projects/p_1/labels", headers={"Accept": "text/csv"}).text.startswith(
        "item,key,annotator"
    )
    empty = admin.get("/projects/p_1/labels", headers={"Accept": "application/vnd.apache.parquet"})
    assert pq.read_table(io.BytesIO(empty.content)).num_rows == 0


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_long_export_comes_in_pages(
    admin: TestClient, engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.api.exports.PAGE_ROWS", 3)
    created(admin)
    fill(engine, 10, ranked=10)
    labels = [{"item": f"i_{number}", "class": "coat", "annotator": "ann"} for number in range(1, 10)]
    admin.post("/labels", json={"labels": labels})
    for accept, rows in (("application/x-ndjson", 9), ("text/csv", 10)):
        lines = admin.get("/projects/p_1/labels", headers={"Accept": accept}).text.splitlines()
        assert len(lines) == len(set(lines)) == rows
    parquet = admin.get("/projects/p_1/scores", headers={"Accept": "application/vnd.apache.parquet"})
    assert pq.read_table(io.BytesIO(parquet.content)).column("key").to_pylist() == [
        f"{n:03}" for n in range(10)
    ]
    for accept in ("*/*", "application/json", "application/json;q=0.9, text/csv;q=0.1", "text/csv;q=², */*"):
        summary = admin.get("/projects/p_1/scores", headers={b"Accept": accept.encode("latin-1")})
        assert summary.json()["score_run"] == "s_1"


def test_eight_annotators_through_http(admin: TestClient, engine: sa.Engine) -> None:
    """Each takes and labels batches at the same time: no item twice, the counters exact, rounds at their size."""
    created(admin, round_size=16, retrain_min_labels=1)
    fill(engine, 96, ranked=80)
    start = threading.Barrier(8)

    def annotate(name: str) -> list[str]:
        taken: list[str] = []
        start.wait()
        while True:
            batch = admin.post("/next-batch", json={"annotator": name, "size": 6}).json()
            if not batch["items"]:
                return taken
            taken += [item["id"] for item in batch["items"]]
            assert admin.post("/labels", json=labels_for(batch, annotator=name)).json()["accepted"] == len(
                batch["items"]
            )

    with ThreadPoolExecutor(8) as pool:
        taken = [item for share in pool.map(annotate, "abcdefgh") for item in share]
    assert len(taken) == len(set(taken)) == 96
    metrics = admin.get("/projects/p_1/metrics").json()
    assert (metrics["labels_used"], metrics["items"]) == (96, {"available": 0, "done": 96})
    rounds = admin.get("/projects/p_1/rounds").json()["items"]
    assert [found["labels"] for found in rounds] == [16] * 6 + [0]
    assert len(admin.get("/jobs?kind=train_head").json()["items"]) == 1

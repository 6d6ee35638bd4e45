"""Projects, items, bulk labels, lists and exports through the client, with a service behind it."""

import csv
import json
from pathlib import Path

import pytest
import sqlalchemy as sa

from service.store.session import write_session
from service.store.tables import Job, utc_now
from service.store.tables import Project as ProjectRow
from shortlist_client import Invalid, JobFailed, Label, NotFound, Project, Shortlist, TimedOut
from tests import factories


def test_projects_are_made_found_changed_and_deleted(client: Shortlist) -> None:
    with pytest.raises(NotFound, match="there are: none"):
        client.project()
    made = client.create_project("shirts", ["coat", "shirt"], round_size=7)
    assert client.project().id == client.project("shirts").id == client.project(made.id).id == made.id
    assert (made.name, made.classes) == ("shirts", ["coat", "shirt"])
    made.update(round_size=9, state="paused")
    assert client.get(f"/projects/{made.id}")["round_size"] == 9
    assert made.refresh().info.state == "paused"
    other = client.create_project("p_1/..", ["a", "b"])
    assert [project.name for project in client.projects()] == ["shirts", "p_1/.."]
    with pytest.raises(NotFound, match=r"'shirts', 'p_1/\.\.'"):
        client.project()
    with pytest.raises(NotFound):
        client.project("../keys")
    other.delete()
    assert [project.name for project in client.projects()] == ["shirts"]
    with pytest.raises(Invalid, match="at least two") as raised:
        client.create_project("one", ["a"])
    assert raised.value.errors[0].field == "classes"


def test_lines_are_counted_over_all_calls(client: Shortlist) -> None:
    project = client.create_project("texts", ["good", "bad"], modality="text")
    items = [{"key": f"{number}", "text": f"text {number}"} for number in range(5_200)]
    items[5_100] = {"key": "no text"}
    added = project.add_items(items)
    assert (added.added, added.refused_count, added.refused[0].line) == (5_199, 1, 5_101)
    assert project.add_items(items).known == 5_199

    rows: list[dict[str, str]] = [{"key": item["key"], "class": "good"} for item in items]
    stored = project.import_labels(rows, annotator="import 2024")
    assert stored.outcomes == {"accepted": 5_199}
    assert (stored.refused_count, stored.refused[0].line, stored.refused[0].field) == (1, 5_101, "key")
    assert stored.labels_used == 5_199
    assert {label["annotator"] for label in project.labels()} == {"import 2024"}


def test_labels_in_bulk(project: Project) -> None:
    numbers = {item.key: item.id for item in project.items()}
    labels = [Label(key=key, class_name="good", annotator="ann") for key in list(numbers)[:10]]
    skips = [
        {"item": number, "skip": "broken", "annotator": "ann"} for number in list(numbers.values())[10:12]
    ]
    stored = project.label([*labels, *skips])
    assert (stored.accepted, [result.outcome for result in stored.results]) == (12, ["accepted"] * 12)
    again = project.label(labels * 101)  # 1,010: two calls
    assert (again.accepted, len(again.results)) == (0, 1_010)
    with pytest.raises(Invalid, match="unknown") as raised:
        project.label([*labels * 100, Label(key="000", class_name="unknown", annotator="ann")])
    assert "from label 1000" in raised.value.__notes__[0]
    withdrawn = project.label([Label(key="000", class_name=None, annotator="ann")])
    assert withdrawn.results[0].outcome == "revised"
    assert len(list(project.items(state="done"))) == 9
    with pytest.raises(ValueError, match="no labels"):
        project.label([])


def test_exports(project: Project, tmp_path: Path) -> None:
    project.label([Label(key="000", class_name="good", annotator="ann")])
    for kind in ("csv", "ndjson", "parquet"):
        project.export_labels(tmp_path / f"labels.{kind}", kind)
    lines = (tmp_path / "labels.csv").read_text().splitlines()
    assert [row["class"] for row in csv.DictReader(lines)] == ["good"]
    assert json.loads((tmp_path / "labels.ndjson").read_text())["key"] == "000"
    assert (tmp_path / "labels.parquet").read_bytes().startswith(b"PAR1")


def test_jobs_are_waited_for(project: Project, client: Shortlist, engine: sa.Engine) -> None:
    with write_session(engine) as session:
        number = session.scalars(sa.select(ProjectRow.id)).one()
        session.execute(sa.delete(Job))  # what adding items queued
        factories.make_job(session, project_id=number, state="succeeded", progress=1.0)
        factories.make_job(session, project_id=number, state="failed", error="Too few labels.")
        factories.make_job(session, project_id=number, kind="train_head")
    progress: list[float] = []
    jobs = {job.state: job for job in project.jobs()}
    assert client.wait_for(jobs["succeeded"], on_progress=lambda job: progress.append(job.progress)).ended
    assert progress == [1.0]
    with pytest.raises(JobFailed, match=r"Too few labels\."):
        client.wait_for(jobs["failed"].id)
    with pytest.raises(TimedOut, match="did not end"):
        client.wait_for(jobs["queued"], timeout_s=0)
    with pytest.raises(TimedOut, match="train_head"):
        project.wait_until_idle(timeout_s=0)
    assert [job.kind for job in project.jobs("train_head")] == ["train_head"]


def test_events_come_as_they_happen(project: Project) -> None:
    events = project.events()
    seen = {}
    for event in events:
        seen[event.event] = event.data
        if "labels" in seen:
            break
    assert seen["project"]["name"] == "texts"
    project.label([Label(key="000", class_name="good", annotator="ann")])
    assert next(event.data["labels_used"] for event in events if event.event == "labels") == 1
    events.close()  # type: ignore[attr-defined]


def test_the_curve_has_a_point_a_measured_round(project: Project, engine: sa.Engine) -> None:
    assert project.curve() == []
    with write_session(engine) as session:
        row = session.scalars(sa.select(ProjectRow)).one()
        run = factories.make_score_run(session, project=row)
        measured = {
            "accuracy": 0.8,
            "accuracy_low": 0.7,
            "accuracy_high": 0.9,
            "items": 50,
            "measured_on": "control",
        }
        head = factories.make_head(session, project=row, score_run=run, metrics=measured)
        factories.make_round(
            session,
            project=row,
            number=2,
            labels_before=0,
            labels=50,
            last_label_id=1,
            head_id=head.id,
            closed_at=utc_now(),
            measured_at=utc_now(),
        )
    (point,) = project.curve()
    assert (point.labels_used, point.accuracy, point.accuracy_high) == (10, 0.8, 0.9)

"""New rows by one statement: what comes back is what was given, in its order."""

from datetime import timedelta

import sqlalchemy as sa
from sqlalchemy.orm import undefer

from service.store.bulk import NewRows
from service.store.session import read_session, write_session
from service.store.tables import Label, utc_now
from tests.factories import make_item, make_project

SAME = ("project_id", "created_at")
OWN = tuple(each.key for each in sa.inspect(Label).column_attrs if each.key not in ("id", *SAME))


def test_values_come_back_as_they_were(engine: sa.Engine) -> None:
    now = utc_now() - timedelta(days=3)
    names = ["ann", "Zoë 🦊", 'a "quoted" \\ name', "{curly, comma}", "NULL", "", " ", "\t\n", "'; --"]
    with write_session(engine) as session:
        project = make_project(session)
        rows = [
            {
                "item_id": make_item(session, project=project).id,
                "annotator": name,
                "revision": 1,
                "current": number % 2 == 0,
                "used": number % 3 == 0,
                "class_name": None if number % 2 else name,
                "said": None,
                "skip": "unsure" if number % 2 else None,
                "arm": "imported",
                "outcome": "accepted",
                "batch_id": None,
                "ranking_id": 2**40 + number,
                "round_number": 1,
                "duration_ms": None if number % 2 else number,
                "annotation": None if number % 3 == 0 else {"text": name, "boxes": [[0.5, number], []]},
            }
            for number, name in enumerate(names)
        ]
        numbers = NewRows(Label, OWN, SAME).insert(session, rows, project_id=project.id, created_at=now)
        project_id = project.id
    with read_session(engine) as session:
        stored = [session.get_one(Label, number, options=[undefer(Label.annotation)]) for number in numbers]
    assert [{name: getattr(label, name) for name in OWN} for label in stored] == rows
    assert {(label.project_id, label.created_at) for label in stored} == {(project_id, now)}


def test_numbers_are_those_of_the_rows_in_their_order(engine: sa.Engine) -> None:
    with write_session(engine) as session:
        project = make_project(session)
        item = make_item(session, project=project)
        rows = [
            {
                "item_id": item.id,
                "annotator": f"ann {number}",
                "revision": 1,
                "current": True,
                "used": True,
                "class_name": "cat",
                "said": None,
                "skip": None,
                "arm": "imported",
                "outcome": "accepted",
                "batch_id": None,
                "ranking_id": None,
                "round_number": 1,
                "duration_ms": number,
                "annotation": None,
            }
            for number in range(1000)
        ]
        new = NewRows(Label, OWN, SAME)
        numbers = new.insert(session, rows[:1], project_id=project.id, created_at=utc_now())
        numbers += new.insert(session, rows[1:], project_id=project.id, created_at=utc_now())
        by_number = dict(session.execute(sa.select(Label.id, Label.annotator)).all())
    assert [by_number[number] for number in numbers] == [row["annotator"] for row in rows]
    assert len(set(numbers)) == 1000

"""What annotators wait for reads a few rows by an index, however large the tables are."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from sqlalchemy import event
from sqlalchemy.orm import Session

from service.labeling import batches
from service.store.ids import public_id
from service.store.session import make_engine, write_session
from service.store.tables import Item
from tests import factories
from tests.service.conftest import NOON
from tests.service.labeling.test_labels import entry, make_pool, store
from worker.jobs.score_pool import equal_items

Statement = tuple[str, Any]


@pytest.fixture
def session(sqlite_url: str) -> Iterator[Session]:
    """SQLite says plainly what it would scan; PostgreSQL rightly scans tables as small as these."""
    engine = make_engine(sqlite_url)
    with write_session(engine) as session:
        yield session
    engine.dispose()


@contextmanager
def noted(session: Session) -> Iterator[list[Statement]]:
    engine, statements = session.get_bind(), list[Statement]()

    def note(_: Any, __: Any, statement: str, parameters: Any, ___: Any, many: bool) -> None:
        statements.append((statement, parameters[0] if many else parameters))

    event.listen(engine, "before_cursor_execute", note)
    yield statements
    event.remove(engine, "before_cursor_execute", note)


def plans(session: Session, statements: list[Statement]) -> list[str]:
    connection = session.connection()
    return [
        row.detail
        for statement, parameters in statements
        if not statement.startswith("INSERT")
        for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
    ]


def scans(session: Session, statements: list[Statement]) -> list[str]:
    return [
        plan
        for plan in plans(session, statements)
        if plan.startswith("SCAN") and "INDEX" not in plan and "CONSTANT" not in plan
    ]


def planned_anew(statements: list[Statement]) -> list[str]:
    """Parameters that are compared with what partial indexes are of: SQLite plans such a statement at each run."""
    compared = re.compile(r"\b(?:items|reservations)\.(?:state|split|gold) = \?")
    return [
        found
        for statement, _ in statements
        if statement.startswith("SELECT")
        for found in compared.findall(statement)
    ]


def test_next_batch_and_labels_scan_no_table_and_are_planned_once(session: Session) -> None:
    project, items = make_pool(session, 6, retrain_min_labels=1)
    score_run = factories.make_score_run(session, project=project)
    project.score_run_id = score_run.id
    project.ranking_id = factories.make_ranking(session, project=project, score_run=score_run, items=items).id
    with noted(session) as statements:
        found = batches.next_batch(session, project, annotator="ann", size=3, new=False, now=NOON)
        assert found.batch is not None
        batch = public_id("b", found.batch.id)
        served = [session.get_one(Item, each.item_id) for each in found.served]
        stored = store(session, project, *(entry(item, batch=batch) for item in served))
        session.flush()
    assert stored.job_id is not None  # all of it ran
    assert len(statements) > 15
    assert scans(session, statements) == []
    assert planned_anew(statements) == []


def test_a_statement_that_is_planned_anew_would_be_found() -> None:
    looked = "SELECT min(id) FROM items WHERE items.split = ? AND (items.gold OR items.state = ?)"
    assert planned_anew([(looked, ("pool", "done"))]) == ["items.split = ?", "items.state = ?"]


def test_a_scan_would_be_found(session: Session) -> None:
    assert scans(session, [("SELECT 1 FROM reservations WHERE rank = 3", ())]) != []


def test_items_of_equal_content_are_looked_up_by_their_content(session: Session) -> None:
    _, items = make_pool(session, 6)
    other, equals = make_pool(session, 6)
    for item, equal in zip(items[1:], equals, strict=False):
        item.content_hash = equal.content_hash = f"{item.id:064x}"
    session.flush()
    with noted(session) as statements:
        found = equal_items(session, np.array([item.id for item in items]), other.id)
    assert found.tolist() == [-1, *(equal.id for equal in equals[:-1])]
    assert any(
        "ix_items_content (project_id=? AND content_hash=?)" in plan for plan in plans(session, statements)
    )

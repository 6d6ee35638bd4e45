"""Fewer annotators an item: what has labels enough is done."""

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from service.labeling import batches
from service.pool import queues
from service.projects import project_changes
from service.store.ids import public_id
from service.store.tables import Item, Job, Label, Project, QueuedItem, Reservation, Round
from tests import factories
from tests.service.conftest import NOON
from tests.service.labeling.test_labels import counted, entry, make_pool, store, take


def change_overlap(session: Session, project: Project, overlap: int) -> None:
    values = {"overlap": overlap}
    project_changes.change(
        session, project, changes=values, name=None, classes=None, state=None, if_match=None
    )
    session.flush()


def vote(session: Session, project: Project, item: Item, classes: str) -> None:
    """One label an annotator: c for cat, d for dog."""
    for annotator, letter in zip(("ann", "bob", "cid", "dan"), classes, strict=False):
        store(session, project, entry(item, annotator, class_name={"c": "cat", "d": "dog"}[letter]))


def found(item: Item) -> tuple[str, str | None]:
    return item.state, item.class_name


def test_items_that_have_labels_enough_are_done(session: Session) -> None:
    """As if the project had asked for so few from the start, but for what came later, which counts all the same."""
    cases = {
        "": ("available", None),
        "c": ("available", None),
        "cd": ("available", None),
        "cc": ("done", "cat"),
        "dcdc": ("done", "dog"),  # four labels, overlap + 2: of equals the earliest
    }
    project, items = make_pool(session, len(cases), overlap=3)
    other, (untouched,) = make_pool(session, 1, overlap=3)
    for item, classes in zip(items, cases, strict=True):
        vote(session, project, item, classes)
    vote(session, other, untouched, "cc")
    assert {item.state for item in items} == {"available"}

    change_overlap(session, project, 2)

    assert [found(item) for item in items] == list(cases.values())
    deciding = [session.get_one(Label, item.decided_by) for item in items[3:]]
    assert [(label.item_id, label.annotator) for label in deciding] == [
        (items[3].id, "bob"),
        (items[4].id, "dan"),
    ]
    assert found(untouched) == ("available", None)
    assert {each.item_id for each in take(session, project, "eve")} == {item.id for item in items[:3]}

    change_overlap(session, project, 1)
    assert [found(item) for item in items[:3]] == [
        ("available", None),
        ("done", "cat"),
        ("done", "cat"),
    ]


def test_all_that_counts_labels_stays_as_it_is(session: Session) -> None:
    project, items = make_pool(session, 3, overlap=2, round_size=4, retrain_min_labels=1)
    project.score_run_id = factories.make_score_run(session, project=project).id
    for item in items:
        vote(session, project, item, "c")
    assert session.scalars(sa.select(Job)).all() == []

    change_overlap(session, project, 1)

    assert project.labels_used == counted(session, project) == 3
    assert [job.kind for job in session.scalars(sa.select(Job))] == ["train_head"]
    late = store(session, project, entry(items[0], "bob"))
    assert (late.labels_used, late.round_number) == (3, 1)  # it is not wanted any more
    numbers = session.scalars(sa.select(Round.number).where(Round.project_id == project.id)).all()
    assert numbers == [1]


def test_nobody_holds_or_waits_for_what_is_done_now(session: Session) -> None:
    project, (item,) = make_pool(session, 1, overlap=2)
    take(session, project, "bob")
    store(session, project, entry(item))
    queues.add(session, project, [public_id("i", item.id)], "eve")
    assert project.served == 1

    change_overlap(session, project, 1)

    (reservation,) = session.scalars(sa.select(Reservation))
    assert (reservation.state, project.served, project.served_control) == ("released", 0, 0)
    assert session.scalars(sa.select(QueuedItem)).all() == []
    nothing = batches.next_batch(session, project, annotator="eve", size=1, new=False, now=NOON)
    assert nothing.reason == "pool_exhausted"


def test_what_was_sent_out_again_needs_one_more(session: Session) -> None:
    project, (item,) = make_pool(session, 1, overlap=2)
    vote(session, project, item, "cc")
    queues.add(session, project, [public_id("i", item.id)], None)
    assert (item.state, item.asked_again) == ("available", 1)
    change_overlap(session, project, 1)
    assert found(item) == ("done", "cat")

    change_overlap(session, project, 2)
    assert found(item) == ("done", "cat")  # what is done stays done
    queues.add(session, project, [public_id("i", item.id)], None)
    assert item.asked_again == 2
    change_overlap(session, project, 1)
    assert item.state == "available"  # three must agree, and two do


def test_many_are_settled_piece_by_piece(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.labeling.agreement._CHUNK", 3)
    project, items = make_pool(session, 7, overlap=2)
    for item in items:
        vote(session, project, item, "c")
    change_overlap(session, project, 1)
    assert [item.state for item in items] == ["done"] * 7

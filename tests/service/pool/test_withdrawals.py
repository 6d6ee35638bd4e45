import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from service.errors import UnknownItem
from service.labeling.labels import NewLabel
from service.pool import gold, queues, withdrawals
from service.store.ids import public_id
from service.store.tables import Item, Job
from tests import factories
from tests.service.labeling.test_labels import counted, entry, make_pool, store, take


def ids(*items: Item) -> list[str]:
    return [public_id("i", item.id) for item in items]


def test_withdrawn_items_are_nobodys_and_come_back_as_labeled(session: Session) -> None:
    project, (labeled, held, queued) = make_pool(session, 3)
    store(session, project, entry(labeled))
    reservations = take(session, project)
    queues.add(session, project, ids(queued), None)
    assert withdrawals.withdraw(session, project, ids(labeled, held, queued)) == 3
    assert {item.state for item in (labeled, held, queued)} == {"withdrawn"}
    for reservation in reservations:
        session.refresh(reservation)
        assert reservation.state == "released"
    assert queues.page(session, project, None, 0, 9) == []
    assert take(session, project, "bob") == []
    assert (labeled.class_name, project.labels_used) == (None, 1)
    assert withdrawals.withdraw(session, project, ids(held)) == 0

    assert withdrawals.restore(session, project, ids(labeled, held)) == 2
    assert (labeled.state, labeled.class_name, held.state) == ("done", "cat", "available")
    assert labeled.decided_by is not None
    assert project.labels_used == counted(session, project) == 1
    assert [one.item_id for one in take(session, project, "bob")] == [held.id]


def test_a_label_for_a_withdrawn_item_is_kept_and_used_when_it_is_back(session: Session) -> None:
    project, (item,) = make_pool(session, 1)
    withdrawals.withdraw(session, project, ids(item))
    assert store(session, project, entry(item)).outcomes == ["accepted"]
    assert (item.state, project.labels_used) == ("withdrawn", 0)
    withdrawals.restore(session, project, ids(item))
    assert (item.state, item.class_name, project.labels_used) == ("done", "cat", 1)


def test_restoring_a_rejected_item_overrules_the_reject(session: Session) -> None:
    project, (item,) = make_pool(session, 1)
    store(session, project, entry(item, skip="broken"))
    assert withdrawals.restore(session, project, ids(item)) == 1
    assert item.state == "available"
    store(session, project, entry(item, "bob"))
    assert item.state == "done"


def test_an_overruled_reject_stays_overruled(session: Session) -> None:
    project, (item,) = make_pool(session, 1)
    store(session, project, entry(item, skip="broken"))
    withdrawals.restore(session, project, ids(item))
    store(session, project, entry(item, "bob"))
    assert item.state == "done"
    store(session, project, NewLabel(item=public_id("i", item.id), annotator="bob"))  # undone
    assert (item.state, project.labels_used) == ("available", 0)
    gold.mark(session, project, [(public_id("i", item.id), "dog")])
    gold.unmark(session, project, ids(item))
    assert (item.state, project.labels_used) == ("available", 0)


def test_who_rejected_a_restored_item_may_label_it(session: Session) -> None:
    project, (item,) = make_pool(session, 1)
    store(session, project, entry(item, skip="broken"))
    withdrawals.restore(session, project, ids(item))
    assert store(session, project, entry(item)).outcomes == ["revised"]
    assert (item.state, item.class_name) == ("done", "cat")
    assert project.labels_used == counted(session, project) == 1


def test_gold_and_test_items(session: Session) -> None:
    project, (item,) = make_pool(session, 1, gold_fraction=0.5)
    tested = factories.make_item(session, project=project, split="test", class_name="cat")
    gold.mark(session, project, [(public_id("i", item.id), "cat")])
    withdrawals.withdraw(session, project, ids(item, tested))
    assert (item.gold, tested.state, tested.class_name) == (False, "withdrawn", "cat")
    withdrawals.restore(session, project, ids(item, tested))
    assert (item.state, tested.state, tested.class_name) == ("available", "available", "cat")


def test_quarantined_items_come_back_and_are_scored(session: Session) -> None:
    project, (item,) = make_pool(session, 1)
    project.score_run_id = factories.make_score_run(session, project=project).id
    item.state, item.quarantine_reason = "quarantined", "there is no such file"
    assert withdrawals.restore(session, project, ids(item)) == 1
    found = session.execute(sa.select(Item.state, Item.quarantine_reason).where(Item.id == item.id)).one()
    assert tuple(found) == ("available", None)
    assert session.scalars(sa.select(Job.kind)).all() == ["score_pool"]


def test_items_of_others_are_unknown(session: Session) -> None:
    project, (item,) = make_pool(session, 1)
    _, (foreign,) = make_pool(session, 1)
    with pytest.raises(UnknownItem, match=r"items\[1\]"):
        withdrawals.withdraw(session, project, ids(item, foreign))
    assert item.state == "available"


def test_what_was_out_while_the_pool_was_scored_is_scored_when_it_is_back(session: Session) -> None:
    project, (known, missed) = make_pool(session, 2)
    score_run = factories.make_score_run(session, project=project)
    factories.make_score(session, score_run=score_run, item=known)
    project.score_run_id = score_run.id
    withdrawals.withdraw(session, project, ids(known, missed))
    withdrawals.restore(session, project, ids(known))
    assert session.scalars(sa.select(Job.kind)).all() == []
    withdrawals.restore(session, project, ids(missed))
    assert session.scalars(sa.select(Job.kind)).all() == ["score_pool"]

"""A label without class and skip withdraws the annotator's; revisions may come out of order."""

from sqlalchemy.orm import Session

from service.labeling.labels import NewLabel
from service.store.ids import public_id
from service.store.tables import Item, Project
from tests.service.labeling.test_labels import counted, entry, make_pool, rows, store, take


def undo(item: Item, annotator: str = "ann", revision: int | None = None) -> NewLabel:
    return entry(item, annotator, class_name=None, revision=revision)


def consistent(session: Session, project: Project) -> bool:
    return project.labels_used == counted(session, project)


def test_the_item_is_open_again_and_may_come_back(session: Session) -> None:
    project, (item,) = make_pool(session, 1)
    (first,) = take(session, project)
    store(session, project, entry(item))
    assert store(session, project, undo(item)).outcomes == ["revised"]
    assert (item.state, item.class_name, project.labels_used) == ("available", None, 0)
    assert (first.state, project.served, project.served_control) == ("released", 0, 0)
    assert [label.current for label in rows(session)] == [False, False]

    (second,) = take(session, project)
    stored = store(session, project, entry(item, class_name="dog", batch=public_id("b", second.batch_id)))
    assert stored.outcomes == ["revised"]
    newest = rows(session)[-1]
    assert (newest.revision, newest.current, newest.batch_id) == (3, True, second.batch_id)
    assert (second.state, project.served, item.class_name) == ("labeled", 1, "dog")
    assert consistent(session, project)


def test_label_after_undo_without_asking_again(session: Session) -> None:
    project, (item,) = make_pool(session, 1)
    (held,) = take(session, project)
    store(session, project, entry(item), undo(item), entry(item))
    assert (held.state, project.served, project.labels_used) == ("labeled", 1, 1)
    assert (item.state, item.decided_by) == ("done", rows(session)[-1].id)


def test_undo_twice_is_a_duplicate(session: Session) -> None:
    project, (item,) = make_pool(session, 1)
    assert store(session, project, entry(item), undo(item), undo(item)).outcomes == [
        "accepted",
        "revised",
        "duplicate",
    ]


def test_an_undo_that_overtakes_its_label(session: Session) -> None:
    project, (item,) = make_pool(session, 1)
    (held,) = take(session, project)
    assert store(session, project, undo(item, revision=2)).outcomes == ["accepted"]
    assert held.state == "open"
    assert store(session, project, entry(item, revision=1)).outcomes == ["stale"]
    assert (item.state, project.labels_used) == ("available", 0)
    assert store(session, project, entry(item, revision=3)).outcomes == ["revised"]
    session.refresh(held)
    assert (item.state, held.state, project.labels_used) == ("done", "labeled", 1)


def test_undo_of_one_of_two_leaves_the_other(session: Session) -> None:
    project, (item,) = make_pool(session, 1)
    store(session, project, entry(item), entry(item, "bob", class_name="dog"))
    store(session, project, undo(item))
    assert (item.state, item.class_name, project.labels_used) == ("done", "dog", 1)
    store(session, project, undo(item, "bob"))
    assert (item.state, project.labels_used) == ("available", 0)
    assert consistent(session, project)


def test_an_undone_reject_brings_the_item_back(session: Session) -> None:
    project, (item,) = make_pool(session, 1)
    store(session, project, entry(item, skip="broken"))
    assert item.state == "broken"
    store(session, project, undo(item))
    assert item.state == "available"
    assert [held.item_id for held in take(session, project)] == [item.id]

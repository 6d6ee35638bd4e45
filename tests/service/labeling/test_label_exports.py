"""An export holds the labels there were when it began."""

import sqlalchemy as sa
from sqlalchemy.orm import Session

from service.labeling import label_exports
from service.labeling.labels import NewLabel
from service.store.ids import public_id
from service.store.tables import Label
from tests.service.labeling.test_labels import entry, make_pool, store


def exported(session: Session, project_id: int, last: int) -> list[tuple[str, str | None]]:
    """Key and class, read a page of two at a time."""
    found, after = [], 0
    while page := label_exports.page(session, project_id, history=False, last=last, after=after, limit=2):
        found += [(each.key, each.label.class_name) for each in page]
        after = page[-1].label.id
    return found


def test_it_is_what_is_current(session: Session) -> None:
    project, items = make_pool(session, 5)
    store(session, project, *(entry(item) for item in items[:4]))
    store(session, project, entry(items[0], class_name="dog"), entry(items[2], skip="unsure"))
    store(session, project, NewLabel(item=public_id("i", items[1].id), annotator="ann"))  # withdrawn
    store(session, project, entry(items[3], class_name="dog", revision=9))
    store(session, project, entry(items[3], class_name="cat", revision=5))  # stale
    last = label_exports.newest(session, project.id)
    current = session.scalars(sa.select(Label).where(Label.current).order_by(Label.id))
    keys = {item.id: item.key for item in items}
    assert exported(session, project.id, last) == [(keys[one.item_id], one.class_name) for one in current]
    assert exported(session, project.id, last) == [
        (items[0].key, "dog"),
        (items[2].key, None),
        (items[3].key, "dog"),
    ]


def test_labels_that_change_while_it_is_read(session: Session) -> None:
    project, items = make_pool(session, 6)
    store(session, project, *(entry(item) for item in items[:4]))
    last = label_exports.newest(session, project.id)
    before = exported(session, project.id, last)
    assert len(before) == 4
    # One that was read already, one that was not yet, a new one, and one that is withdrawn.
    store(session, project, entry(items[0], class_name="dog"), entry(items[3], class_name="dog"))
    store(session, project, entry(items[4]), NewLabel(item=public_id("i", items[2].id), annotator="ann"))
    assert exported(session, project.id, last) == before
    assert len(exported(session, project.id, label_exports.newest(session, project.id))) == 4


def test_a_project_without_labels(session: Session) -> None:
    project, _ = make_pool(session, 1)
    assert label_exports.newest(session, project.id) == 0
    assert exported(session, project.id, 0) == []

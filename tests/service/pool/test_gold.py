import pytest
from sqlalchemy.orm import Session

from service.errors import ItemNotServable, UnknownClass
from service.labeling import batches
from service.labeling.batches import NextBatch
from service.pool import gold
from service.store.control_arm import control_item_ids
from service.store.ids import public_id
from service.store.project_settings import ProjectSettings
from service.store.tables import Item, Project
from tests import factories
from tests.service.conftest import NOON
from tests.service.labeling.test_labels import counted, entry, make_pool, rows, store


def mark(session: Session, project: Project, *items: Item, class_name: str = "cat") -> int:
    return gold.mark(session, project, [(public_id("i", item.id), class_name) for item in items])


def next_batch(session: Session, project: Project, annotator: str, size: int = 4) -> NextBatch:
    return batches.next_batch(session, project, annotator=annotator, size=size, new=True, now=NOON)


def test_gold_items_are_mixed_in_and_cost_nothing(session: Session) -> None:
    project, items = make_pool(session, 40, gold_fraction=0.25, budget=8)
    assert mark(session, project, *items[:8]) == 8
    batch = next_batch(session, project, "ann", 10)
    arms = [served.arm for served in batch.served]
    assert sorted(arms) == ["control"] * 6 + ["gold"] * 2  # eight of ten: the budget
    assert (project.served, project.served_control) == (6, 6)
    wrong = [entry(session.get_one(Item, served.item_id), class_name="dog") for served in batch.served]
    assert store(session, project, *wrong).outcomes == ["accepted"] * 8
    assert project.labels_used == counted(session, project) == 6
    assert [label.used for label in rows(session)].count(False) == 2
    assert all((item.state, item.class_name) == ("done", "cat") for item in items[:8])


def test_batches_of_one_have_their_share_too(session: Session) -> None:
    project, items = make_pool(session, 90, gold_fraction=0.25)
    mark(session, project, *items[:45])
    arms = []
    for _ in range(40):
        (served,) = next_batch(session, project, "ann", 1).served
        store(session, project, entry(session.get_one(Item, served.item_id)))
        arms.append(served.arm)
    assert 3 <= arms.count("gold") <= 20  # 10 are expected; the seed is fixed


def test_nobody_gets_a_gold_item_twice_but_everybody_gets_them(session: Session) -> None:
    project, items = make_pool(session, 30, gold_fraction=0.5)
    mark(session, project, items[0])
    for annotator in ("ann", "bob"):
        first, second = (next_batch(session, project, annotator, 4) for _ in range(2))
        assert items[0].id in [served.item_id for served in first.served]
        assert items[0].id not in [served.item_id for served in second.served]


def test_gold_items_alone_are_no_work(session: Session) -> None:
    project, items = make_pool(session, 3, gold_fraction=0.5)
    mark(session, project, *items)
    assert next_batch(session, project, "ann").reason == "pool_exhausted"


def test_marking_takes_the_item_from_the_pool_and_back(session: Session) -> None:
    project, (item, other) = make_pool(session, 2)
    batch = next_batch(session, project, "ann")
    assert len(batch.served) == 2
    store(session, project, entry(item, "bob", class_name="dog"))
    assert mark(session, project, item, other) == 2
    assert mark(session, project, item, class_name="cat") == 0
    assert (item.class_name, project.labels_used) == ("cat", 1)
    assert project.served == 0
    public = [public_id("i", one.id) for one in (item, other)]
    assert gold.unmark(session, project, public) == 2
    assert (item.state, item.class_name, item.decided_by) == ("done", "dog", rows(session)[0].id)
    assert other.state == "available"
    assert gold.unmark(session, project, public) == 0


def test_what_cannot_be_gold_is_refused(session: Session) -> None:
    project, (item,) = make_pool(session, 1)
    with pytest.raises(UnknownClass, match=r"items\[0\].class"):
        mark(session, project, item, class_name="bird")
    tested = factories.make_item(session, project=project, split="test", class_name="cat")
    with pytest.raises(ItemNotServable, match="of the test split"):
        mark(session, project, tested)


def test_gold_items_are_no_control_items(session: Session) -> None:
    project, items = make_pool(session, 10, control_fraction=0.3)
    settings = ProjectSettings.model_validate(project.settings)
    assert control_item_ids(session, project.id, settings) == [item.id for item in items[:3]]
    mark(session, project, items[1])
    assert control_item_ids(session, project.id, settings) == [items[0].id, items[2].id]

import pytest
from sqlalchemy.orm import Session

from service.errors import ItemNotServable, LabeledAlready, UnknownItem
from service.labeling import batches
from service.pool import gold, queues, withdrawals
from service.store.ids import public_id
from service.store.tables import Item, Project
from tests import factories
from tests.service.conftest import NOON
from tests.service.labeling.test_labels import counted, entry, make_pool, rows, store, take


def ids(*items: Item) -> list[str]:
    return [public_id("i", item.id) for item in items]


def taken(session: Session, project: Project, annotator: str = "ann", size: int = 1) -> list[int]:
    batch = batches.next_batch(session, project, annotator=annotator, size=size, new=True, now=NOON)
    return [served.item_id for served in batch.served]


def queue(session: Session, project: Project, annotator: str | None = None) -> list[int]:
    return [queued.item_id for queued, _ in queues.page(session, project, annotator, 0, 100)]


def test_queued_items_come_first_and_in_their_order(session: Session) -> None:
    project, items = make_pool(session, 6, control_fraction=0)
    score_run = factories.make_score_run(session, project=project)
    ranking = factories.make_ranking(session, project=project, score_run=score_run, items=items[:4])
    project.score_run_id, project.ranking_id = score_run.id, ranking.id
    queues.add(session, project, ids(items[5], items[2]), None)
    queues.add(session, project, ids(items[3]), "ann")
    batch = batches.next_batch(session, project, annotator="ann", size=4, new=False, now=NOON)
    assert [served.item_id for served in batch.served] == [items[n].id for n in (3, 5, 2, 0)]
    assert [served.arm for served in batch.served] == ["queued"] * 3 + ["selected"]
    assert (project.served, project.served_control) == (1, 0)


def test_what_is_kept_for_one_is_served_to_nobody_else(session: Session) -> None:
    project, (item,) = make_pool(session, 1)
    queues.add(session, project, ids(item), "ann")
    nothing = batches.next_batch(session, project, annotator="bob", size=1, new=False, now=NOON)
    assert nothing.reason == "not_your_turn"
    assert taken(session, project, "ann") == [item.id]
    store(session, project, entry(item, skip="unsure"))
    assert queue(session, project) == []
    assert taken(session, project, "bob") == [item.id]


def test_an_item_leaves_the_queue_when_it_is_done(session: Session) -> None:
    project, items = make_pool(session, 3)
    queues.add(session, project, ids(*items), None)
    store(session, project, entry(items[0]), entry(items[1], skip="broken"), entry(items[2], skip="unsure"))
    assert queue(session, project) == [items[2].id]


def test_queueing_again_moves_it(session: Session) -> None:
    project, items = make_pool(session, 2)
    queues.add(session, project, ids(*items), "ann")
    queues.add(session, project, ids(items[0]), "bob")
    assert queue(session, project) == [items[1].id, items[0].id]
    assert queue(session, project, "bob") == [items[0].id]
    assert queues.remove(session, project, "bob") == 1
    assert queue(session, project) == [items[1].id]


def test_a_done_item_is_asked_again_until_one_more_agrees(session: Session) -> None:
    project, (item, _) = make_pool(session, 2)
    store(session, project, entry(item))
    assert queues.add(session, project, ids(item), None) == queues.Queued(added=1, reopened=1)
    assert (item.state, item.class_name) == ("available", None)
    assert taken(session, project, "ann") != [item.id]  # nobody twice
    assert taken(session, project, "bob") == [item.id]
    store(session, project, entry(item, "bob", class_name="dog"))
    assert item.state == "available"
    store(session, project, entry(item, "cleo", class_name="dog"))
    assert (item.state, item.class_name, item.decided_by) == ("done", "dog", rows(session)[-1].id)
    assert project.labels_used == counted(session, project) == 3
    assert queue(session, project) == []


def test_a_disputed_item_asked_again_needs_one_more(session: Session) -> None:
    project, (item,) = make_pool(session, 1, overlap=2)
    store(session, project, entry(item), entry(item, "bob", class_name="dog"), entry(item, "cleo"))
    assert item.class_name == "cat"
    queues.add(session, project, ids(item), None)
    assert item.state == "available"
    assert len(take(session, project, "dan")) == 1
    assert take(session, project, "eve") == []  # one is enough
    store(session, project, entry(item, "dan"))
    assert (item.state, item.class_name) == ("done", "cat")


def test_nobody_is_kept_an_item_that_they_labeled_already(session: Session) -> None:
    project, (done, unsure, new) = make_pool(session, 3)
    store(session, project, entry(done), entry(unsure, skip="unsure"))
    for item in (done, unsure):
        with pytest.raises(LabeledAlready, match=r"items\[1\]"):
            queues.add(session, project, ids(new, item), "ann")
    assert (done.state, queue(session, project)) == ("done", [])
    assert queues.add(session, project, ids(done, unsure, new), "bob") == queues.Queued(added=3, reopened=1)


def test_what_is_no_id_is_named_by_its_place(session: Session) -> None:
    project, (item,) = make_pool(session, 1)
    wanted = [*ids(item), "nonsense"]
    with pytest.raises(UnknownItem, match=r"items\[1\]"):
        queues.add(session, project, wanted, None)
    with pytest.raises(UnknownItem, match=r"items\[1\]"):
        gold.mark(session, project, [(each, "cat") for each in wanted])
    for act in (gold.unmark, withdrawals.withdraw, withdrawals.restore):
        with pytest.raises(UnknownItem, match=r"items\[1\]"):
            act(session, project, wanted)


def test_what_nobody_can_label_is_refused(session: Session) -> None:
    project, (good, broken) = make_pool(session, 2)
    store(session, project, entry(broken, skip="broken"))
    tested = factories.make_item(session, project=project, split="test", class_name="cat")
    other, (foreign,) = make_pool(session, 1)
    assert other.id != project.id
    for bad, error in ((broken, ItemNotServable), (tested, ItemNotServable), (foreign, UnknownItem)):
        with pytest.raises(error, match=r"items\[1\]"):
            queues.add(session, project, ids(good, bad), None)
    assert queue(session, project) == []

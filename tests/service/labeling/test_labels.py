from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session, load_only

from service.errors import ItemInTestSplit, RevisionTaken, UnknownBatch, UnknownClass, UnknownItem
from service.labeling import batches, labels, rounds
from service.labeling.labels import NewLabel, Stored
from service.store.ids import public_id
from service.store.tables import Item, Job, Label, Project, Reservation, Round
from tests import factories
from tests.service.conftest import NOON


def make_pool(session: Session, size: int = 3, **settings: object) -> tuple[Project, list[Item]]:
    project = factories.make_project(session, settings=settings)
    return project, [factories.make_item(session, project=project) for _ in range(size)]


def entry(item: Item, annotator: str = "ann", **values: Any) -> NewLabel:
    given = values if "skip" in values else {"class_name": "cat"} | values
    return NewLabel(item=public_id("i", item.id), annotator=annotator, **given)


def store(session: Session, project: Project, *entries: NewLabel, after_s: float = 0) -> Stored:
    return labels.store(session, project, entries, NOON + timedelta(seconds=after_s))


def take(session: Session, project: Project, annotator: str = "ann", after_s: float = 0) -> list[Reservation]:
    now = NOON + timedelta(seconds=after_s)
    batch = batches.next_batch(session, project, annotator=annotator, size=100, new=True, now=now)
    if batch.batch is None:
        return []
    mine = sa.select(Reservation).where(Reservation.batch_id == batch.batch.id).order_by(Reservation.position)
    # Read when they are looked at: labels change them by a statement of their own.
    return list(session.scalars(mine.options(load_only(Reservation.arm))))


def rows(session: Session) -> list[Label]:
    session.flush()
    return list(session.scalars(sa.select(Label).order_by(Label.id)))


def counted(session: Session, project: Project) -> int:
    """labels_used by its definition."""
    query = sa.select(sa.func.count()).where(
        Label.project_id == project.id, Label.current, Label.used, Label.class_name.is_not(None)
    )
    return session.scalar(query) or 0


def test_a_label_decides_its_item(session: Session) -> None:
    project, (item, *_) = make_pool(session)
    (reservation, *_) = take(session, project)
    stored = store(session, project, entry(item, batch=public_id("b", reservation.batch_id), duration_ms=900))
    assert stored.outcomes == ["accepted"]
    (label,) = rows(session)
    assert (label.arm, label.batch_id, label.duration_ms) == ("control", reservation.batch_id, 900)
    assert (item.state, item.class_name, item.decided_by) == ("done", "cat", label.id)
    assert reservation.state == "labeled"
    assert stored.labels_used == project.labels_used == 1


def test_an_item_that_was_never_served_is_imported(session: Session) -> None:
    project, (item, *_) = make_pool(session)
    assert store(session, project, entry(item)).outcomes == ["accepted"]
    assert rows(session)[0].arm == "imported"
    assert item.state == "done"


def test_the_same_again_is_a_duplicate(session: Session) -> None:
    project, (item, *_) = make_pool(session)
    stored = store(session, project, entry(item), entry(item), entry(item, revision=1))
    assert stored.outcomes == ["accepted", "duplicate", "duplicate"]
    assert store(session, project, entry(item)).outcomes == ["duplicate"]
    assert len(rows(session)) == 1
    assert project.labels_used == 1


def test_other_content_is_the_next_revision(session: Session) -> None:
    project, (item, *_) = make_pool(session)
    store(session, project, entry(item))
    assert store(session, project, entry(item, class_name="dog")).outcomes == ["revised"]
    first, second = rows(session)
    assert (first.current, second.current, second.revision) == (False, True, 2)
    assert (item.class_name, item.decided_by) == ("dog", second.id)
    assert project.labels_used == 1


def test_an_older_revision_is_stale_and_not_used(session: Session) -> None:
    project, (item, *_) = make_pool(session)
    store(session, project, entry(item, class_name="dog", revision=5))
    assert store(session, project, entry(item, revision=3)).outcomes == ["stale"]
    assert [(label.revision, label.current, label.used) for label in rows(session)] == [
        (5, True, True),
        (3, False, False),
    ]
    assert item.class_name == "dog"


def test_the_same_revision_with_other_content_is_refused(session: Session) -> None:
    project, (item, *_) = make_pool(session)
    store(session, project, entry(item, revision=2))
    with pytest.raises(RevisionTaken, match=r"labels\[0\].revision.*next\s+revision \(3\)"):
        store(session, project, entry(item, class_name="dog", revision=2))


def test_a_late_label_is_used_unless_the_item_is_done(session: Session) -> None:
    project, (first, second) = make_pool(session, 2, reservation_ttl_s=60)
    take(session, project, "ann")
    assert store(session, project, entry(first), after_s=61).outcomes == ["late"]
    assert (first.state, first.class_name) == ("done", "cat")
    take(session, project, "bob", after_s=61)
    store(session, project, entry(second, "bob", class_name="dog"), after_s=62)
    assert store(session, project, entry(second), after_s=63).outcomes == ["late"]
    assert second.class_name == "dog"
    assert [(label.used, label.arm) for label in rows(session)] == [
        (True, "control"),
        (True, "control"),
        (False, "control"),
    ]
    assert project.labels_used == counted(session, project) == 2


def test_a_late_label_takes_the_item_from_who_holds_it_now(session: Session) -> None:
    project, (item,) = make_pool(session, 1, reservation_ttl_s=60)
    take(session, project, "ann")
    (held,) = take(session, project, "bob", after_s=61)
    store(session, project, entry(item), after_s=62)
    session.refresh(held)
    assert held.state == "released"
    assert project.served == 1
    assert store(session, project, entry(item, "bob", class_name="dog"), after_s=63).outcomes == ["late"]
    assert item.class_name == "cat"


def test_unsure_leaves_the_item_to_others(session: Session) -> None:
    project, (item,) = make_pool(session, 1)
    take(session, project, "ann")
    store(session, project, entry(item, skip="unsure"))
    assert (item.state, project.labels_used) == ("available", 0)
    assert take(session, project, "ann") == []
    assert [held.item_id for held in take(session, project, "bob")] == [item.id]


def test_broken_leaves_the_pool(session: Session) -> None:
    project, (item,) = make_pool(session, 1, overlap=3)
    take(session, project, "ann")
    (held,) = take(session, project, "bob")
    store(session, project, entry(item, skip="broken"))
    session.refresh(held)
    assert (item.state, held.state, project.labels_used) == ("broken", "released", 0)
    assert take(session, project, "cleo") == []


def test_a_skip_that_is_revised_counts(session: Session) -> None:
    project, (item,) = make_pool(session, 1)
    store(session, project, entry(item, skip="broken"))
    store(session, project, entry(item))
    assert (item.state, project.labels_used) == ("done", 1)
    store(session, project, entry(item, skip="unsure"))
    assert (item.state, item.class_name, item.decided_by) == ("available", None, None)
    assert project.labels_used == counted(session, project) == 0


def test_what_came_too_late_counts_once_the_item_is_open_again(session: Session) -> None:
    project, (item,) = make_pool(session, 1)
    store(session, project, entry(item), entry(item, "bob", class_name="dog"))
    assert (item.class_name, project.labels_used) == ("cat", 1)
    store(session, project, entry(item, skip="unsure"))
    assert (item.state, item.class_name) == ("done", "dog")
    assert project.labels_used == counted(session, project) == 1


def test_overlap_asks_until_two_agree(session: Session) -> None:
    project, items = make_pool(session, 7, overlap=2)
    project.classes = ["cat", "dog", "bee", "ant"]
    names = {name[0]: name for name in project.classes}
    decisions = {
        "c": None,
        "cc": "cat",
        "cd": None,
        "cdd": "dog",
        "cdb": None,
        "cdbd": "dog",
        "dcba": "dog",  # four labels, overlap + 2: of equals the earliest
    }
    for item, (votes, decision) in zip(items, decisions.items(), strict=True):
        for number, vote in enumerate(votes):
            store(session, project, entry(item, f"annotator {number}", class_name=names[vote]))
        assert item.class_name == decision, votes
        assert item.state == ("available" if decision is None else "done")
        if decision:
            assert item.decided_by == rows(session)[-1].id
    assert project.labels_used == counted(session, project) == len("".join(decisions))


def test_all_or_nothing_and_the_wrong_one_is_named(session: Session) -> None:
    project, items = make_pool(session)
    with pytest.raises(UnknownClass, match=r"labels\[2\].class.*'bird'.*cat, dog"):
        store(session, project, entry(items[0]), entry(items[1]), entry(items[2], class_name="bird"))
    assert rows(session) == []


def test_what_belongs_elsewhere_is_refused(session: Session) -> None:
    project, (item, *_) = make_pool(session)
    other, (foreign, *_) = make_pool(session)
    tested = factories.make_item(session, project=project, split="test", class_name="cat")
    (theirs, *_) = take(session, other)
    with pytest.raises(UnknownItem, match=r"labels\[1\].item"):
        store(session, project, entry(item), entry(foreign))
    with pytest.raises(UnknownItem):
        store(session, project, NewLabel(item="nonsense", annotator="ann", class_name="cat"))
    with pytest.raises(ItemInTestSplit):
        store(session, project, entry(tested))
    for batch in (public_id("b", theirs.batch_id), "nonsense"):
        with pytest.raises(UnknownBatch, match=r"labels\[0\].batch"):
            store(session, project, entry(item, batch=batch))


def test_a_quarantined_item_keeps_its_state(session: Session) -> None:
    project, (item, *_) = make_pool(session)
    item.state = "quarantined"
    assert store(session, project, entry(item)).outcomes == ["accepted"]
    assert (item.state, project.labels_used) == ("quarantined", 0)


def test_rounds_close_by_themselves_and_at_the_right_label(session: Session) -> None:
    project, items = make_pool(session, 7, round_size=3, strategy="margin", seed=5)
    score_run = factories.make_score_run(session, project=project)
    project.score_run_id = score_run.id
    stored = store(session, project, *(entry(item) for item in items))
    assert stored.round_number == 3
    numbers = [label.id for label in rows(session)]
    first, second, third = session.scalars(sa.select(Round).order_by(Round.number))
    assert [first.last_label_id, second.last_label_id, third.last_label_id] == [numbers[2], numbers[5], None]
    assert [label.round_number for label in rows(session)] == [1, 1, 1, 2, 2, 2, 3]
    assert (first.labels, second.labels, third.labels_before, third.closed_at) == (3, 3, 6, None)
    assert first.closed_at == NOON
    assert first.strategy is not None
    assert (first.strategy["name"], first.seed, first.score_run_id) == ("margin", 5, score_run.id)
    reports = rounds.page(session, project, 0, 10)
    assert [report.labels for report in reports] == [3, 3, 1]
    assert reports[0].arms == {"imported": 3}


def test_skips_and_duplicates_close_no_round(session: Session) -> None:
    project, items = make_pool(session, 4, round_size=2)
    store(session, project, entry(items[0]), entry(items[0]), entry(items[1], skip="unsure"))
    assert rounds.open_round(session, project).number == 1
    assert store(session, project, entry(items[2])).round_number == 2


def test_retraining_is_queued_once_and_only_when_it_can_run(session: Session) -> None:
    project, items = make_pool(session, 6, retrain_min_labels=3)
    assert store(session, project, *(entry(item) for item in items[:3])).job_id is None  # nothing is scored
    project.score_run_id = factories.make_score_run(session, project=project).id
    job_id = store(session, project, entry(items[3])).job_id
    assert job_id is not None
    assert store(session, project, entry(items[4])).job_id == job_id
    assert store(session, project, entry(items[4])).job_id is None  # a duplicate changes nothing
    (job,) = session.scalars(sa.select(Job))
    assert (job.kind, job.coalesced) == ("train_head", 1)


def test_too_few_labels_queue_nothing(session: Session) -> None:
    project, items = make_pool(session, 6, retrain_min_labels=3)
    project.score_run_id = factories.make_score_run(session, project=project).id
    assert store(session, project, entry(items[0]), entry(items[1])).job_id is None
    assert store(session, project, entry(items[2])).job_id is not None


def test_a_head_that_lost_its_labels_is_looked_at_again(session: Session) -> None:
    project, items = make_pool(session, 6, retrain_min_labels=3)
    score_run = factories.make_score_run(session, project=project)
    project.score_run_id = score_run.id
    project.head_id = factories.make_head(session, project=project, score_run=score_run).id
    assert store(session, project, entry(items[0])).job_id is not None


def test_a_thousand_labels_at_once(session: Session) -> None:
    project, items = make_pool(session, 1000, round_size=400)
    stored = store(session, project, *(entry(item) for item in items))
    assert stored.outcomes == ["accepted"] * 1000
    assert [label.item_id for label in rows(session)] == [item.id for item in items]
    assert project.labels_used == counted(session, project) == 1000
    assert stored.round_number == 3


def test_rounds_tell_how_well_annotators_agree(session: Session) -> None:
    project, items = make_pool(session, 4, overlap=2, round_size=6)
    for item in items[:3]:
        store(session, project, entry(item), entry(item, "bob"))
    for annotator, class_name in (("ann", "cat"), ("bob", "dog"), ("cleo", "dog")):
        store(session, project, entry(items[3], annotator, class_name=class_name))
    first, second = rounds.page(session, project, 0, 10)
    assert (first.shared, first.agreed) == (6, 6)
    assert (second.shared, second.agreed) == (3, 2)


def test_what_does_not_count_leaves_the_consensus_alone(session: Session) -> None:
    project, (item,) = make_pool(session, 1, overlap=2)
    store(session, project, entry(item, "ann", class_name="dog"), entry(item, "bob"), entry(item, "cid"))
    assert (item.state, item.class_name) == ("done", "cat")
    item.class_name = "dog"  # as `check_labels` does, by what it knows of the annotators
    store(session, project, entry(item, "dan", skip="unsure"), entry(item, "eve"))
    assert (item.state, item.class_name) == ("done", "dog")
    store(session, project, entry(item, "ann"))  # one that counts
    assert (item.state, item.class_name) == ("done", "cat")

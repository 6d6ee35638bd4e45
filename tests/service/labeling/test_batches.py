import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from service.errors import BoundToAnnotator, ReservationExpired
from service.labeling import batches, labels
from service.labeling.batches import NextBatch
from service.labeling.labels import NewLabel
from service.labeling.picks import Grid
from service.pool import gold
from service.projects import project_changes
from service.store.control_arm import control_item_ids
from service.store.ids import public_id
from service.store.project_settings import ProjectSettings
from service.store.session import write_session
from service.store.tables import Item, Job, Project, RankedItem, Ranking, Reservation, ScoreRun
from tests import factories
from tests.service.conftest import NOON


def make_pool(session: Session, size: int, **settings: object) -> tuple[Project, list[Item]]:
    project = factories.make_project(session, settings=settings)
    return project, [factories.make_item(session, project=project) for _ in range(size)]


def rank(session: Session, project: Project, items: list[Item]) -> Ranking:
    score_run = factories.make_score_run(session, project=project)
    ranking = factories.make_ranking(session, project=project, score_run=score_run, items=items)
    project.score_run_id, project.ranking_id = score_run.id, ranking.id
    session.flush()
    return ranking


def take(
    session: Session,
    project: Project,
    annotator: str = "ann",
    size: int = 3,
    *,
    new: bool = False,
    after_s: float = 0,
) -> NextBatch:
    now = NOON + timedelta(seconds=after_s)
    return batches.next_batch(session, project, annotator=annotator, size=size, new=new, now=now)


def label(
    session: Session,
    project: Project,
    item_id: int,
    annotator: str = "ann",
    after_s: float = 0,
    **values: object,
) -> str:
    given = {"class_name": "cat"} | values if "skip" not in values else values
    entry = NewLabel(item=public_id("i", item_id), annotator=annotator, **given)  # type: ignore[arg-type]
    stored = labels.store(session, project, [entry], NOON + timedelta(seconds=after_s))
    return stored.outcomes[0]


def items_of(batch: NextBatch) -> list[int]:
    return [served.item_id for served in batch.served]


def arms_of(batch: NextBatch) -> list[str]:
    return [served.arm for served in batch.served]


def test_before_any_ranking_random_items_are_served(session: Session) -> None:
    project, items = make_pool(session, 6)
    items[0].shuffle, items[5].shuffle = 10**9, 0  # the order is that of `shuffle`, not of the ids
    session.flush()
    batch = take(session, project)
    assert set(items_of(batch)) == {items[5].id, items[1].id, items[2].id}
    assert arms_of(batch) == ["control"] * 3
    assert batch.batch is not None
    assert batch.batch.expires_at == NOON + timedelta(seconds=1800)
    assert all(served.ranking is None for served in batch.served)


def test_ranked_items_come_in_rank_order(session: Session) -> None:
    project, items = make_pool(session, 6, control_fraction=0)
    ranking = rank(session, project, [items[4], items[2], items[0]])
    batch = take(session, project, size=2)
    assert items_of(batch) == [items[4].id, items[2].id]
    assert [served.rank for served in batch.served] == [1, 2]
    assert [served.ranking for served in batch.served] == [ranking.version] * 2


def test_asking_again_returns_the_open_batch(session: Session) -> None:
    project, _ = make_pool(session, 6)
    first = take(session, project)
    assert items_of(take(session, project, size=1)) == items_of(first)
    other = take(session, project, new=True)
    assert not set(items_of(other)) & set(items_of(first))
    label(session, project, items_of(first)[0])
    assert items_of(take(session, project)) == items_of(first)[1:]


def test_two_annotators_never_hold_the_same_item(session: Session) -> None:
    project, _ = make_pool(session, 6)
    assert not set(items_of(take(session, project, "ann"))) & set(items_of(take(session, project, "bob")))
    third = take(session, project, "cleo")
    assert (third.batch, third.reason, third.retry_after_s) == (None, "all_reserved", 1801)


def test_overlap_lets_so_many_hold_it_and_nobody_twice(session: Session) -> None:
    project, items = make_pool(session, 2, overlap=2)
    ann = take(session, project, "ann", size=5)
    assert set(items_of(ann)) == {item.id for item in items}
    assert take(session, project, "ann", size=5, new=True).reason == "all_reserved"
    assert set(items_of(take(session, project, "bob", size=5))) == {item.id for item in items}
    assert take(session, project, "cleo").reason == "all_reserved"
    for item in items:
        label(session, project, item.id, "ann")
    assert take(session, project, "ann").reason == "not_your_turn"


def test_disagreement_asks_one_more_annotator(session: Session) -> None:
    project, (item,) = make_pool(session, 1, overlap=2)
    label(session, project, item.id, "ann", class_name="cat")
    label(session, project, item.id, "bob", class_name="dog")
    assert items_of(take(session, project, "cleo")) == [item.id]
    assert take(session, project, "dan").reason == "all_reserved"
    assert take(session, project, "ann").reason == "not_your_turn"


def test_what_ran_out_is_free_by_itself(session: Session) -> None:
    project, _ = make_pool(session, 3, reservation_ttl_s=60)
    ann = take(session, project, "ann")
    assert take(session, project, "bob", after_s=59).reason == "all_reserved"
    bob = take(session, project, "bob", after_s=60)
    assert set(items_of(bob)) == set(items_of(ann))
    assert project.served == 3


def test_renew_holds_it_longer_and_give_back_ends_it(session: Session) -> None:
    project, _ = make_pool(session, 3, reservation_ttl_s=60)
    batch = take(session, project, "ann").batch
    assert batch is not None
    later = NOON + timedelta(seconds=50)
    batches.renew(session, batch, annotator=None, now=later)
    assert take(session, project, "bob", after_s=100).reason == "all_reserved"
    with pytest.raises(BoundToAnnotator):
        batches.give_back(session, batch, annotator="bob")
    batches.give_back(session, batch, annotator="ann")
    batches.give_back(session, batch, annotator="ann")
    assert (project.served, project.served_control) == (0, 0)
    assert len(items_of(take(session, project, "bob", after_s=100))) == 3
    with pytest.raises(ReservationExpired):
        batches.renew(session, batch, annotator="ann", now=later)


def test_the_budget_counts_labels_and_open_reservations(session: Session) -> None:
    project, _ = make_pool(session, 9, budget=4)
    ann = take(session, project, "ann", size=3)
    assert len(items_of(take(session, project, "bob", size=3))) == 1
    waiting = take(session, project, "cleo")
    assert waiting.reason == "budget_spent"
    assert waiting.retry_after_s == 1801  # what is held may come back
    for item_id in items_of(ann):
        label(session, project, item_id)
    assert project.labels_used == 3
    label(session, project, items_of(take(session, project, "bob"))[0], "bob")
    spent = take(session, project, "cleo")
    assert (spent.reason, spent.retry_after_s) == ("budget_spent", None)


def test_an_empty_pool_and_a_labeled_one_are_exhausted(session: Session) -> None:
    project, _ = make_pool(session, 0)
    assert take(session, project).reason == "pool_exhausted"
    project, (item,) = make_pool(session, 1)
    label(session, project, item.id)
    factories.make_item(session, project=project, state="quarantined")
    factories.make_item(session, project=project, split="test", class_name="cat")
    assert take(session, project).reason == "pool_exhausted"


def test_an_empty_pool_is_worth_waiting_for_while_a_source_is_imported(session: Session) -> None:
    project, _ = make_pool(session, 0)
    assert take(session, project).retry_after_s is None
    job = factories.make_job(session, project_id=project.id, kind="import_source", state="running")
    assert take(session, project).retry_after_s is not None
    job.state = "succeeded"
    assert take(session, project).retry_after_s is None


def test_the_control_share_is_exact_over_time(session: Session) -> None:
    project, items = make_pool(session, 200, control_fraction=0.1)
    control, ranked = items[:20], items[20:]
    rank(session, project, ranked)
    for number in range(30):
        take(session, project, f"annotator {number}", size=3)
        served = project.served
        assert served == 3 * (number + 1)
        assert project.served_control == round(0.1 * served)
    taken = session.scalars(sa.select(Reservation.item_id).where(Reservation.arm == "control"))
    assert set(taken) == {item.id for item in control[:9]}


def test_control_items_lie_at_random_places_and_ranks_stay_in_order(session: Session) -> None:
    project, items = make_pool(session, 100, control_fraction=0.5)
    rank(session, project, items[50:])
    batch = take(session, project, size=40)
    arms = arms_of(batch)
    assert arms.count("control") == 20
    assert arms != sorted(arms)
    assert arms != sorted(arms, reverse=True)
    ranks = [served.rank for served in batch.served if served.rank is not None]
    assert ranks == list(range(1, 21))


def test_a_test_split_switches_the_control_arm_off(session: Session) -> None:
    project, items = make_pool(session, 40)
    factories.make_item(session, project=project, split="test", class_name="cat")
    rank(session, project, items[:30])
    assert arms_of(take(session, project, size=30)) == ["selected"] * 30


@pytest.mark.parametrize("state", ["withdrawn", "quarantined"])
def test_a_test_split_that_measures_nothing_switches_nothing_off(session: Session, state: str) -> None:
    project, items = make_pool(session, 40)
    factories.make_item(session, project=project, split="test", class_name="cat", state=state)
    rank(session, project, items[10:])
    assert arms_of(take(session, project, size=10)).count("control") == 1
    settings = ProjectSettings.model_validate(project.settings)
    assert control_item_ids(session, project.id, settings) == [item.id for item in items[:4]]


def test_a_used_up_ranking_is_filled_up_with_random_items_and_made_anew(session: Session) -> None:
    project, items = make_pool(session, 10, control_fraction=0)
    ranking = rank(session, project, items[5:7])
    assert arms_of(take(session, project, size=4)).count("control") == 2
    assert session.scalars(sa.select(Job)).all() == []  # nothing new to rank by
    ranking.labels_used = -1
    take(session, project, "bob", size=4)
    take(session, project, "cleo", size=4)
    assert [job.kind for job in session.scalars(sa.select(Job))] == ["rank"]


def test_labeled_ranks_are_never_looked_at_again_unless_taken_back(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.labeling.picks.LOOKED_AT_AGAIN", 3)
    project, items = make_pool(session, 6, control_fraction=0)
    ranking = rank(session, project, items)
    for item in items[:3]:
        label(session, project, item.id)
    take(session, project, size=1)
    assert ranking.low_water == 4
    label(session, project, items[0].id, skip="unsure")  # now others may get it
    assert items_of(take(session, project, "bob", size=1)) == [items[0].id]
    assert ranking.low_water == 1


@pytest.mark.parametrize("how", ["given back", "ran out", "unsure"])
def test_held_ranks_are_passed_until_they_are_free_again(
    session: Session, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setattr("service.labeling.picks.LOOKED_AT_AGAIN", 3)
    project, items = make_pool(session, 12, control_fraction=0, reservation_ttl_s=60)
    ranking = rank(session, project, items)
    held = take(session, project, "ann", size=4)
    take(session, project, "bob", size=1, after_s=30)
    assert ranking.low_water == 5

    assert held.batch is not None
    if how == "given back":
        batches.give_back(session, held.batch, annotator="ann")
    elif how == "unsure":
        label(session, project, items[1].id, skip="unsure")
    found = items_of(take(session, project, "cleo", size=2, after_s=70 if how == "ran out" else 30))
    first = 1 if how == "unsure" else 0
    assert found[0] == items[first].id
    assert ranking.low_water == first + 1


def test_with_an_overlap_ranks_are_passed_that_have_no_room(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.labeling.picks.LOOKED_AT_AGAIN", 1)
    project, items = make_pool(session, 8, control_fraction=0, overlap=2)
    ranking = rank(session, project, items)
    for annotator in ("ann", "bob"):
        assert items_of(take(session, project, annotator, size=2)) == [item.id for item in items[:2]]
    assert items_of(take(session, project, "cleo", size=1)) == [items[2].id]
    assert ranking.low_water == 3

    label(session, project, items[0].id)
    label(session, project, items[0].id, "bob", class_name="dog")  # they disagree: one more is wanted
    assert items_of(take(session, project, "dan", size=1)) == [items[0].id]


@pytest.mark.parametrize("how", ["larger overlap", "gold no more"])
def test_what_may_be_served_again_is_served_by_its_rank(
    session: Session, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setattr("service.labeling.picks.LOOKED_AT_AGAIN", 1)
    project, items = make_pool(session, 8, control_fraction=0)
    ranking = rank(session, project, items)
    first = public_id("i", items[0].id)
    if how == "gold no more":
        gold.mark(session, project, [(first, "cat")])
    take(session, project, "ann", size=2)
    take(session, project, "bob", size=1)
    assert ranking.low_water > 1

    if how == "gold no more":
        gold.unmark(session, project, [first])
    else:
        values = {"overlap": 2}
        project_changes.change(
            session, project, changes=values, name=None, classes=None, state=None, if_match=None
        )
    session.flush()
    assert items_of(take(session, project, "cleo", size=1)) == [items[0].id]


def test_same_state_same_batch(session: Session) -> None:
    """Serving has no hidden randomness: what is served follows from seed and state."""
    orders = []
    for _ in range(2):
        project, items = make_pool(session, 30, control_fraction=0.5, seed=7)
        rank(session, project, items[15:])
        batch = take(session, project, size=10)
        offset = items[0].id
        orders.append(sorted(item_id - offset for item_id in items_of(batch)))
    assert orders[0] == orders[1]


def test_eight_annotators_at_once_share_no_item(engine: sa.Engine) -> None:
    """And none is lost: all that is available is handed out exactly once."""
    with write_session(engine) as session:
        project, items = make_pool(session, 120, control_fraction=0.25)
        rank(session, project, items[30:])
    start = threading.Barrier(8)

    def annotate(name: str) -> list[int]:
        taken: list[int] = []
        start.wait()
        while True:
            with write_session(engine) as session:
                mine = session.get_one(Project, project.id)
                batch = take(session, mine, name, size=4, new=True)
                if batch.reason is not None:
                    return taken
                taken += items_of(batch)

    with ThreadPoolExecutor(8) as pool:
        shares = list(pool.map(annotate, [f"annotator {number}" for number in range(8)]))
    everything = [item_id for share in shares for item_id in share]
    assert sorted(everything) == sorted(item.id for item in items)
    with write_session(engine) as session:
        done = session.get_one(Project, project.id)
        assert done.served == 120


def test_what_a_ranking_leaves_out_is_served_when_nothing_else_is_left(session: Session) -> None:
    project, items = make_pool(session, 4, control_fraction=0)
    rank(session, project, items[:2])
    factories.make_barred_item(session, item=items[2])
    run = session.get_one(ScoreRun, project.score_run_id)
    factories.make_duplicate(session, score_run=run, item=items[3], of=items[0])

    batch = take(session, project, size=4)

    arms = {served.item_id: served.arm for served in batch.served}
    assert arms == dict(zip([item.id for item in items], ["selected"] * 2 + ["control"] * 2, strict=True))


def predict(session: Session, ranking: Ranking, classes: list[str]) -> None:
    """The head's guesses, by rank."""
    rows = session.scalars(
        sa.select(RankedItem).where(RankedItem.ranking_id == ranking.id).order_by(RankedItem.rank)
    )
    for row, name in zip(rows, classes, strict=True):
        row.predicted_class, row.predicted_probability = name, 0.8
    session.flush()


def grid(session: Session, project: Project, size: int, class_name: str | None = None) -> NextBatch:
    return batches.next_batch(
        session, project, annotator="ann", size=size, new=True, now=NOON, grid=Grid(class_name)
    )


def test_a_grid_is_of_one_predicted_class_the_surest_first(session: Session) -> None:
    project, items = make_pool(session, 12, control_fraction=0)
    ranking = rank(session, project, items[:9])
    predict(session, ranking, ["dog", "cat", "dog", "cat", "dog", "dog", "cat", "dog", "cat"])
    session.get_one(
        RankedItem, (ranking.id, 5)
    ).predicted_probability = 0.9  # the others are all alike: by rank
    assert items_of(grid(session, project, 3, "cat")) == [items[at].id for at in (1, 3, 6)]
    commonest = grid(session, project, 10)  # of what is left
    assert items_of(commonest) == [items[at].id for at in (4, 0, 2, 5, 7)]
    assert {served.predicted_class for served in commonest.served} == {"dog"}
    assert arms_of(commonest) == ["selected"] * 5
    assert grid(session, project, 3, "owl").reason == "none_predicted"
    assert items_of(take(session, project, size=1, new=True)) == [items[8].id]  # no rank was passed over


def test_grids_keep_the_share_of_control_items(session: Session) -> None:
    """However short of a class the ranking is, and however often grids are asked for."""
    project, items = make_pool(session, 400, control_fraction=0.25)
    control = set(control_item_ids(session, project.id, ProjectSettings(control_fraction=0.25)))
    ranked = [item for item in items if item.id not in control][:120]
    ranking = rank(session, project, ranked)
    predict(session, ranking, [("cat", "cat", "dog")[at % 3] for at in range(120)])
    for _ in range(6):
        batch = grid(session, project, 30)
        guesses = {served.predicted_class for served in batch.served if served.arm == "selected"}
        assert len(guesses) <= 1
        assert all(served.predicted_class is None for served in batch.served if served.arm == "control")
        assert abs(project.served_control - 0.25 * project.served) <= 1
        for item_id in items_of(batch):
            label(session, project, item_id)
    assert project.served > 120


def test_without_a_head_there_is_no_grid(session: Session) -> None:
    project, items = make_pool(session, 6, control_fraction=0)
    assert grid(session, project, 3).reason == "none_predicted"
    rank(session, project, items)
    assert grid(session, project, 3).reason == "none_predicted"
    assert arms_of(take(session, project)) == ["selected"] * 3

"""Whatever annotators do, in whatever order: what `next_batch` serves is what a model of a page says it may."""

from datetime import datetime, timedelta

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from sqlalchemy.orm import Session

from service.errors import ReservationExpired
from service.labeling import batches, labels
from service.labeling.labels import NewLabel
from service.store.ids import public_id
from service.store.tables import Batch
from tests import factories
from tests.service.conftest import NOON

TTL_S = 60
ANNOTATORS = st.sampled_from(["ann", "bob", "cleo", "dan"])
POOL = 3  # small: only who gets in each other's way proves anything


class Model:
    """All annotators agree, so an item is done with `overlap` labels; a skip leaves its place to somebody else."""

    def __init__(self, items: list[int], overlap: int) -> None:
        self.overlap, self.now = overlap, 0.0
        self.labels: dict[int, dict[str, str | None]] = {item: {} for item in items}  # None: skipped
        self.holds: dict[tuple[int, str], tuple[int, float]] = {}  # (item, annotator): batch, runs out

    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.holds = {key: hold for key, hold in self.holds.items() if hold[1] > self.now}

    def votes(self, item: int) -> int:
        return sum(name is not None for name in self.labels[item].values())

    def available(self) -> list[int]:
        return [item for item in self.labels if self.votes(item) < self.overlap]

    def free_for(self, annotator: str) -> set[int]:
        return {
            item
            for item in self.available()
            if annotator not in self.labels[item]
            and (item, annotator) not in self.holds
            and self.votes(item) + sum(held == item for held, _ in self.holds) < self.overlap
        }

    def open_batch(self, annotator: str) -> set[int]:
        """What is left of their oldest one."""
        mine = {item: batch for (item, who), (batch, _) in self.holds.items() if who == annotator}
        return {item for item, batch in mine.items() if batch == min(mine.values())}

    def reason(self, annotator: str) -> str:
        if not self.available():
            return "pool_exhausted"
        turn = any(annotator not in self.labels[item] for item in self.available())
        return "all_reserved" if turn else "not_your_turn"

    def serve(self, annotator: str, batch: int, items: set[int]) -> None:
        self.holds |= {(item, annotator): (batch, self.now + TTL_S) for item in items}

    def label(self, item: int, annotator: str, name: str | None) -> None:
        self.labels[item].setdefault(annotator, name)
        self.holds.pop((item, annotator), None)
        if item not in self.available():
            self.holds = {key: hold for key, hold in self.holds.items() if key[0] != item}


class Annotating(RuleBasedStateMachine):
    """The same is done to the model and to the service."""

    session: Session  # set by the test

    @initialize(overlap=st.integers(1, 3), ranked=st.integers(0, POOL))
    def begin(self, overlap: int, ranked: int) -> None:
        choices = {"overlap": overlap, "reservation_ttl_s": TTL_S, "control_fraction": 0.2}
        self.project = factories.make_project(self.session, settings=choices)
        items = [factories.make_item(self.session, project=self.project) for _ in range(POOL)]
        if ranked:
            score_run = factories.make_score_run(self.session, project=self.project)
            ranking = factories.make_ranking(
                self.session, project=self.project, score_run=score_run, items=items[-ranked:]
            )
            self.project.score_run_id, self.project.ranking_id = score_run.id, ranking.id
        self.items = [item.id for item in items]
        self.model = Model(self.items, overlap)
        self.batches: list[Batch] = []

    @property
    def now(self) -> datetime:
        return NOON + timedelta(seconds=self.model.now)

    @rule(annotator=ANNOTATORS, size=st.integers(1, POOL), new=st.booleans())
    def take(self, annotator: str, size: int, new: bool) -> None:
        own, free = self.model.open_batch(annotator), self.model.free_for(annotator)
        found = batches.next_batch(
            self.session, self.project, annotator=annotator, size=size, new=new, now=self.now
        )
        served = {each.item_id for each in found.served}
        if own and not new:
            assert served == own
        elif free:
            assert found.batch is not None
            assert served <= free
            assert len(served) == len(found.served) == min(size, len(free))
            self.model.serve(annotator, found.batch.id, served)
            self.batches.append(found.batch)
        else:
            assert (found.batch, found.reason) == (None, self.model.reason(annotator))

    @rule(annotator=ANNOTATORS, index=st.integers(0, POOL - 1), name=st.sampled_from(["cat", "cat", None]))
    def label(self, annotator: str, index: int, name: str | None) -> None:
        """Held or not."""
        item = self.items[index]
        known = self.model.labels[item].get(annotator, name) == name
        if not known:
            return  # revisions are another story
        entry = NewLabel(public_id("i", item), annotator, class_name=name, skip=None if name else "unsure")
        (outcome,) = labels.store(self.session, self.project, [entry], self.now).outcomes
        assert (outcome == "duplicate") == (annotator in self.model.labels[item])
        self.model.label(item, annotator, name)

    @rule(seconds=st.integers(1, 50))
    def wait(self, seconds: int) -> None:
        self.model.wait(seconds)

    @rule(data=st.data())
    def renew(self, data: st.DataObject) -> None:
        if not self.batches:
            return
        batch = data.draw(st.sampled_from(self.batches))
        held = {key: hold for key, hold in self.model.holds.items() if hold[0] == batch.id}
        if held:
            batches.renew(self.session, batch, annotator=None, now=self.now)
            self.model.holds |= dict.fromkeys(held, (batch.id, self.model.now + TTL_S))
        else:
            with pytest.raises(ReservationExpired):
                batches.renew(self.session, batch, annotator=None, now=self.now)

    @rule(data=st.data())
    def give_back(self, data: st.DataObject) -> None:
        if self.batches:
            batch = data.draw(st.sampled_from(self.batches))
            batches.give_back(self.session, batch, annotator=batch.annotator)
            self.model.holds = {key: hold for key, hold in self.model.holds.items() if hold[0] != batch.id}

    @invariant()
    def labels_used_are_counted(self) -> None:
        if hasattr(self, "model"):
            votes = sum(min(self.model.votes(item), self.model.overlap) for item in self.items)
            assert self.project.labels_used == votes


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_serving_follows_the_model(session: Session) -> None:
    Annotating.session = session
    run_state_machine_as_test(
        Annotating,
        settings=settings(
            max_examples=60, stateful_step_count=30, derandomize=True, deadline=None, database=None
        ),
    )

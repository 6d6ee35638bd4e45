"""Whatever is done in whatever order: counters, states, queues and reservations fit together after each step."""

import random
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from service.errors import LabeledAlready
from service.labeling import batches, labels
from service.labeling.labels import NewLabel
from service.pool import gold, queues, withdrawals
from service.projects import project_changes
from service.store import item_decisions
from service.store.ids import public_id
from service.store.tables import Item, Label, Project, QueuedItem, Reservation
from tests import factories
from tests.service.conftest import NOON
from tests.service.labeling.test_labels import counted

ANNOTATORS = ("ann", "bob", "cleo", "dora")
CLASSES = ("cat", "dog", "owl")


class Chaos:
    def __init__(self, session: Session, seed: int, overlap: int) -> None:
        self.session, self.rng, self.now, self.overlap = session, random.Random(seed), NOON, overlap
        self.project: Project = factories.make_project(
            session,
            classes=list(CLASSES),
            settings={"overlap": overlap, "round_size": 7, "gold_fraction": 0.2, "reservation_ttl_s": 60},
        )
        self.items = [factories.make_item(session, project=self.project) for _ in range(8)]

    def step(self) -> None:
        self.now += timedelta(seconds=self.rng.choice((1, 1, 1, 40)))
        steps: list[Callable[[], object]] = [
            self.label,
            self.label,
            self.label,
            self.undo,
            self.skip,
            self.take,
            self.take,
            self.queue,
            self.withdraw,
            self.restore,
            self.mark,
            self.unmark,
            self.revise_out_of_order,
            self.change_overlap,
        ]
        self.rng.choice(steps)()
        self.session.flush()
        self.session.expire_all()

    @property
    def item(self) -> Item:
        return self.rng.choice(self.items)

    @property
    def annotator(self) -> str:
        return self.rng.choice(ANNOTATORS)

    def _store(self, **values: object) -> None:
        entry = NewLabel(public_id("i", self.item.id), self.annotator, **values)  # type: ignore[arg-type]
        labels.store_good(self.session, self.project, [entry], self.now)

    def label(self) -> None:
        self._store(class_name=self.rng.choice(CLASSES))

    def undo(self) -> None:
        self._store()

    def skip(self) -> None:
        self._store(skip=self.rng.choice(("unsure", "unsure", "broken")))

    def revise_out_of_order(self) -> None:
        self._store(class_name=self.rng.choice((*CLASSES, None)), revision=self.rng.randrange(1, 6))

    def take(self) -> None:
        batches.next_batch(
            self.session, self.project, annotator=self.annotator, size=3, new=True, now=self.now
        )

    def queue(self) -> None:
        item = self.item
        if item.state in ("available", "done") and not item.gold:
            annotator = self.rng.choice((*ANNOTATORS, None))
            with suppress(LabeledAlready):
                queues.add(self.session, self.project, [public_id("i", item.id)], annotator)

    def withdraw(self) -> None:
        withdrawals.withdraw(self.session, self.project, [public_id("i", self.item.id)])

    def restore(self) -> None:
        withdrawals.restore(self.session, self.project, [public_id("i", self.item.id)])

    def mark(self) -> None:
        item = self.item
        if item.state in ("available", "done"):
            gold.mark(self.session, self.project, [(public_id("i", item.id), self.rng.choice(CLASSES))])

    def unmark(self) -> None:
        gold.unmark(self.session, self.project, [public_id("i", self.item.id)])

    def change_overlap(self) -> None:
        self.overlap = self.rng.randrange(1, 4)
        values = {"overlap": self.overlap}
        project_changes.change(
            self.session, self.project, changes=values, name=None, classes=None, state=None, if_match=None
        )

    def check(self) -> None:
        session, project = self.session, self.project
        assert project.labels_used == counted(session, project)
        for item_id, found in item_decisions.load(session, self.items).items():
            item, votes = found.item, found.votes()
            assert len({label.annotator for label in votes}) == len(votes)
            if item.gold:
                assert item.state == "done"
            elif item.state == "done":
                best = Counter(label.class_name for label in votes).most_common(1)[0][1]
                assert Counter(label.class_name for label in votes)[item.class_name] == best
                assert item.decided_by in {label.id for label in found.labels}, item_id
            elif item.state == "available":
                assert item.class_name is None
                agreeing = self.overlap + item.asked_again
                assert len(votes) < agreeing + 2
                assert max(Counter(label.class_name for label in votes).values(), default=0) < agreeing
        queued = session.scalars(sa.select(Item).join(QueuedItem, QueuedItem.item_id == Item.id))
        assert all(item.state == "available" for item in queued)
        self.check_reservations()

    def check_reservations(self) -> None:
        rows = list(self.session.scalars(sa.select(Reservation)))
        counts = [
            row for row in rows if row.state in ("open", "labeled") and row.arm in ("selected", "control")
        ]
        assert self.project.served == len(counts)
        assert self.project.served_control == sum(row.arm == "control" for row in counts)
        current = {
            (label.item_id, label.annotator)
            for label in self.session.scalars(sa.select(Label).where(Label.current))
        }
        for row in rows:
            if row.state == "open":
                assert (row.item_id, row.annotator) not in current


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize(("seed", "overlap"), [(0, 1), (1, 2), (2, 3)])
def test_all_fits_together_after_each_step(session: Session, seed: int, overlap: int) -> None:
    chaos = Chaos(session, seed, overlap)
    for _ in range(150):
        chaos.step()
        chaos.check()

"""Labels come in: stored for good, the items decided, rounds closed, the head's retraining queued. All or nothing.

A label is kept whatever happens; whether it is *used* (for its item's class, the budget, the round) is a column
of its own. Items that an annotator never got are labeled just as well (arm `imported`).
"""

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime
from itertools import chain
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.orm import Session

from service.errors import (
    ItemInTestSplit,
    NotFound,
    OtherBytes,
    RevisionTaken,
    ShortlistError,
    UnknownBatch,
    UnknownItem,
    UnknownItemKey,
)
from service.labeling import batches, picks, rounds
from service.labeling.class_texts import ClassTexts
from service.labeling.picks import OPEN
from service.models import training
from service.pool import queues
from service.projects import projects
from service.store import asides, item_decisions
from service.store.bulk import NewRows
from service.store.ids import public_id, row_number
from service.store.item_decisions import ItemLabels
from service.store.names import composed, spellings
from service.store.project_settings import ProjectSettings
from service.store.tables import Item, Label, Project, QueuedItem, Reservation

Skip = Literal["unsure", "broken", "other"]
Outcome = Literal["accepted", "duplicate", "revised", "stale", "late"]
Arm = Literal["selected", "control", "queued", "gold", "imported"]
Annotation = dict[str, Any] | list[Any]
MAX_ANNOTATION_BYTES = 256 * 2**10  # of JSON in UTF-8, without spaces


@dataclass(frozen=True)
class NewLabel:
    """One entry of a call: a class (or `classes`, where an item has several) or a skip; none of them withdraws the
    annotator's label. The item by id or by key.
    """

    item: str | None
    annotator: str
    key: str | None = None
    class_name: str | None = None
    classes: Sequence[str] | None = None
    said: str | None = None  # the class as the annotator named it, where the project calls it otherwise now
    skip: Skip | None = None
    batch: str | None = None
    duration_ms: int | None = None
    revision: int | None = None
    annotation: Annotation | None = None  # as its tool gives it; opaque
    # Of labels that another installation exported:
    created_at: datetime | None = None
    arm: Arm | None = None
    late: bool = False
    content_hash: str | None = None  # of the bytes that it was given for, wherever these are here
    # Of those that a tool was shown the item for, in the place of a batch:
    ranking_id: int | None = None


@dataclass
class _Hold:
    """A reservation, whatever became of it; `became` is what this call makes of it."""

    id: int
    item_id: int
    annotator: str
    batch_id: int
    ranking_id: int | None
    arm: str
    state: str
    expires_at: datetime
    became: str | None = None


# Made once: making a statement costs as much as running it.
# An annotator's own, whatever became of them; of others those that are open.
_HOLDS = (
    sa.select(*(getattr(Reservation, field.name) for field in fields(_Hold) if field.name != "became"))
    .where(Reservation.item_id.in_(sa.bindparam("items", expanding=True)))
    .where(
        sa.or_(
            Reservation.annotator.in_(sa.bindparam("annotators", expanding=True)), Reservation.state == OPEN
        )
    )
    .order_by(Reservation.id)
)
_ITEMS = sa.select(Item, sa.exists().where(QueuedItem.item_id == Item.id)).where(
    Item.project_id == sa.bindparam("project")
)
_BY_KEY = _ITEMS.where(Item.key.in_(sa.bindparam("wanted", expanding=True)))
# Of those bytes: the only item that has them, and those that another item took the key from. Blank frames are many.
_OF_BYTES = sa.and_(
    Item.project_id == sa.bindparam("project"), Item.content_hash.in_(sa.bindparam("wanted", expanding=True))
)
_BY_CONTENT = _ITEMS.where(
    Item.id.in_(
        sa.union(
            sa.select(sa.func.min(Item.id))
            .where(_OF_BYTES)
            .group_by(Item.content_hash)
            .having(sa.func.count() == 1),
            sa.select(Item.id).where(_OF_BYTES, asides.CHANGED),
        )
    )
)
_BY_NUMBER = _ITEMS.where(Item.id.in_(sa.bindparam("wanted", expanding=True)))
_BECOME = (
    sa.update(Reservation)
    .where(Reservation.id.in_(sa.bindparam("numbers", expanding=True)))
    .values(state=sa.bindparam("became"))
    .execution_options(synchronize_session=False)  # they were read as rows
)
_CAME_EARLIER = (
    sa.update(Label.__table__)  # type: ignore[arg-type]
    .where(Label.id == sa.bindparam("number"))
    .values(created_at=sa.bindparam("time"))
)
_SAME = ("project_id", "created_at")  # of all labels of a call
_OWN = tuple(each.key for each in sa.inspect(Label).column_attrs if each.key not in ("id", *_SAME))
_NEW = NewRows(Label, _OWN, _SAME)


@dataclass(frozen=True)
class Stored:
    """The result of a call that stored labels."""

    outcomes: list[Outcome]
    round_number: int
    labels_used: int
    job_id: int | None  # the retraining that was queued


def store(session: Session, project: Project, entries: Sequence[NewLabel], now: datetime) -> Stored:
    """Raises a 422 that names the entry, `labels[3].class`, and stores nothing then."""
    call = _Call(session, project, now)
    call.load(entries)
    return call.stored([call.take(entry, f"labels[{index}].") for index, entry in enumerate(entries)])


def store_good(
    session: Session, project: Project, entries: Sequence[NewLabel], now: datetime
) -> tuple[Stored, list[tuple[int, ShortlistError]]]:
    """The good ones are stored; of the others, their place and the error, which names the field."""
    call = _Call(session, project, now)
    call.load(entries)
    outcomes: list[Outcome] = []
    refused: list[tuple[int, ShortlistError]] = []
    for index, entry in enumerate(entries):
        try:
            outcomes.append(call.take(entry))
        except ShortlistError as error:  # raised before anything is changed
            refused.append((index, error))
    return call.stored(outcomes), refused


class _Call:
    """One call's labels, taken one after another as if each came alone; `stored` writes them all at once."""

    def __init__(self, session: Session, project: Project, now: datetime) -> None:
        projects.lock_open(session, project)
        settings = ProjectSettings.model_validate(project.settings)
        self.session, self.project, self.now = session, project, now
        self.overlap, self.round_size = settings.overlap, settings.round_size
        self.changed_items: list[Item] = []
        self._round = rounds.open_round(session, project)
        self._labels_before = self._round.labels_before
        self._closings: list[tuple[Label, int]] = []  # the last label of a round, labels used with it
        self._found: dict[int, ItemLabels] = {}
        self._numbers: dict[str, int] = {}  # of items by key
        self._moved: dict[tuple[str, str], int | None] = {}  # by key and bytes, where the key has others
        self._queued: set[int] = set()  # items that stand in a queue
        self._held: dict[tuple[int, str], list[_Hold]] = {}
        self._new: list[Label] = []
        self._class_texts = ClassTexts(project)

    @property
    def round_number(self) -> int:
        return self._round.number + len(self._closings)

    def load(self, entries: Sequence[NewLabel]) -> None:
        keys = {entry.key for entry in entries if entry.key is not None}
        items: list[Item] = []
        if keys:
            items += self._items(_BY_KEY, spellings(keys))
            self._numbers = {composed(item.key): item.id for item in items}
            self._numbers |= {item.key: item.id for item in items}  # one that is spelled just so goes before
            items += self._items_of_bytes(entries, items)
        numbers = {number for entry in entries if (number := self._item_number(entry)) is not None}
        if missing := numbers - {item.id for item in items}:
            items += self._items(_BY_NUMBER, missing)
        self._found = item_decisions.load(self.session, items, annotations=True)
        theirs = {"items": list(self._found), "annotators": list({entry.annotator for entry in entries})}
        for row in self.session.execute(_HOLDS, theirs):
            hold = _Hold(*row)
            self._held.setdefault((hold.item_id, hold.annotator), []).append(hold)

    def _items_of_bytes(self, entries: Sequence[NewLabel], by_key: Sequence[Item]) -> list[Item]:
        """The items whose bytes labels were given for, where the keys are those of other bytes, or of none."""
        known = {item.id: item for item in by_key}
        wanted: set[tuple[str, str]] = set()
        for entry in entries:
            if entry.key is not None and entry.content_hash is not None:
                item = known.get(self._item_number(entry) or 0)
                if item is None or not _may_be(item, entry.content_hash):
                    wanted.add((entry.key, entry.content_hash))
        if not wanted:
            return []
        found = self._items(_BY_CONTENT, {content for _, content in wanted})
        holders: dict[str | None, list[Item]] = {}
        for item in found:
            holders.setdefault(item.content_hash, []).append(item)
        for key, content in wanted:
            theirs = holders.get(content, [])
            had_it = (item.id for item in theirs if asides.had_key(item, key))
            have_them = (item.id for item in theirs if item.state != "changed")
            self._moved[key, content] = next(had_it, next(have_them, None))
        return [item for item in found if item.id not in known]

    def _items(self, query: sa.Select[Item, bool], wanted: Collection[int] | Collection[str]) -> list[Item]:
        found = self.session.execute(query, {"project": self.project.id, "wanted": list(wanted)}).all()
        self._queued.update(item.id for item, queued in found if queued)
        return [item for item, _ in found]

    def take(self, entry: NewLabel, where: str = "") -> Outcome:
        """The outcome of one label. where: `labels[3].`, before the names of its fields, for people."""
        entry = self._as_spelled(entry, where)
        found = self._check(entry, where)
        counted_before, votes_before = found.counted(), len(found.votes())
        earlier = found.of(entry.annotator)
        outcome = self._again(entry, where, found, earlier) if earlier else self._first(entry, found)
        if outcome in ("duplicate", "stale"):
            return outcome
        # What does not count changes nothing, nor what `check_labels` made of those that do.
        if found.counted() != counted_before and found.decide(self.overlap):
            self.changed_items.append(found.item)
        self.project.labels_used += len(found.votes()) - votes_before
        if self.project.labels_used - self._labels_before >= self.round_size:
            self._closings.append((self._new[-1], self.project.labels_used))
            self._labels_before = self.project.labels_used
        return outcome

    def _as_spelled(self, entry: NewLabel, where: str) -> NewLabel:
        """The label, its class as the project calls it now; its classes as one text."""
        now, said = self._class_texts.of(entry.class_name, entry.classes, where)
        if now == entry.class_name:
            return entry
        return replace(entry, class_name=now, classes=None, said=entry.said or said)

    def _check(self, entry: NewLabel, where: str) -> ItemLabels:
        number = self._item_number(entry)
        found = self._found.get(number) if number is not None else None
        named = "item" if entry.item is not None else "key"
        if found is None and entry.item is not None:
            raise UnknownItem(field=f"{where}item", id=entry.item)
        if found is None and self._numbers.keys().isdisjoint((entry.key or "", composed(entry.key or ""))):
            raise UnknownItemKey(field=f"{where}key", key=entry.key)
        if found is None or not (entry.content_hash is None or _may_be(found.item, entry.content_hash)):
            raise OtherBytes(field=f"{where}{named}", item=entry.item or entry.key)
        if found.item.split != "pool":
            raise ItemInTestSplit(field=f"{where}item", id=entry.item or entry.key)
        if entry.batch is not None:
            held = self._held.get((found.item.id, entry.annotator), [])
            if entry.batch not in {public_id("b", hold.batch_id) for hold in held}:
                raise UnknownBatch(field=f"{where}batch", id=entry.batch)
        return found

    def _first(self, entry: NewLabel, found: ItemLabels) -> Outcome:
        """The annotator's first label of the item; kept, but not counted, where that is decided or out of the pool."""
        label = self._add(entry, found, used=found.item.state == "available")
        if _withdraws(entry):  # what it withdraws has not come yet
            label.current = label.used = False
        elif not self._take_hold(label) or entry.late:
            label.outcome = "late"
            return "late"
        return "accepted"

    def _again(self, entry: NewLabel, where: str, found: ItemLabels, earlier: list[Label]) -> Outcome:
        newest = max(earlier, key=lambda label: label.revision)
        revision = entry.revision
        same = newest if revision is None else next((a for a in earlier if a.revision == revision), None)
        if same is not None and _content(same) == _content(entry):
            return "duplicate"
        if same is not None and revision is not None:
            raise RevisionTaken(field=f"{where}revision", revision=revision, next=newest.revision + 1)
        used = (newest.current and newest.used) or found.item.state == "available"
        label = self._add(entry, found, used=used)
        label.revision = newest.revision + 1 if revision is None else revision
        label.arm, label.batch_id, label.ranking_id = newest.arm, newest.batch_id, newest.ranking_id
        if label.revision < newest.revision:
            label.current, label.used, label.outcome = False, False, "stale"
            return "stale"
        newest.current, label.outcome = False, "revised"
        if _withdraws(entry):
            label.current = label.used = False
            self._give_up_hold(label)
        else:
            self._take_hold(label)
        return "revised"

    def _take_hold(self, label: Label) -> bool:
        """The label is what the annotator's reservation was for; false where that had run out."""
        held = self._held.get((label.item_id, label.annotator))
        if not held:
            return True
        hold = held[-1]
        in_time = hold.state == "open" and hold.expires_at > self.now
        label.arm, label.batch_id, label.ranking_id = hold.arm, hold.batch_id, hold.ranking_id
        if hold.state in ("expired", "released"):  # not counted as served since then
            batches.count_served(self.project, [hold.arm])
        hold.state = hold.became = "labeled"
        return in_time

    def _give_up_hold(self, label: Label) -> None:
        """Their label is withdrawn: the item may be served to them again."""
        held = self._held.get((label.item_id, label.annotator))
        if held and held[-1].state == "labeled":
            held[-1].state = held[-1].became = "released"
            batches.count_served(self.project, [held[-1].arm], -1)

    def _add(self, entry: NewLabel, found: ItemLabels, *, used: bool) -> Label:
        arm = entry.arm or "imported"
        if arm == "gold" and not found.item.gold:  # only where it came from
            arm = "imported"
        label = Label(
            project_id=self.project.id,
            item_id=found.item.id,
            annotator=entry.annotator,
            revision=entry.revision or 1,
            current=True,
            used=used,
            class_name=entry.class_name,
            said=entry.said,
            skip=entry.skip,
            arm=arm,
            outcome="accepted",
            duration_ms=entry.duration_ms,
            annotation=entry.annotation,
            ranking_id=entry.ranking_id,
            round_number=self.round_number,
            created_at=entry.created_at or self.now,
        )
        found.labels.append(label)
        self._new.append(label)
        return label

    def _item_number(self, entry: NewLabel) -> int | None:
        if entry.item is None:
            key = entry.key or ""
            if (key, entry.content_hash) in self._moved:
                return self._moved[key, str(entry.content_hash)]
            return self._numbers.get(key, self._numbers.get(composed(key)))
        try:
            return row_number("i", entry.item)
        except NotFound:
            return None

    def stored(self, outcomes: list[Outcome]) -> Stored:
        """After the last `take`: all is written, and the head's retraining queued."""
        self._write()
        job_id = training.retrain_if_due(self.session, self.project) if self.changed_items else None
        return Stored(outcomes, self.round_number, self.project.labels_used, job_id)

    def _insert(self) -> None:
        """The labels get their numbers, in the order they were taken; items are not written before: once is enough."""
        if self._new:
            rows = [{name: getattr(label, name) for name in _OWN} for label in self._new]
            numbers = _NEW.insert(self.session, rows, project_id=self.project.id, created_at=self.now)
            for label, number in zip(self._new, numbers, strict=True):
                label.id = number
            earlier = [
                {"number": label.id, "time": label.created_at}
                for label in self._new
                if label.created_at != self.now
            ]
            if earlier:
                self.session.connection().execute(_CAME_EARLIER, earlier)

    def _release(self, gone: set[int]) -> None:
        """Items that left the pool are nobody's any more."""
        for hold in chain.from_iterable(self._held.values()):
            if hold.item_id in gone and hold.state == "open":
                hold.state = hold.became = "released"
                batches.count_served(self.project, [hold.arm], -1)

    def _write_holds(self) -> None:
        became: dict[str, list[int]] = {}
        for hold in chain.from_iterable(self._held.values()):
            if hold.became is not None:
                became.setdefault(hold.became, []).append(hold.id)
        for state, numbers in became.items():
            self.session.execute(_BECOME, {"became": state, "numbers": numbers})

    def _write(self) -> None:
        if any(label.outcome == "revised" for label in self._new):
            self.session.flush()  # what they replace is not current any more: only one may be
        self._insert()
        for found in self._found.values():
            if found.decided_by is not None:
                found.item.decided_by = found.decided_by.id
        for last, labels_used in self._closings:
            self._round = rounds.close(
                self.session,
                self.project,
                self._round,
                last_label_id=last.id,
                labels_used=labels_used,
                now=self.now,
            )
        self._closings.clear()
        gone = {item.id for item in self.changed_items if item.state != "available"}
        self._release(gone)
        self._write_holds()
        if self._queued:
            queues.clear(self.session, self.project, gone, by=self._new)
        labeled = {label.item_id for label in self._new}
        still_open = [number for number in labeled if self._found[number].item.state == "available"]
        picks.open_again(self.session, self.project, still_open)


def annotation_bytes(annotation: Annotation) -> int:
    """The size that `MAX_ANNOTATION_BYTES` limits. Raises `ValueError` for what JSON does not know, as NaN."""
    text = json.dumps(annotation, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return len(text.encode())


def _content(label: NewLabel | Label) -> tuple[str | None, str | None, Annotation | None]:
    return label.class_name, label.skip, label.annotation


def _may_be(item: Item, content_hash: str) -> bool:
    """False where the item has other bytes."""
    return item.content_hash in (None, content_hash)


def _withdraws(entry: NewLabel) -> bool:
    return entry.class_name is None and entry.skip is None

"""When an item is done, and of which class: what its labels decide."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

import sqlalchemy as sa
from sqlalchemy.orm import Session, undefer

from service.store import class_sets
from service.store.tables import Item, Label

_LABELS = sa.select(Label).where(Label.item_id.in_(sa.bindparam("items", expanding=True))).order_by(Label.id)
_WITH_ANNOTATIONS = _LABELS.options(undefer(Label.annotation))


@dataclass
class ItemLabels:
    """An item and all its labels, oldest first."""

    item: Item
    labels: list[Label] = field(default_factory=list)
    decided_by: Label | None = None  # set when `decide` finds the item done

    def of(self, annotator: str) -> list[Label]:
        return [label for label in self.labels if label.annotator == annotator]

    def votes(self) -> list[Label]:
        """The labels that count for the item's class."""
        return [label for label in self.counted() if label.class_name is not None]

    def counted(self) -> list[Label]:
        return [label for label in self.labels if label.current and label.used]

    def count_all(self) -> None:
        """Labels that came too late to count, as the item was done, do count now. Rejects do not: some were overruled,
        as the item was restored, and whoever finds it broken can say so again now that it is open."""
        for label in self.labels:
            label.used = label.used or (label.current and label.skip != "broken")

    def decide(self, overlap: int) -> bool:
        """Settle the item's state by its labels; whether that changed anything."""
        was = self.item.state, self.item.class_name
        if self.item.gold or was[0] not in ("available", "done", "broken"):
            return False
        agreeing = overlap + self.item.asked_again
        decision = self._decision(agreeing)
        if decision[0] == "available" and was[0] != "available":
            self.count_all()
            decision = self._decision(agreeing)
        if decision == was:
            return False
        self.item.state, self.item.class_name = decision
        self.item.decided_by = None
        self.decided_by = self.votes()[-1] if decision[0] == "done" else None
        return True

    def settle(self, overlap: int) -> None:
        """`decide`, where all labels are stored already."""
        if self.decide(overlap):
            self.item.decided_by = self.decided_by.id if self.decided_by is not None else None

    def ask_again(self, overlap: int) -> bool:
        """Open a done item until one more annotator agrees; false where labels that came too late do so already."""
        votes = [str(label.class_name) for label in self.votes()]
        several = any(map(class_sets.is_set, votes))
        agree = class_sets.most_agreeing(votes) if several else max(Counter(votes).values(), default=0)
        self.item.asked_again = max(self.item.asked_again + 1, agree + 1 - overlap, len(votes) - 1 - overlap)
        self.settle(overlap)
        return self.item.state == "available"

    def _decision(self, agreeing: int) -> tuple[str, str | None]:
        """The decision: done at `agreeing` equal votes, or by plurality at two votes more, ties to the earliest. Of
        several classes an item, each is decided so (`class_sets.decided_by`)."""
        if any(label.skip == "broken" for label in self.counted()):
            return "broken", None
        votes = self.votes()
        if votes and class_sets.is_set(votes[0].class_name):
            decided = class_sets.decided_by([str(label.class_name) for label in votes], agreeing)
            return ("done", decided) if decided is not None else ("available", None)
        if votes:
            name, most = Counter(str(label.class_name) for label in votes).most_common(1)[0]
            if most >= agreeing or len(votes) >= agreeing + 2:
                return "done", name
        return "available", None


def load(session: Session, items: Iterable[Item], *, annotations: bool = False) -> dict[int, ItemLabels]:
    """The items with their labels, by the item's number; annotations: with these, which may be large."""
    found = {item.id: ItemLabels(item) for item in items}
    for label in session.scalars(_WITH_ANNOTATIONS if annotations else _LABELS, {"items": list(found)}):
        found[label.item_id].labels.append(label)
    return found

"""An annotator's batches while they label: which items come next, when reservations are renewed, what is given back.

Without I/O, as `flows`: both clients run it.
"""

import logging
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import JsonValue

from shortlist_client.errors import ApiError, ShortlistError
from shortlist_client.flows import Flow, Pause, ProjectApi
from shortlist_client.models import BatchItem, Label, Skip

_log = logging.getLogger("shortlist_client")

_LOOK_S = 1.0  # reservations are looked at as often, more often where they are short
_AGAIN_S = 1.0  # after a renewal that was not answered


@dataclass
class Held:
    """A batch that is not labeled to its end. lost: its reservation has run out, and others may have its items."""

    batch: str
    to_come: deque[BatchItem]
    unlabeled: set[str]
    renew_at: float
    lost: bool = False


@dataclass
class Handed:
    """An item that the annotator looks at now, or has passed over."""

    item: BatchItem
    held: Held
    since: float = field(default_factory=time.monotonic)


class Holding:
    """size: items a batch. limit: items in all. wait: where waiting helps, as while a source is imported or others hold
    what is left, it goes on by itself."""

    def __init__(
        self, project: ProjectApi, annotator: str | None, *, size: int, limit: int | None, wait: bool
    ) -> None:
        self._project, self._annotator = project, annotator
        self._size, self._limit, self._wait = size, limit, wait
        self._held: list[Held] = []
        self._ttl_s = _LOOK_S
        self.handed = 0
        self.reason: str | None = None

    def next(self) -> Flow[Handed | None]:
        """The next item; None where there are no more, and `reason` then says why. Items that were passed over stay
        held until the end, so they do not come again."""
        self.reason = None
        while self._limit is None or self.handed < self._limit:
            self._held = [held for held in self._held if held.unlabeled and not held.lost]
            for held in self._held:
                if held.to_come:
                    self.handed += 1
                    return Handed(held.to_come.popleft(), held)
            size = self._size if self._limit is None else min(self._size, self._limit - self.handed)
            batch, ttl_s = yield from self._project.next_batch(self._annotator, size, new=bool(self._held))
            if batch.batch is not None and batch.items:
                self._ttl_s = ttl_s
                items = deque(batch.items)
                numbers = {item.id for item in items}
                self._held.append(Held(batch.batch, items, numbers, time.monotonic() + ttl_s / 2))
            elif self._wait and batch.retry_after_s is not None:
                yield Pause(batch.retry_after_s)
            else:
                self.reason = batch.reason
                return None
        return None

    def label(
        self,
        handed: Handed,
        class_name: str | Sequence[str] | None,
        *,
        skip: Skip | None = None,
        annotation: JsonValue = None,
        withdraw: bool = False,
    ) -> Flow[str]:
        """The outcome. A second label of the same item is the annotator's next revision. class_name: a list where an
        item may have several."""
        if class_name is None and skip is None and not withdraw:
            raise ValueError(
                "a label needs a class; `item.skip` says why there is none, `item.undo` withdraws"
            )
        milliseconds = int(1000 * (time.monotonic() - handed.since))
        label = {
            "item": handed.item.id,
            "batch": handed.held.batch,
            "duration_ms": min(milliseconds, 2**31 - 1),
            **({"skip": skip} if skip is not None else _said(class_name)),
            **({"annotator": self._annotator} if self._annotator is not None else {}),
            **({"annotation": annotation} if annotation is not None else {}),
        }
        stored = yield from self._project.label([Label.model_validate(label)])
        handed.held.unlabeled.discard(handed.item.id)
        return stored.results[0].outcome

    def look_again_s(self) -> float:
        """Seconds until `renew` is called next."""
        return min(_LOOK_S, max(0.01, self._ttl_s / 4))

    def renew(self) -> Flow[None]:
        """Reservations of which half the time has passed."""
        for held in list(self._held):
            if not held.unlabeled or held.lost or time.monotonic() < held.renew_at:
                continue
            try:
                ttl_s = yield from self._project.renew(held.batch)
            except ApiError as error:
                if error.status >= 500 or error.status == 429:
                    held.renew_at = time.monotonic() + _AGAIN_S
                else:
                    held.lost = True
            except ShortlistError:
                held.renew_at = time.monotonic() + _AGAIN_S
            else:
                held.renew_at = time.monotonic() + ttl_s / 2

    def give_back(self) -> Flow[None]:
        """Items that were not labeled go back. Where the service does not answer they come free when their reservations
        run out."""
        held_now, self._held = self._held, []
        for held in held_now:
            if held.unlabeled and not held.lost:
                try:
                    yield from self._project.give_back(held.batch)
                except ShortlistError as error:
                    _log.warning("The batch %s was not given back: %s", held.batch, error)


def _said(class_name: str | Sequence[str] | None) -> dict[str, Any]:
    if class_name is None or isinstance(class_name, str):
        return {"class": class_name}
    return {"classes": list(class_name)}

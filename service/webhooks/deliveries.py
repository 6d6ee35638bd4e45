"""Deliveries of webhooks as rows: taken when due, settled after each attempt, looked at, sent once more.

Taking one moves its `next_at` ahead by a lease. Whoever took it and died leaves it due again by itself, so none is
lost; one may arrive twice, with the same message id.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

import sqlalchemy as sa
from sqlalchemy.orm import Session, aliased

from service.store.jobs import clock
from service.store.tables import Delivery, Webhook, utc_now

State = Literal["pending", "delivered", "dead"]

DELAYS_S = (5.0, 30.0, 180.0, 1080.0, 6480.0, 38880.0)  # after each failed attempt: given up after half a day
GONE = 410  # the receiver says: never again
KEPT = timedelta(days=7)  # once it has ended
_PENDING: sa.ColumnElement[str] = sa.literal_column("'pending'", sa.Text)  # as in the partial index


@dataclass(frozen=True)
class Due:
    """A delivery that is ours to send until the lease runs out."""

    message_id: str
    webhook_id: int
    event: str
    body: str
    attempts: int
    url: str
    nonce: str


@dataclass(frozen=True)
class Attempt:
    """The end of an attempt: with the answer's status, or without an answer; `error` is None when it was accepted."""

    status: int | None
    error: str | None


def any_due(session: Session, busy: Collection[int]) -> bool:
    """True if a delivery of other webhooks than the busy ones is due. A look that takes no lock."""
    return session.scalar(sa.select(Delivery.id).where(*_due(session, busy)).limit(1)) is not None


def take(session: Session, busy: Collection[int], limit: int, lease_s: float) -> list[Due]:
    """At most one a webhook, so that a receiver that hangs holds up no others."""
    query = sa.select(Delivery, Webhook).join(Webhook).where(*_due(session, busy))
    found = session.execute(
        query.order_by(Delivery.next_at).limit(limit).with_for_update(skip_locked=True, of=Delivery)
    ).all()
    if not found:
        return []
    lease = sa.update(Delivery).where(Delivery.id.in_([delivery.id for delivery, _ in found]))
    session.execute(
        lease.values(next_at=clock(session) + lease_s).execution_options(synchronize_session=False)
    )
    return [
        Due(
            delivery.message_id,
            webhook.id,
            delivery.event,
            delivery.body,
            delivery.attempts,
            webhook.url,
            webhook.nonce,
        )
        for delivery, webhook in found
    ]


def _due(session: Session, busy: Collection[int]) -> tuple[sa.ColumnElement[bool], ...]:
    """The oldest due delivery of each webhook that is not busy. Conditions on the row itself, not on a subquery's:
    PostgreSQL checks them again once it has the lock, by when another service may have taken it.
    """
    earlier, now = aliased(Delivery), clock(session)
    before = sa.exists().where(
        earlier.webhook_id == Delivery.webhook_id,
        earlier.state == _PENDING,
        earlier.next_at <= now,
        earlier.id < Delivery.id,
    )
    return Delivery.state == _PENDING, Delivery.next_at <= now, Delivery.webhook_id.not_in(busy), ~before


def settle(session: Session, due: Due, attempt: Attempt, delays_s: Sequence[float] = DELAYS_S) -> State:
    """Delivered, to be tried again later, or given up. What another process settled meanwhile stays."""
    attempts = due.attempts + 1
    values: dict[str, object] = {"attempts": attempts, "status": attempt.status, "error": attempt.error}
    state: State = "pending"
    if attempt.error is None:
        state = "delivered"
    elif attempts > len(delays_s) or attempt.status == GONE:
        state = "dead"
    if state == "pending":
        values["next_at"] = clock(session) + delays_s[attempts - 1]
    else:
        values |= {"state": state, "ended_at": utc_now()}
    # Not by its row number, which SQLite gives away again once the webhook was deleted.
    still_ours = sa.update(Delivery).where(Delivery.message_id == due.message_id, Delivery.state == _PENDING)
    if state != "delivered":
        still_ours = still_ours.where(Delivery.attempts == due.attempts)
    session.execute(still_ours.values(**values).execution_options(synchronize_session=False))
    return state


def page(
    session: Session, webhook: Webhook, state: State | None, before: int | None, limit: int
) -> list[Delivery]:
    """Newest first."""
    query = sa.select(Delivery).where(Delivery.webhook_id == webhook.id)
    if state is not None:
        query = query.where(Delivery.state == state)
    if before is not None:
        query = query.where(Delivery.id < before)
    return list(session.scalars(query.order_by(Delivery.id.desc()).limit(limit)))


def send_dead_again(session: Session, webhook: Webhook) -> int:
    """All that were given up, from the first attempt on; how many."""
    again = session.execute(
        sa.update(Delivery)
        .where(Delivery.webhook_id == webhook.id, Delivery.state == "dead")
        .values(state="pending", attempts=0, next_at=0.0, ended_at=None)
        .returning(Delivery.id)
        .execution_options(synchronize_session=False)
    )
    return len(again.all())


def purge(session: Session, now: datetime) -> None:
    """Delete deliveries that ended long ago."""
    session.execute(sa.delete(Delivery).where(Delivery.ended_at < now - KEPT))

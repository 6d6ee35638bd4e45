"""Announcements of the workers: that they live, and their strategies, pretext tasks, heads and backbones.

The service checks names and parameters against this, so a wrong one is a 422 at once and a new strategy is
one file in the worker.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from service.store.jobs import Lane, clock
from service.store.tables import CatalogueEntry, Worker

Kind = Literal["strategy", "pretext_task", "head", "backbone"]

BEAT_S = 5.0  # how often a worker says that it lives
SILENT_S = 20.0  # after which it does not count as live
# In a plug-in's schema: the `label_kind`s of projects that it is for; without it, all.
LABEL_KINDS = "x-label-kinds"
HEAD_NEEDS_ITEMS = (
    "x-needs-items"  # in the parameter schema of a head: whether it trains on the items themselves
)
TASK_MODALITIES = (
    "x-modalities"  # in the parameter schema of a pretext task: the kinds it is for; null is any
)
FORGOTTEN_S = 86400.0  # after which a worker that never said goodbye is forgotten


@dataclass(frozen=True)
class Announcement:
    """A plug-in as a worker describes it: its help is the docstring, its parameters a JSON schema."""

    kind: Kind
    name: str
    help: str
    parameters: dict[str, Any]
    lane: Lane | None = None  # of the jobs that train a head with it; None: short


def announce(session: Session, announcements: Sequence[Announcement]) -> None:
    """Store what a starting worker offers. What it lacks goes, unless another live worker may have it."""
    now = _now(session)
    insert = postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite.insert
    for each in sorted(announcements, key=lambda each: (each.kind, each.name)):
        # Workers that start together announce together: an upsert, and all in one order, so none waits in a circle.
        values = {"help": each.help, "parameters": each.parameters, "lane": each.lane, "announced_at": now}
        session.execute(
            insert(CatalogueEntry)
            .values(kind=each.kind, name=each.name, **values)
            .on_conflict_do_update(index_elements=["kind", "name"], set_=values)
        )
    if len(live_workers(session)) <= 1:
        session.execute(sa.delete(CatalogueEntry).where(CatalogueEntry.announced_at < now))


def see_worker(session: Session, worker: Worker) -> None:
    """The worker is alive now; the first call makes it known, and forgets those that are long silent."""
    worker.seen_at = _now(session)
    session.merge(worker)
    forgotten = worker.seen_at - timedelta(seconds=FORGOTTEN_S)
    session.execute(sa.delete(Worker).where(Worker.seen_at < forgotten))


def forget_worker(session: Session, worker_id: str) -> None:
    session.execute(sa.delete(Worker).where(Worker.id == worker_id))


def live_workers(session: Session) -> Sequence[Worker]:
    since = _now(session) - timedelta(seconds=SILENT_S)
    return session.scalars(sa.select(Worker).where(Worker.seen_at >= since).order_by(Worker.id)).all()


def _now(session: Session) -> datetime:
    """By the database's clock, as those of two machines may differ by more than a worker's silence."""
    return datetime.fromtimestamp(session.scalars(sa.select(clock(session))).one(), UTC)

"""Item counts of a project, without counting a million of them for each look at the dashboard.

Items come and stay until their project goes, and get rising numbers: only newer ones are counted. One that was
committed late, behind newer ones, is found when all are counted anew, once a minute.
"""

import time
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import sqlalchemy as sa
from sqlalchemy.orm import Session

from service.store.tables import Item, Project

_ANEW_S = 60.0


@dataclass(frozen=True)
class Sizes:
    """Items of all states."""

    pool: int
    test: int


@dataclass(frozen=True)
class _Counted:
    at: float  # seconds of the monotonic clock, when all were counted
    newest: int
    all: int
    test: int


_known: WeakKeyDictionary[sa.Pool, dict[int, _Counted]] = WeakKeyDictionary()  # by database and project


def sizes(session: Session, project: Project) -> Sizes:
    of_database = _known.setdefault(session.connection().engine.pool, {})
    counted = of_database.get(project.id)
    if counted is None or time.monotonic() - counted.at > _ANEW_S:
        counted = _Counted(time.monotonic(), 0, 0, 0)
    newer = sa.and_(Item.project_id == project.id, Item.id > counted.newest)
    newest = session.scalar(sa.select(sa.func.max(Item.id)).where(newer))
    if newest is not None:
        count = sa.select(sa.func.count()).where(newer, Item.id <= newest)
        counted = _Counted(
            at=counted.at,
            newest=newest,
            all=counted.all + (session.scalar(count) or 0),
            test=counted.test + (session.scalar(count.where(sa.text("split = 'test'"))) or 0),
        )
    of_database[project.id] = counted
    return Sizes(pool=counted.all - counted.test, test=counted.test)

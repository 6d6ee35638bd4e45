"""Changes of a project, as the small events that `GET /projects/{p}/events` streams.

Events follow the database's present state, not a log of what happened: a listener knows each topic by a mark, and is
told the topics whose mark is another now. So every service process tells the same, nothing is stored for it, and
whoever comes back (`Last-Event-ID` holds the marks) is told what has changed meanwhile, once.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from service.store.ids import public_id
from service.store.tables import Item, Job, Label, Project, Round

ENDED_JOBS = 12  # the newest that are told
UNFINISHED_JOBS = 50  # most that are told
ROUNDS = 5

# Word for word the conditions of partial indexes: only so they are used.
_UNFINISHED = sa.text("state IN ('queued', 'running')")
_ASIDE = sa.text("state NOT IN ('available', 'done')")


@dataclass(frozen=True)
class Event:
    """The newest of a topic. `more`: what else of it can change, without being told."""

    name: str  # project, items, labels, round, score_run, ranking, head, job
    data: dict[str, Any]
    more: Any = None

    @cached_property
    def mark(self) -> str:
        content = json.dumps([self.data, self.more], sort_keys=True)
        return blake2b(content.encode(), digest_size=4).hexdigest()


State = dict[str, Event]  # by topic


def state(session: Session, project_id: int) -> State | None:
    """None when there is no such project. Three statements, each by an index."""
    newest_item = sa.select(sa.func.max(Item.id)).where(Item.project_id == project_id)
    newest_label = sa.select(sa.func.max(Label.id)).where(Label.project_id == project_id)
    aside = sa.select(sa.func.count()).select_from(Item).where(Item.project_id == project_id, _ASIDE)
    found = session.execute(
        sa.select(
            Project, newest_item.scalar_subquery(), newest_label.scalar_subquery(), aside.scalar_subquery()
        ).where(Project.id == project_id)
    ).one_or_none()
    if found is None:
        return None
    project, last_item, last_label, items_aside = found
    told = {
        "project": Event(
            "project", {"name": project.name, "state": project.state, "version": project.version}
        ),
        "items": Event("items", {"newest": last_item and public_id("i", last_item), "aside": items_aside}),
        "labels": Event("labels", {"labels_used": project.labels_used}, more=last_label),
    }
    for name, kind, number in (
        ("score_run", "s", project.score_run_id),
        ("ranking", "r", project.ranking_id),
        ("head", "h", project.head_id),
    ):
        if number is not None:
            told[name] = Event(name, {"id": public_id(kind, number)})
    return told | _rounds(session, project_id) | _jobs(session, project_id)


def _rounds(session: Session, project_id: int) -> State:
    query = sa.select(Round).where(Round.project_id == project_id).order_by(Round.number.desc()).limit(ROUNDS)
    return {
        f"round-{found.number}": Event("round", {"number": found.number, "state": _round_state(found)})
        for found in reversed(session.scalars(query).all())
    }


def _round_state(found: Round) -> str:
    if found.head_id is not None:
        return "measured"
    return "open" if found.closed_at is None else "closed"


def _jobs(session: Session, project_id: int) -> State:
    """In the order they were queued."""
    of_project = sa.select(Job.id).where(Job.project_id == project_id)
    unfinished = of_project.where(_UNFINISHED).order_by(Job.id.desc()).limit(UNFINISHED_JOBS)
    ended = of_project.where(Job.finished_at.is_not(None)).order_by(Job.finished_at.desc()).limit(ENDED_JOBS)
    ids = sa.union_all(sa.select(unfinished.subquery().c.id), sa.select(ended.subquery().c.id))
    return {
        public_id("j", job.id): Event(
            "job",
            {
                "id": public_id("j", job.id),
                "kind": job.kind,
                "state": job.state,
                "progress": round(job.progress, 3),
                "message": job.message,
                "error": job.error,
            },
        )
        for job in session.scalars(sa.select(Job).where(Job.id.in_(ids)).order_by(Job.id))
    }


def encode(marks: Mapping[str, str]) -> str:
    """The id of an event: all that its listener knows by then."""
    return ",".join(f"{topic}:{mark}" for topic, mark in marks.items())


def decode(event_id: str) -> dict[str, str]:
    """The inverse; what is no such id tells nothing, so that all is told."""
    pairs = (part.partition(":") for part in event_id.split(","))
    return {topic: mark for topic, colon, mark in pairs if colon}

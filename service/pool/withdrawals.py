"""Items are taken out of the pool or the test split, and put back."""

from collections.abc import Sequence

import sqlalchemy as sa
from sqlalchemy.orm import Session

from service.labeling import batches, picks
from service.models import training
from service.pool import items, queues
from service.projects import projects
from service.store import asides, item_decisions, pipeline
from service.store.project_settings import ProjectSettings
from service.store.tables import Item, Project, Score


def withdraw(session: Session, project: Project, wanted: Sequence[str]) -> int:
    """Take items, by public id, out; how many were in. Nobody is asked for them, no head trains or is measured on
    them. Their labels stay on record, and count against the budget as before. Raises `UnknownItem`.
    """
    projects.lock_open(session, project)
    found = dict.fromkeys(items.find_each(session, project, wanted))
    taken = [item for item in found if item.state not in ("withdrawn", *asides.ASIDE)]
    were_done = any(item.state == "done" for item in taken)
    for item in taken:
        item.state, item.gold = "withdrawn", False
        if item.split == "pool":  # what labels decided; a test item came with its class
            item.class_name = item.decided_by = None
    numbers = [item.id for item in taken]
    batches.release_items(session, project, numbers)
    queues.clear(session, project, numbers, by=())
    if were_done:
        training.retrain_if_due(session, project)
    return len(taken)


def restore(session: Session, project: Project, wanted: Sequence[str]) -> int:
    """Put back what was withdrawn, quarantined, or rejected as broken, and how many that were; the rejects count no
    more, and what still cannot be read is quarantined again when it is scored.

    A pool item is what its labels say. Raises `UnknownItem`.
    """
    projects.lock_open(session, project)
    out = [
        item
        for item in dict.fromkeys(items.find_each(session, project, wanted))
        if item.state in ("withdrawn", "broken", "quarantined")
    ]
    overlap = ProjectSettings.model_validate(project.settings).overlap
    for item in out:
        item.state, item.quarantine_reason = asides.state_when_restored(item), None
    in_pool = (item for item in out if item.split == "pool" and item.state == "available")
    for labels in item_decisions.load(session, in_pool).values():
        votes_before = len(labels.votes())
        for label in labels.labels:
            label.used = label.current and label.skip != "broken"
        labels.settle(overlap)
        project.labels_used += len(labels.votes()) - votes_before
    if out:
        training.retrain_if_due(session, project)
        _score_what_has_none(session, project, out)
        picks.open_again(session, project, [item.id for item in out])
    return len(out)


def _score_what_has_none(session: Session, project: Project, out: Sequence[Item]) -> None:
    """Queue the scoring of items that were out while the pool was scored."""
    scored = sa.select(sa.func.count()).where(
        Score.score_run_id == project.score_run_id, Score.item_id.in_([item.id for item in out])
    )
    if (session.scalar(scored) or 0) < len(out):
        pipeline.queue_score_new_items(session, project)

"""A project is changed: its settings, name, classes, state."""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from service.errors import ClassInUse, ModalityFixed, ProjectChanged
from service.labeling import batches
from service.labeling.picks import AVAILABLE, CURRENT
from service.models import plug_ins, training
from service.pool import queues
from service.projects import projects
from service.projects.projects import State
from service.store import item_decisions, jobs, modalities, pipeline
from service.store.names import composed
from service.store.project_settings import ProjectSettings
from service.store.tables import Item, Job, Label, Project, Ranking, Reservation, utc_now

_CHUNK = 1_000  # items and their labels in memory

# What the order of the items depends on: a change of these is not left waiting for the next labels.
_ORDERING = {
    "strategy", "cold_start", "collapse_duplicates", "control_fraction", "budget", "round_size", "seed",
}  # fmt: skip


def change(
    session: Session,
    project: Project,
    *,
    changes: dict[str, Any],
    name: str | None,
    classes: Sequence[str] | None,
    state: State | None,
    if_match: str | None,
    modality: str | None = None,
) -> Project:
    """changes: settings to set. Raises `ProjectChanged` when `if_match` is not the ETag in force, `ModalityFixed` once
    there are items.
    """
    projects.lock(session, project)
    if if_match is not None and not _matches(if_match, projects.etag(project)):
        raise ProjectChanged
    if state is not None:
        project.state = state
        if state == "archived":
            _stop(session, project)
    if modality is not None and modality != project.modality:
        _change_modality(session, project, modality, new_task="pretext_task" in changes)
    if changes:
        known = project.classes if classes is None else classes
        plug_ins.check(session, ProjectSettings.model_validate(changes), known)
        settings = ProjectSettings.model_validate(project.settings | changes)
        if project.modality is not None and "pretext_task" in changes:
            modalities.check_task(session, settings, project.modality)
        fewer = settings.overlap < ProjectSettings.model_validate(project.settings).overlap
        if "overlap" in changes and project.ranking_id is not None:  # there may be room for more annotators
            session.get_one(Ranking, project.ranking_id).low_water = 1
        project.settings = settings.model_dump(mode="json", exclude_unset=True)
        if not pipeline.NEEDED_FOR.keys().isdisjoint(changes):
            pipeline.correct_queued(session, project)
        if project.score_run_id is not None and not _ORDERING.isdisjoint(changes):
            pipeline.queue_rank(session, project)
        if fewer:
            _settle(session, project, settings.overlap)
    if classes is not None:
        spelled = {composed(known): known for known in project.classes}
        classes = [spelled.get(composed(one), one) for one in classes]
        for gone in set(project.classes) - set(classes):
            if _in_use(session, project, gone):
                raise ClassInUse(name=gone)
        project.classes = list(classes)
    if name is not None:
        project.name = name
    project.version += 1
    projects.flush_name(session, project.name)
    return project


def _change_modality(session: Session, project: Project, modality: str, new_task: bool) -> None:
    modalities.check(modality)
    items = sa.exists().where(Item.project_id == project.id)
    if project.modality is not None and session.scalar(sa.select(items)):
        raise ModalityFixed(field="modality", kind=project.modality)
    if new_task:  # another is chosen in the same call
        project.settings = {name: value for name, value in project.settings.items() if name != "pretext_task"}
    modalities.assign(session, project, modality)


def _settle(session: Session, project: Project, overlap: int) -> None:
    """Fewer annotators need agree now: what has labels enough is decided as if the last of them had just come."""
    votes = sa.func.count()
    enough = (
        sa.select(Item.id)
        .join(Label, Label.item_id == Item.id)
        .where(Label.project_id == project.id, CURRENT, Label.used, Label.class_name.is_not(None), AVAILABLE)
        .group_by(Item.id)
        .having(votes >= overlap + Item.asked_again)
    )
    numbers = session.scalars(enough).all()
    any_done = False
    for first in range(0, len(numbers), _CHUNK):
        chunk = session.scalars(sa.select(Item).where(Item.id.in_(numbers[first : first + _CHUNK]))).all()
        for found in item_decisions.load(session, chunk).values():
            found.settle(overlap)
        session.flush()  # written, they need not be kept in memory
        done = [item.id for item in chunk if item.state != "available"]
        batches.release_items(session, project, done)
        queues.clear(session, project, done, by=())
        any_done = any_done or bool(done)
    if any_done and project.state != "archived":
        training.retrain_if_due(session, project)


def _stop(session: Session, project: Project) -> None:
    """Nobody works on it any more: its jobs are cancelled, what annotators hold runs out."""
    running = sa.select(Job.id).where(Job.project_id == project.id, Job.state.in_(("queued", "running")))
    for job_id in session.scalars(running).all():
        jobs.request_cancel(session, job_id)
    session.execute(
        sa.update(Reservation)
        .where(Reservation.project_id == project.id, Reservation.state == sa.literal_column("'open'"))
        .values(expires_at=utc_now())
    )


def _matches(header: str, tag: str) -> bool:
    return header.strip() == "*" or tag in (part.strip() for part in header.split(","))


def _in_use(session: Session, project: Project, class_name: str) -> bool:
    labeled = sa.exists().where(Label.project_id == project.id, Label.class_name == class_name)
    # Items of the test split, and gold ones; as constants, so that both databases use their partial indexes.
    known = (
        sa.exists().where(Item.project_id == project.id, Item.class_name == class_name, which)
        for which in (Item.split == sa.literal_column("'test'"), sa.text("items.gold"))
    )
    return bool(session.scalar(sa.select(sa.or_(labeled, *known))))

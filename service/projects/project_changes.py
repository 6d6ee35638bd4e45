"""A project is changed: its settings, name, classes, state."""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from service.errors import ModalityFixed
from service.labeling import agreement
from service.models import plug_ins
from service.projects import class_changes, projects
from service.projects.projects import State
from service.store import jobs, modalities, pipeline
from service.store.project_settings import ProjectSettings
from service.store.tables import Item, Job, Project, Ranking, Reservation, utc_now

# What the order of the items depends on: a change of these is not left waiting for the next labels.
_ORDERING = {
    "strategy",
    "cold_start",
    "collapse_duplicates",
    "control_fraction",
    "budget",
    "round_size",
    "seed",
}


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
    by: int | None = None,
) -> Project:
    """changes: settings to set; by: the key of whoever wants it. Raises `ProjectChanged` when `if_match` is not the
    ETag in force, `ModalityFixed` once there are items, and what changing classes raises.
    """
    projects.lock(session, project)
    projects.check_etag(project, if_match)
    if state is not None:
        project.state = state
        if state == "archived":
            _stop(session, project)
    if modality is not None and modality != project.modality:
        _change_modality(session, project, modality, new_task="pretext_task" in changes)
    if changes:
        known = project.classes if classes is None else classes
        plug_ins.check(session, ProjectSettings.model_validate(changes), known, project.label_kind)
        settings = ProjectSettings.model_validate(project.settings | changes)
        if settings.pair_of != ProjectSettings.model_validate(project.settings).pair_of:
            _check_no_items(session, project, "pair_of")
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
            agreement.settle_open(session, project, settings.overlap)
    if classes is not None:
        class_changes.set_classes(session, project, classes, by)
    if name is not None:
        project.name = name
    project.version += 1
    projects.flush_name(session, project.name)
    return project


def _change_modality(session: Session, project: Project, modality: str, new_task: bool) -> None:
    modalities.check(modality)
    _check_no_items(session, project, "modality")
    if new_task:  # another is chosen in the same call
        project.settings = {name: value for name, value in project.settings.items() if name != "pretext_task"}
    modalities.assign(session, project, modality)


def _check_no_items(session: Session, project: Project, field: str) -> None:
    """Raises `ModalityFixed`."""
    items = sa.exists().where(Item.project_id == project.id)
    if project.modality is not None and session.scalar(sa.select(items)):
        raise ModalityFixed(field=field, kind=project.modality)


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

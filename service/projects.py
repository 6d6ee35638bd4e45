"""Projects: made, found, locked, changed, deleted."""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from service import catalogue, rounds
from service.errors import ClassInUse, NameTaken, NotFound, ProjectChanged, WhichProject
from service.store import pipeline
from service.store.ids import row_number
from service.store.project_settings import ProjectSettings
from service.store.tables import Item, Label, Project

# What the order of the items depends on: a change of these is not left waiting for the next labels.
_ORDERING = {
    "strategy", "cold_start", "collapse_duplicates", "control_fraction", "budget", "round_size", "seed",
}  # fmt: skip


def create(
    session: Session,
    *,
    name: str,
    classes: Sequence[str],
    settings: ProjectSettings,
    pretext_from: str | None,
) -> Project:
    """With its first round open. Raises `NameTaken`, `UnknownPlugIn`, `Invalid`."""
    catalogue.check(session, settings)
    other = find(session, pretext_from) if pretext_from is not None else None
    project = Project(
        name=name,
        classes=list(classes),
        settings=settings.model_dump(mode="json", exclude_unset=True),
        pretext_from_id=other.id if other else None,
    )
    session.add(project)
    _flush_name(session, name)
    rounds.open_first(session, project)
    return project


def find(session: Session, public: str, only: int | None = None) -> Project:
    """By public id. A key bound to project `only` sees no other."""
    project = session.get(Project, row_number("p", public))
    if project is None or only not in (None, project.id):
        raise NotFound(what="project", id=public)
    return project


def find_only(session: Session, only: int | None, action: str) -> Project:
    """The key's project, else the only one there is. Raises `WhichProject`, `NotFound`."""
    query = sa.select(Project).order_by(Project.id).limit(2)
    found = list(session.scalars(query if only is None else query.where(Project.id == only)))
    if not found:
        raise NotFound(what="project", id="yet")
    if len(found) > 1:
        raise WhichProject(action=action)
    return found[0]


def lock(session: Session, project: Project) -> None:
    """What is served, spent and counted in a project changes under this lock only, so it needs no other.

    It lets rows that refer to the project be inserted meanwhile: an import never makes annotators wait.
    """
    session.flush()  # refreshing would throw away what was not written yet
    session.refresh(project, with_for_update={"key_share": True})


def page(session: Session, only: int | None, after: int | None, limit: int) -> list[Project]:
    query = sa.select(Project).order_by(Project.id).limit(limit)
    if only is not None:
        query = query.where(Project.id == only)
    if after is not None:
        query = query.where(Project.id > after)
    return list(session.scalars(query))


def change(
    session: Session,
    project: Project,
    *,
    changes: dict[str, Any],
    name: str | None,
    classes: Sequence[str] | None,
    if_match: str | None,
) -> Project:
    """changes: settings to set. Raises `ProjectChanged` when `if_match` is not the ETag in force."""
    lock(session, project)
    if if_match is not None and not _matches(if_match, etag(project)):
        raise ProjectChanged
    if changes:
        catalogue.check(session, ProjectSettings.model_validate(changes))
        settings = ProjectSettings.model_validate(project.settings | changes)
        project.settings = settings.model_dump(mode="json", exclude_unset=True)
        if project.score_run_id is not None and not _ORDERING.isdisjoint(changes):
            pipeline.queue_rank(session, project)
    if classes is not None:
        for gone in set(project.classes) - set(classes):
            if _in_use(session, project, gone):
                raise ClassInUse(name=gone)
        project.classes = list(classes)
    if name is not None:
        project.name = name
    project.version += 1
    _flush_name(session, project.name)
    return project


def etag(project: Project) -> str:
    return f'"{project.id}-{project.version}"'


def _matches(header: str, tag: str) -> bool:
    return header.strip() == "*" or tag in (part.strip() for part in header.split(","))


def delete(session: Session, project: Project) -> None:
    """With all that belongs to it (foreign keys cascade). Its running jobs lose their row, and so their lease."""
    lock(session, project)
    session.delete(project)
    session.flush()


def _in_use(session: Session, project: Project, class_name: str) -> bool:
    labeled = sa.exists().where(Label.project_id == project.id, Label.class_name == class_name)
    tested = sa.exists().where(
        Item.project_id == project.id,
        Item.split == sa.literal_column("'test'"),
        Item.class_name == class_name,
    )
    return bool(session.scalar(sa.select(sa.or_(labeled, tested))))


def _flush_name(session: Session, name: str) -> None:
    try:
        session.flush()
    except sa.exc.IntegrityError as error:
        raise NameTaken(name=name) from error

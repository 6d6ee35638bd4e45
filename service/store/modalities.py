"""The modality of a project: the kind of its items. Chosen when it is made, else told by its first items."""

from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from service.content import contents
from service.content.contract import Content
from service.content.pair import pairs_of
from service.errors import GoneMeanwhile, TaskForAnotherModality, UnknownModality
from service.store.catalogue import TASK_MODALITIES
from service.store.project_settings import Choice, ProjectSettings
from service.store.tables import CatalogueEntry, Project

_DEFAULT_TASK = ProjectSettings().pretext_task.name


def content_of(project: Project) -> Content | None:
    """The content of the project's items; None where its modality is not told, or known to nobody here."""
    if project.modality == "pair":
        return pairs_of(ProjectSettings.model_validate(project.settings).pair_of)
    return contents().get(project.modality or "")


def needed_for(project: Project) -> set[str]:
    """The modalities that a worker must have to decode the project's items: of pairs those of both halves, too."""
    if project.modality is None:
        return set()
    own = {project.modality}
    if project.modality == "pair":
        own |= set(ProjectSettings.model_validate(project.settings).pair_of)
    return own


def check(name: str) -> None:
    """Raises `UnknownModality`."""
    if name not in contents():
        raise UnknownModality(field="modality", name=name, known=", ".join(contents()))


def tell(session: Session, project_id: int, name: str) -> str:
    """The project's modality is `name`, unless it was told before; returns what it is now. Raises
    `TaskForAnotherModality` where its pretext task was chosen, and is for others.
    """
    project = session.get(Project, project_id, with_for_update={"key_share": True}, populate_existing=True)
    if project is None:
        raise GoneMeanwhile
    if project.modality is None:
        assign(session, project, name)
        project.version += 1
    return project.modality or name


def assign(session: Session, project: Project, name: str) -> None:
    """… and its pretext task is that of the modality, unless another was chosen."""
    settings = dict(project.settings)
    if settings.get("pretext_task") == _default_task(project.modality):
        settings.pop("pretext_task", None)
    if "pretext_task" in settings:
        check_task(session, ProjectSettings.model_validate(settings), name)
    elif (task := _default_task(name)) is not None:
        settings["pretext_task"] = task
    project.modality, project.settings = name, settings


def check_task(session: Session, settings: ProjectSettings, modality: str) -> None:
    """Raises `TaskForAnotherModality`. Of a task that no worker has announced nothing is known."""
    query = sa.select(CatalogueEntry).where(CatalogueEntry.kind == "pretext_task")
    tasks = {entry.name: entry.parameters.get(TASK_MODALITIES) for entry in session.scalars(query)}
    fitting = [name for name, kinds in tasks.items() if kinds is None or modality in kinds]
    name = settings.pretext_task.name
    if name in tasks and name not in fitting:
        raise TaskForAnotherModality(
            field="pretext_task",
            name=name,
            kind=modality,
            fitting=", ".join(sorted(fitting)) or "none is known",
        )


def _default_task(modality: str | None) -> dict[str, Any] | None:
    """As stored in settings; None where it is the one that stands for everything that is left out."""
    content = contents().get(modality or "")
    if content is None or content.default_task == _DEFAULT_TASK:
        return None
    return Choice(name=content.default_task).model_dump(mode="json")

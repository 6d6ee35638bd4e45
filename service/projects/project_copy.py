"""A project copied: classes, settings, items, and its labels if wanted. It is served with the same pretext model."""

from sqlalchemy.orm import Session

from service.labeling import rounds
from service.projects import projects
from service.store import pipeline
from service.store.tables import Job, Project


def copy(session: Session, source: Project, *, name: str, labels: bool) -> tuple[Project, Job]:
    """The copy, paused until the job has filled it. Raises `NameTaken`."""
    project = Project(
        name=name,
        classes=source.classes,
        label_kind=source.label_kind,
        aliases=source.aliases,
        settings=source.settings,
        modality=source.modality,
        texts_from=[*source.texts_from, source.id],
        pretext_from_id=source.id,
        state="paused",
    )
    session.add(project)
    projects.flush_name(session, name)
    rounds.open_first(session, project)
    return project, session.get_one(Job, pipeline.queue_copy_project(session, project, source, labels=labels))

"""Sources: checked here, imported by a worker."""

from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.orm import Session

from service.content.graph_files import file_of
from service.content.reader import ItemBytes, is_url, place_as_text, upload_uri
from service.errors import SingleOnly, SourceUnreadable, UploadInUse
from service.pool.items import Split
from service.projects import projects
from service.store import pipeline
from service.store.ids import public_id
from service.store.tables import Job, Project, Source


def add(
    session: Session,
    project: Project,
    item_bytes: ItemBytes,
    *,
    uri: str,
    split: Split,
    label_column: str | None,
    accept_missing: bool = False,
) -> tuple[Source, Job]:
    """Queue its import. accept_missing: what earlier imports of it found and this one does not is put aside even where
    that is more than half. Raises `SourceNotAllowed` outside the allowed roots, `SourceUnreadable` where nothing is,
    `ProjectArchived`, `SingleOnly`."""
    projects.refuse_archived(project)
    projects.check_upload(project, uri)
    place = item_bytes.check_root(uri)
    if not is_url(place) and not Path(file_of(place)).exists():
        raise SourceUnreadable(uri=uri, reason="there is no such file or folder")
    stored = item_bytes.as_stored(place_as_text(place), projects.uploads_of(project))
    if split == "test" and project.label_kind == "multi" and label_column is None:
        raise SingleOnly(
            what="a test split by folders",
            project=public_id("p", project.id),
            instead="Import a table that has each item's classes in a column, as a list or between semicolons, and "
            "name it as `label_column`.",
        )
    source = Source(project_id=project.id, uri=stored, split=split, label_column=label_column)
    session.add(source)
    session.flush()
    source.job_id = pipeline.queue_import(session, source, accept_missing=accept_missing)
    return source, session.get_one(Job, source.job_id)


def check_not_imported(session: Session, project: Project, upload: str) -> None:
    """Raises `UploadInUse`."""
    place = upload_uri(project.id, upload)
    within = sa.or_(Source.uri == place, Source.uri.startswith(f"{place}/", autoescape=True))
    if session.scalar(sa.select(Source.id).where(within).limit(1)) is not None:
        raise UploadInUse(upload=upload)


def page(session: Session, project: Project, before: int | None, limit: int) -> list[Source]:
    """Newest first."""
    query = sa.select(Source).where(Source.project_id == project.id).order_by(Source.id.desc()).limit(limit)
    return list(session.scalars(query if before is None else query.where(Source.id < before)))

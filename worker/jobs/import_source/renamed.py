"""Folders that were imported under another name, and renamed since."""

import os

import sqlalchemy as sa
from sqlalchemy.orm import Session

from service.content.reader import local_path
from service.store.tables import Item, Source
from worker.jobs.context import JobContext

_LOOKED_FOR = 1_000  # files of a folder that is gone


def follow(context: JobContext, source: Source) -> None:
    """Earlier imports of a folder that is gone, and of whose files more than half lie below the source's, are imports
    of this one: so what is changed, moved or missing in it is told.
    """
    folder = local_path(source.uri)
    if not (os.path.isabs(folder) and os.path.isdir(folder)):
        return
    of_project = (Source.project_id == source.project_id, Source.split == source.split)
    with context.read() as session:
        places = session.scalars(sa.select(Source.uri).where(*of_project).distinct()).all()
        before = [place for place in places if _is_gone(place) and _lies_in(session, source, place, folder)]
    if before:
        with context.publish() as session:
            session.execute(
                sa.update(Source).where(*of_project, Source.uri.in_(before)).values(uri=source.uri)
            )


def _is_gone(place: str) -> bool:
    path = local_path(place)
    return os.path.isabs(path) and not os.path.lexists(path)


def _lies_in(session: Session, source: Source, place: str, folder: str) -> bool:
    query = (
        sa.select(Item.uri)
        .join(Source, Source.id == Item.source_id)
        .where(Item.project_id == source.project_id, Item.split == source.split, Source.uri == place)
        .where(Item.state.not_in(("withdrawn", "changed")))
        .order_by(Item.shuffle)
        .limit(_LOOKED_FOR)
    )
    before = local_path(place)
    files = [local_path(uri).removeprefix(before) for uri in session.scalars(query)]
    found = sum(os.path.lexists(folder + file.partition("#frame=")[0]) for file in files)
    return 2 * found > len(files)

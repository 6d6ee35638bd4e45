"""Folders, tables and archives that were imported under another name, and renamed since."""

import os

import sqlalchemy as sa
from sqlalchemy.orm import Session

from service.content.graph_files import file_of
from service.content.reader import ItemBytes, local_path
from service.errors import ShortlistError
from service.store.tables import Item, Source
from worker.jobs.context import JobContext

_LOOKED_AT = 100  # items of a place that is gone


def follow(context: JobContext, source: Source, item_bytes: ItemBytes) -> None:
    """Earlier imports of a place that is gone, and of whose items more than half lie in the source's, are imports of
    this one: so what is changed, moved or missing in it is told. Equal names alone do not make it so.
    """
    here = local_path(source.uri)
    if not (os.path.isabs(here) and os.path.exists(here)):
        return
    of_project = (Source.project_id == source.project_id, Source.split == source.split)
    with context.read() as session:
        places = session.scalars(sa.select(Source.uri).where(*of_project).distinct()).all()
        items = {place: _items(session, source, place) for place in places if _is_gone(place)}
    before = [place for place, some in items.items() if _lie_in(item_bytes, here, place, some)]
    if before:
        with context.publish() as session:
            session.execute(
                sa.update(Source).where(*of_project, Source.uri.in_(before)).values(uri=source.uri)
            )


def _is_gone(place: str) -> bool:
    path = file_of(local_path(place))
    return os.path.isabs(path) and not os.path.lexists(path)


def _items(session: Session, source: Source, place: str) -> list[tuple[str, str]]:
    """Places and hashes of some of its items."""
    query = (
        sa.select(Item.uri, Item.content_hash)
        .join(Source, Source.id == Item.source_id)
        .where(Item.project_id == source.project_id, Item.split == source.split, Source.uri == place)
        .where(Item.state.in_(("available", "done", "broken")), Item.content_hash.is_not(None))
        .order_by(Item.shuffle)
        .limit(_LOOKED_AT)
    )
    return [(uri, str(content)) for uri, content in session.execute(query)]


def _lie_in(item_bytes: ItemBytes, here: str, place: str, items: list[tuple[str, str]]) -> bool:
    before, found = local_path(place), 0
    for uri, content in items:
        try:
            item_bytes.read(here + local_path(uri).removeprefix(before), content)
        except ShortlistError:
            continue
        found += 1
    return 2 * found > len(items)

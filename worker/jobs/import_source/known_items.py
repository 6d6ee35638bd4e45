"""The items that the database knows of what an import finds: by key, and of earlier imports of the same place."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.orm import Session

from service.store.asides import ASIDE
from service.store.names import composed, spellings
from service.store.tables import Item, Source

_PAGE = 10_000  # ids read at a time


@dataclass(frozen=True, slots=True)
class KnownItem:
    """mine: it came from the place that is imported; fresh: its bytes were never decoded"""

    id: int
    key: str
    uri: str
    split: str
    state: str
    class_name: str | None
    content_hash: str | None
    stamp: str | None
    came_by: str | None
    source_id: int | None
    quarantine_reason: str | None
    fresh: bool
    mine: bool

    @property
    def bad(self) -> bool:
        """It is quarantined, or was before it went missing: it is looked at again."""
        return self.state == "quarantined" or (self.state in ASIDE and self.quarantine_reason is not None)


class KnownItems:
    def __init__(self, source: Source) -> None:
        self._source = source
        self._mine = sa.func.coalesce(Source.uri == source.uri, sa.false())
        self._columns = (
            sa.select(
                Item.id,
                Item.key,
                Item.uri,
                Item.split,
                Item.state,
                Item.class_name,
                Item.content_hash,
                Item.stamp,
                Item.came_by,
                Item.source_id,
                Item.quarantine_reason,
                Item.facts.is_(None),
                self._mine,
            )
            .outerjoin(Source, Source.id == Item.source_id)
            .where(Item.project_id == source.project_id)
        )
        self._of_place = (
            sa.select(Item.id, Item.source_id, Item.came_by)
            .join(Source, Source.id == Item.source_id)
            .where(Item.project_id == source.project_id, Item.split == source.split, Source.uri == source.uri)
        )

    def by_key(self, session: Session, keys: Collection[str]) -> dict[str, KnownItem]:
        """By the keys as they are asked for. One that is spelled just so goes before one that only reads the same."""
        rows = session.execute(self._columns.where(Item.key.in_(spellings(keys))))
        exact = {item.key: item for item in (KnownItem(*tuple(row)) for row in rows)}
        alike = {composed(key): item for key, item in exact.items()}
        found = ((key, exact.get(key) or alike.get(composed(key))) for key in keys)
        return {key: item for key, item in found if item is not None}

    def by_content(self, session: Session, hashes: Collection[str]) -> dict[str, list[KnownItem]]:
        """Items of the place and split that are imported, by their content; labeled ones first."""
        wanted = self._columns.where(
            Item.content_hash.in_(hashes), self._mine, Item.split == self._source.split
        )
        found: dict[str, list[KnownItem]] = {}
        for row in session.execute(wanted.order_by(Item.state != "done", Item.id)):
            item = KnownItem(*tuple(row))
            found.setdefault(str(item.content_hash), []).append(item)
        return found

    def any_of_place(self, session: Session) -> bool:
        return session.scalar(self._of_place.limit(1)) is not None

    def live_of_place(self, session: Session) -> Iterator[tuple[int, bool]]:
        """Items that are not aside, by id, and whether this very import added them."""
        live = self._of_place.where(Item.state.not_in(("withdrawn", *ASIDE))).order_by(Item.id).limit(_PAGE)
        after = 0
        while rows := session.execute(live.where(Item.id > after)).all():
            for number, source_id, came_by in rows:
                yield number, source_id == self._source.id and came_by == "added"
            after = rows[-1][0]

    def missing(self, session: Session) -> int:
        gone = self._of_place.where(Item.state == "missing").subquery()
        return session.scalar(sa.select(sa.func.count()).select_from(gone)) or 0

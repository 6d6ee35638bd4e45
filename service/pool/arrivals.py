"""Items that are registered under keys that are known: compared with what is stored, as imports compare them
(docs/decisions/0023-an-item-is-its-bytes.md).

Other bytes are another item: it gets the key, and the one before is put aside with its labels. Bytes that the key had
before bring back the item that was them. What cannot be read now is taken to be as it was.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import sqlalchemy as sa
from sqlalchemy.orm import Session

from service.content.reader import ItemBytes, content_hash_of, is_settled
from service.errors import ShortlistError
from service.pool import items
from service.pool.items import NewItem
from service.projects import projects
from service.store import asides, pipeline
from service.store.asides import ASIDE, Displaced
from service.store.ids import public_id
from service.store.tables import Item, Project

_READ_AT_ONCE = 16


@dataclass(frozen=True)
class KnownItem:
    id: int
    key: str
    uri: str
    split: str
    state: str
    content_hash: str | None
    stamp: str | None


@dataclass(frozen=True)
class Look:
    """content_hash: of the bytes that came, where they were at hand or read; stamp: of their file, where it may be
    trusted the next time
    """

    changed: bool = False
    content_hash: str | None = None
    stamp: str | None = None


@dataclass(frozen=True)
class Arrived:
    """The outcome of some entries, before anything is stored. Of those with one key the first counts."""

    new: list[NewItem] = field(default_factory=list)
    changed: list[tuple[NewItem, KnownItem, Look]] = field(default_factory=list)
    known: list[tuple[NewItem, KnownItem, Look]] = field(default_factory=list)


def known_items(session: Session, project: Project, keys: Sequence[str]) -> dict[str, KnownItem]:
    query = sa.select(Item.id, Item.key, Item.uri, Item.split, Item.state, Item.content_hash, Item.stamp)
    rows = session.execute(query.where(Item.project_id == project.id, Item.key.in_(keys))).all()
    return {row[1]: KnownItem(row[0], row[1], row[2], row[3], row[4], row[5], row[6]) for row in rows}


def compare(item_bytes: ItemBytes, entries: Sequence[NewItem], known: dict[str, KnownItem]) -> Arrived:
    """Files are read where their size and times do not say that they are as they were."""
    first: dict[str, NewItem] = {}
    for entry in entries:
        first.setdefault(entry.key, entry)
    pairs = [(entry, known[key]) for key, entry in first.items() if key in known]
    with ThreadPoolExecutor(_READ_AT_ONCE) as threads:
        looks = threads.map(lambda pair: _look(item_bytes, *pair), pairs)
        found = [(*pair, look) for pair, look in zip(pairs, looks, strict=True)]
    return Arrived(
        new=[entry for key, entry in first.items() if key not in known],
        changed=[one for one in found if one[2].changed],
        known=[one for one in found if not one[2].changed],
    )


def _look(item_bytes: ItemBytes, entry: NewItem, item: KnownItem) -> Look:
    if entry.split != item.split:  # an item stays in its split
        return Look()
    if entry.text is not None:
        return Look(entry.content_hash != item.content_hash, entry.content_hash)
    if entry.halves is not None:
        return _look_at_pair(item_bytes, entry, entry.halves, item)
    if item.content_hash is None and item.state != "quarantined":  # nobody has read it
        return Look(entry.uri != item.uri)
    try:
        stamp = item_bytes.stamp(entry.uri)
        if stamp is not None and (entry.uri, stamp) == (item.uri, item.stamp):
            return Look(content_hash=item.content_hash, stamp=stamp)
        found = content_hash_of(item_bytes.read(entry.uri))
        if item_bytes.stamp(entry.uri) != stamp:  # it changed meanwhile: nothing is known of it
            return Look()
    except ShortlistError:
        return Look()
    rested = stamp if stamp is not None and is_settled(stamp) else None
    return Look(found != item.content_hash, found, rested)


def _look_at_pair(item_bytes: ItemBytes, entry: NewItem, halves: tuple[str, str], item: KnownItem) -> Look:
    try:
        found = content_hash_of(item_bytes.read_pair(entry.key, entry.kinds, halves))
        before = item.content_hash or content_hash_of(item_bytes.read(item.uri))  # nobody has read it
    except ShortlistError:
        return Look()
    return Look(found != before, found)


def store(session: Session, project: Project, arrived: Arrived) -> tuple[int, int]:
    """The numbers of items that were new, and that had other bytes. Raises what `items.register` raises, and
    `ProjectArchived`.
    """
    added = items.register(session, project, arrived.new)
    back = [
        item.id for _, item, look in arrived.known if item.state in ASIDE and look.content_hash is not None
    ]
    changed = 0
    if arrived.changed or back:
        projects.lock_open(session, project)
        changed = _replace(session, project, arrived.changed, back)
    updates = [
        {"id": item.id, "uri": item.uri if entry.is_inline else entry.uri, "stamp": look.stamp}
        for entry, item, look in arrived.known
        if look.stamp is not None and (entry.uri, look.stamp) != (item.uri, item.stamp)
    ]
    if updates:
        session.execute(sa.update(Item), updates)
    if added or changed:
        pipeline.queue_score_new_items(session, project)
    return added, changed


def _replace(
    session: Session, project: Project, changed: Sequence[tuple[NewItem, KnownItem, Look]], back: list[int]
) -> int:
    """Items with other bytes get the keys of those before; the project is locked. How many."""
    keys = [entry.key for entry, _, _ in changed]
    still = known_items(session, project, keys)  # somebody may have sent the same meanwhile
    changed = [one for one in changed if still.get(one[0].key) == one[1]]
    trained = asides.displace(session, [Displaced(item.id, item.key) for _, item, _ in changed])
    returning = _returning(session, project, changed)
    if returning:
        session.execute(sa.update(Item), [{"id": number, "key": key} for key, number in returning.items()])
    items.register(session, project, [entry for entry, _, _ in changed if entry.key not in returning])
    replaced = {entry.key: item.id for entry, item, _ in changed}
    rows = known_items(session, project, list(replaced)).items()
    if rows:
        session.execute(
            sa.update(Item),
            [{"id": row.id, "replaces_id": replaced[key], "came_by": "changed"} for key, row in rows],
        )
    trained |= asides.bring_back(session, project, [*back, *returning.values()])
    if trained:
        asides.labels_changed(session, project)
    if project.score_run_id is not None and (changed or back):
        pipeline.queue_rank(session, project)
    return len(changed)


def _returning(
    session: Session, project: Project, changed: Sequence[tuple[NewItem, KnownItem, Look]]
) -> dict[str, int]:
    """By key, the items that had it before and were these bytes."""
    wanted = {(entry.key, look.content_hash) for entry, _, look in changed if look.content_hash is not None}
    query = sa.select(Item.id, Item.key, Item.content_hash).where(
        Item.project_id == project.id,
        asides.CHANGED,
        Item.content_hash.in_({content for _, content in wanted}),
    )
    found = {}
    for number, key, content in session.execute(query):
        own = key.removesuffix(f"#{public_id('i', number)}")
        if own != key and (own, content) in wanted:
            found[own] = number
    return found

"""Job import_source: a source becomes items. Each is looked at once (`Content.inspect`), so that later steps can trust
it.

A project without a modality gets that of most of its first source; what is of another kind is refused and told. Bad
files are quarantined with the reason and stop nothing. What is out of reach is left out: the job fails for it at its
end, or at once where nothing can be reached any more, and what was read stays. Importing again adds what is new, and
looks again at what was quarantined. Classes come with the `test` split only: a pool item's class is what annotators
say.
"""

import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from hashlib import blake2b
from itertools import islice
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from service.content import contents, limits_of
from service.content.contract import Content, Facts, Limits
from service.content.reader import ItemBytes
from service.content.sources import Candidate, Listing, list_source
from service.errors import (
    BadItem,
    ImportIncomplete,
    ShortlistError,
    SourceNotAllowed,
    SourceUnreachable,
    SourceUnreadable,
)
from service.store import modalities, planner_stats
from service.store.jobs import progressed
from service.store.pipeline import queue_score_new_items
from service.store.project_settings import ProjectSettings
from service.store.shuffle import shuffle_position
from service.store.tables import Item, Project, Source
from worker.errors import JobFailed
from worker.jobs.context import JobContext

_CHUNK = 256  # items a transaction
_AWAY = 32  # items in a row that are out of reach: the source is, and no more are tried


def run(context: JobContext) -> dict[str, Any]:
    with context.read() as session:
        source = session.get_one(Source, context.job.payload["source_id"])
        project = session.get_one(Project, source.project_id)
    item_bytes = ItemBytes(context.settings)
    listing = list_source(source.uri, item_bytes, source.label_column, _content(project))
    if listing.content is None and listing.tell() is None:
        raise JobFailed(_nothing_found(source, listing, *contents().values()))
    content = _tell(context, project, listing)
    importing = _Import(context, source, project, listing, item_bytes, content)
    try:
        counts = importing.run()
    except ShortlistError:
        if importing.counts["added"]:  # another import would know these, and not have them scored
            with context.publish() as session:
                queue_score_new_items(session, session.get_one(Project, source.project_id))
        raise
    if not any(counts.values()):
        raise JobFailed(_nothing_found(source, listing, content))
    result = counts | {
        "ignored": listing.ignored, "refused": listing.refused, "refusals": listing.refusals,
    }  # fmt: skip
    with context.finish(result) as session:
        if counts["added"]:
            queue_score_new_items(session, session.get_one(Project, source.project_id))
    return result


def _content(project: Project) -> Content | None:
    """None where the source is to tell."""
    if project.modality is None:
        return None
    content = contents().get(project.modality)
    if content is None:
        raise JobFailed(
            f"This worker knows no {project.modality} items. Update it, then import the source again."
        )
    return content


def _tell(context: JobContext, project: Project, listing: Listing) -> Content:
    """The content of the project's items, which the listing told where nobody had."""
    assert listing.content is not None
    if project.modality is None:
        with context.publish() as session:
            told = modalities.tell(session, project.id, listing.content.name)
        listing.content = contents()[told]  # somebody may have registered items meanwhile
    return listing.content


def _nothing_found(source: Source, listing: Listing, *wanted: Content) -> str:
    if listing.refused:
        return f"Nothing could be imported from {source.uri!r}. {listing.refusals[0]}"
    kinds = " and no ".join(f"{content.name}s" for content in wanted)
    formats = ", ".join(name for content in wanted for name in content.formats)
    sentence = f"There are no {kinds} in {source.uri!r} ({formats})."
    if listing.ignored:
        sentence += (
            f" {listing.ignored} other files were left out: import Parquet and manifests by their own path."
        )
    return sentence


@dataclass(frozen=True)
class _Look:
    """The result of looking at a candidate."""

    content_hash: str | None = None
    facts: Facts | None = None
    reason: str | None = None  # why it is quarantined

    def columns(self) -> dict[str, Any]:
        return {
            "content_hash": self.content_hash,
            "facts": self.facts,
            "quarantine_reason": self.reason,
            "state": "quarantined" if self.reason else "available",
        }


def _look(found: Candidate, item_bytes: ItemBytes, content: Content, limits: Limits) -> _Look:
    """Raises `SourceUnreachable`."""
    content_hash = None
    try:
        data = item_bytes.read(found.uri) if found.data is None else found.data
        content_hash = blake2b(data, digest_size=16).hexdigest()
        facts = content.inspect(data, limits)
    except SourceUnreachable:
        raise
    except (BadItem, SourceNotAllowed, SourceUnreadable) as error:
        return _Look(content_hash, reason=str(error.fields.get("reason", error)))
    return _Look(content_hash, facts)


def _is_text(text: str) -> bool:
    """No lone surrogates (file names of another encoding), no NUL: neither database stores them."""
    return not any(letter == "\0" or "\ud800" <= letter <= "\udfff" for letter in text)


class _Import:
    """The counts end up on the source's row; run again after an interruption, they come out the same."""

    def __init__(
        self,
        context: JobContext,
        source: Source,
        project: Project,
        listing: Listing,
        item_bytes: ItemBytes,
        content: Content,
    ) -> None:
        self.context = context
        self.source = source
        self.classes = frozenset(project.classes)
        self.seed = ProjectSettings.model_validate(project.settings).seed
        self.listing = listing
        self.kind = f"{content.name}s"
        limits = limits_of(context.settings)
        self.decode = partial(_look, item_bytes=item_bytes, content=content, limits=limits)
        self.counts = {"added": 0, "known": 0, "quarantined": 0}
        self.out_of_reach: ImportIncomplete | None = None
        self.misses = 0  # items in a row that were out of reach

    def run(self) -> dict[str, int]:
        """Raises `ImportIncomplete` once all is imported that can be."""
        total, seen = self.listing.total(), 0
        candidates = map(self._keyed, self.listing)
        with ThreadPoolExecutor(self.context.settings.threads or os.cpu_count()) as threads:
            while self.misses < _AWAY and (chunk := list(islice(candidates, _CHUNK))):
                seen += len(chunk)
                self._take(list(self._acceptable(chunk)), threads)
                of_all = f" of {total:,}" if total else ""
                self.context.report(min(1.0, seen / total) if total else 0.0, f"{seen:,}{of_all} {self.kind}")
        if self.counts["added"] >= planner_stats.MANY_ROWS:
            with self.context.publish() as session:
                planner_stats.refresh(session, "items")
        if self.out_of_reach is not None:
            raise self.out_of_reach
        return self.counts

    def look(self, found: Candidate) -> _Look | None:
        """None where the item is out of reach."""
        if self.misses >= _AWAY:
            return None
        try:
            look = self.decode(found)
        except SourceUnreachable as error:
            self.misses += 1
            self.out_of_reach = ImportIncomplete(key=found.key, reason=error.fields["reason"])
            return None
        self.misses = 0
        return look

    def _keyed(self, found: Candidate) -> Candidate:
        """Folders of the pool and of the test split often use the same names: `cat/0001.png` is in both."""
        if self.source.split == "pool" or found.has_own_key:
            return found
        return replace(found, key=f"test/{found.key}")

    def _acceptable(self, chunk: Iterable[Candidate]) -> Iterator[Candidate]:
        """Without repeats, names that no database takes, and test items without a class of the project."""
        keys: set[str] = set()
        for found in chunk:
            if not _is_text(found.key + found.uri):
                self.listing.refuse(f"{found.key!r}: its name is not valid Unicode text; rename it.")
            elif found.key in keys:
                self.listing.refuse(f"{found.key!r}: this key appears twice.")
            elif self.source.split == "test" and found.class_name not in self.classes:
                self.listing.refuse(
                    f"{found.key!r}: a test item needs its class, by `label_column` or as first subfolder; "
                    f"{found.class_name!r} is none of the project's ({', '.join(sorted(self.classes))})."
                )
            else:
                keys.add(found.key)
                yield found

    def _take(self, chunk: list[Candidate], threads: ThreadPoolExecutor) -> None:
        with self.context.read() as session:
            keys = [found.key for found in chunk]
            query = sa.select(Item).where(Item.project_id == self.source.project_id, Item.key.in_(keys))
            items = {item.key: item for item in session.scalars(query)}
        fresh = [found for found in chunk if found.key not in items]
        looks = zip(fresh, threads.map(self.look, fresh), strict=True)
        rows = [self._row(found, look) for found, look in looks if look is not None]
        changes = [
            change for found in chunk if found.key in items for change in self._again(found, items[found.key])
        ]
        with self.context.publish() as session:
            if rows:
                self._insert(session, rows)
                progressed(session, self.context.job)
            for item_id, change in changes:
                session.execute(sa.update(Item).where(Item.id == item_id).values(change))
            session.execute(sa.update(Source).where(Source.id == self.source.id).values(self.counts))

    def _again(self, found: Candidate, item: Item) -> Iterator[tuple[int, dict[str, Any]]]:
        """Changes that a candidate makes to the item that has its key already."""
        if item.source_id == self.source.id:  # stored before this job was interrupted
            self.counts["quarantined" if item.state == "quarantined" else "added"] += 1
        elif item.split != self.source.split:
            self.listing.refuse(f"{found.key!r} is in the {item.split} split already.")
        elif item.state != "quarantined" and item.uri == found.uri:
            self.counts["known"] += 1
        elif (look := self.look(found)) is not None:
            yield from self._changes(found, item, look)

    def _changes(self, found: Candidate, item: Item, look: _Look) -> Iterator[tuple[int, dict[str, Any]]]:
        if item.state == "quarantined":
            self.counts["known" if look.reason else "added"] += 1
            if not look.reason:  # it has been repaired
                yield item.id, {"uri": found.uri, "source_id": self.source.id, **look.columns()}
        elif item.content_hash is not None and look.content_hash == item.content_hash:
            self.counts["known"] += 1
            yield item.id, {"uri": found.uri}  # it has moved
        else:
            self.listing.refuse(
                f"{found.key!r} is the key of another item already, at {item.uri!r}: import the folder above "
                "both, or a manifest or Parquet file with a column `key`."
            )

    def _row(self, found: Candidate, look: _Look) -> dict[str, Any]:
        return {
            "project_id": self.source.project_id,
            "source_id": self.source.id,
            "key": found.key,
            "uri": found.uri,
            "split": self.source.split,
            "shuffle": shuffle_position(self.seed, found.key),
            "class_name": found.class_name if self.source.split == "test" else None,
            **look.columns(),
        }

    def _insert(self, session: Session, rows: list[dict[str, Any]]) -> None:
        """Insert new items; one that somebody else registered under the same key meanwhile stays as it is."""
        dialect = postgresql if session.get_bind().dialect.name == "postgresql" else sqlite
        insert = dialect.insert(Item).on_conflict_do_nothing(index_elements=["project_id", "key"])
        states = session.scalars(insert.returning(Item.state), rows).all()
        bad = states.count("quarantined")
        self.counts["quarantined"] += bad
        self.counts["added"] += len(states) - bad
        self.counts["known"] += len(rows) - len(states)

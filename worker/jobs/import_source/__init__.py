"""Job import_source: a source becomes items. Each is looked at once (`Content.inspect`), so that later steps can trust
it.

A project without a modality gets that of most of its first source; what is of another kind is refused and told. Bad
files are quarantined with the reason and stop nothing. What is out of reach is left out: the job fails for it at its
end, or at once where nothing can be reached any more, and what was read stays. Classes come with the `test` split only:
a pool item's class is what annotators say.

An item is its bytes (docs/decisions/0023-an-item-is-its-bytes.md). Importing again compares what is found with what is
stored. Each row or file is exactly one of

    added        no item had its key, nor its bytes under a key that is gone
    known        the item of its key has its bytes
    changed      its key has other bytes now: the item that had the key is put aside, with its labels; a new one has it
    moved        its bytes are those of an item whose key is gone, or has other bytes: that item gets the new key
    quarantined  new, and cannot be read or decoded
    refused      with a sentence that says why
    ignored      no such item

and what earlier imports of the same place found and this one did not is put aside (`missing`), unless that is more than
half of it. Whether a key is gone is known once all was seen: what may have moved is decided last (`late`).
"""

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from service.content import contents, limits_of
from service.content.contract import Content
from service.content.listing import Candidate, Listing
from service.content.reader import ItemBytes, place_as_text
from service.content.sources import list_source
from service.errors import ImportIncomplete, ShortlistError, SourceUnreachable
from service.store import asides, class_sets, modalities, pipeline, planner_stats
from service.store.asides import Displaced
from service.store.class_names import ClassNames
from service.store.jobs import progressed
from service.store.pipeline import queue_score_new_items
from service.store.project_settings import ProjectSettings
from service.store.shuffle import shuffle_position
from service.store.tables import Item, Label, Project, Reservation, Source
from worker.errors import JobFailed, Unsuited
from worker.jobs.context import JobContext
from worker.jobs.import_source import renamed
from worker.jobs.import_source.known_items import KnownItem, KnownItems
from worker.jobs.import_source.late import Late
from worker.jobs.import_source.looks import Look, Looker
from worker.modalities import modalities as decodable

_CHUNK = 256  # items a transaction
_AWAY = 32  # items in a row that are out of reach: the source is, and no more are tried
_REASONS_TOLD = 5  # the commonest, why items are quarantined
# Names and numbers in a reason: "only the path 'a.png'" and "only the path 'b.png'" are one kind of it.
_PARTICULARS = re.compile(r"'[^']*'|\"[^\"]*\"|\d[\d.,]*")
_KINDS_OF_REASONS = 1_000  # whatever a decoder may say, a pool of broken files does not fill the memory
_OTHER_REASONS = "other reasons, which the items say"


def run(context: JobContext) -> dict[str, Any]:
    with context.read() as session:
        source = session.get_one(Source, context.job.payload["source_id"])
        project = session.get_one(Project, source.project_id)
    item_bytes = ItemBytes(context.settings)
    listing = list_source(source.uri, item_bytes, source.label_column, _content(project))
    if listing.content is None and listing.tell() is None:
        raise JobFailed(_nothing_found(source, listing, *contents().values()))
    content = _tell(context, project, listing)
    renamed.follow(context, source, item_bytes)
    importing = _Import(context, source, project, listing, item_bytes, content)
    try:
        importing.run()
    except (ShortlistError, JobFailed):
        # Another import would know what came, and not have it scored.
        with context.publish() as session:
            importing.store_counts(session)
            importing.queue_what_follows(session)
        raise
    if not any(importing.counts.values()):
        raise JobFailed(_nothing_found(source, listing, content))
    with context.finish(importing.result()) as session:
        importing.store_counts(session)
        importing.queue_what_follows(session)
    return importing.result()


def _content(project: Project) -> Content | None:
    """None where the source is to tell. Raises `Unsuited`."""
    if missing := sorted(modalities.needed_for(project) - decodable().keys()):
        raise Unsuited(
            f"This worker knows no items of modality {missing[0]!r}, or lacks what decodes them: try "
            f"`pip install 'shortlist[{missing[0]}]'`.",
            missing=[f"modality:{name}" for name in missing],
        )
    return modalities.content_of(project)


def _tell(context: JobContext, project: Project, listing: Listing) -> Content:
    """The content of the project's items, which the listing told where nobody had."""
    assert listing.content is not None
    if project.modality is None:
        with context.publish() as session:
            modalities.tell(session, project.id, listing.content.name)
            project = session.get_one(Project, project.id)
        listing.content = _content(project)  # somebody may have registered items meanwhile
        assert listing.content is not None
    return listing.content


def _nothing_found(source: Source, listing: Listing, *wanted: Content) -> str:
    if listing.refused:
        return f"Nothing could be imported from {source.uri!r}. {listing.refusals[0]}"
    if listing.content is None and (columns := listing.columns()):
        return (
            f"{source.uri!r} has no column of items. Its columns are {', '.join(columns)}. Name the one with texts "
            "`text`; that with images `image`, with their bytes in it, as Parquet; or write a CSV or JSONL manifest "
            "with a column `path` that names files."
        )
    *others, last = (f"{content.name}s" for content in wanted)
    kinds = f"{', '.join(others)} or {last}" if others else last
    formats = ", ".join(name for content in wanted for name in content.formats)
    sentence = f"There are no {kinds} in {source.uri!r} ({formats})."
    if listing.ignored:
        sentence += (
            f" {listing.ignored} other files were left out: import Parquet and manifests by their own path."
        )
    return sentence


@dataclass
class _Plan:
    """The changes of one transaction, in the order they are made."""

    displaced: list[Displaced] = field(default_factory=list)
    updates: list[dict[str, Any]] = field(default_factory=list)  # of items by id
    back: list[int] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.displaced or self.updates or self.back or self.rows)


def _is_text(text: str) -> bool:
    """No lone surrogates (file names of another encoding), no NUL: neither database stores them."""
    try:
        return b"\0" not in text.encode()
    except UnicodeEncodeError:
        return False


def _shown(class_name: str | None) -> str:
    """For sentences."""
    return repr(class_sets.shown(class_name) if class_name is not None else None)


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
        self.classes = list(project.classes)
        self.class_names = ClassNames(project)
        self.several = project.label_kind == "multi"
        self.seed = ProjectSettings.model_validate(project.settings).seed
        self.listing = listing
        self.kind = f"{content.name}s"
        self.item_bytes, self.uploaded_to = item_bytes, {project.id, *project.texts_from}
        self.looker = Looker(item_bytes, content, limits_of(context.settings))
        self.known_items = KnownItems(source)
        self.late = Late(context.settings.data_dir / "cache")
        self.counts = dict.fromkeys(("added", "known", "changed", "moved", "quarantined"), 0)
        self.missing = 0
        self.reasons: Counter[str] = Counter()  # why items are quarantined, by the kind of the reason …
        self.examples: dict[str, str] = {}  # … with the first of each kind
        self.seen: set[int] = set()  # items that were found, by id
        self.again = False  # the place was imported before
        self.out_of_reach: ImportIncomplete | None = None
        self.misses = 0  # items in a row that were out of reach

    def run(self) -> None:
        """Raises `ImportIncomplete` once all is imported that can be; `JobFailed` where most of the source is gone."""
        with self.context.read() as session:
            self.again = self.known_items.any_of_place(session)
        total, seen = self.listing.total(), 0
        candidates = map(self._keyed, self.listing)
        with ThreadPoolExecutor(self.context.settings.threads or os.cpu_count()) as threads:
            while self.misses < _AWAY and (chunk := list(islice(candidates, _CHUNK))):
                seen += len(chunk)
                self._take(chunk, threads)
                of_all = f" of {total:,}" if total and seen <= total else ""  # a file may hold several
                self.context.report(min(1.0, seen / total) if total else 0.0, f"{seen:,}{of_all} {self.kind}")
        if self.out_of_reach is not None:
            raise self.out_of_reach
        for late in self.late.chunks(_CHUNK):
            self._take_late(late)
        if self.counts["added"] >= planner_stats.MANY_ROWS:
            with self.context.publish() as session:
                planner_stats.refresh(session, "items")
        if self.again and self.listing.complete:
            self._put_missing_aside()

    def result(self) -> dict[str, Any]:
        told = self.reasons.most_common(_REASONS_TOLD)
        return self._all_counts() | {
            "refusals": self.listing.refusals,
            "quarantine_reasons": [{"reason": self.examples[kind], "items": count} for kind, count in told],
        }

    def _all_counts(self) -> dict[str, int]:
        listing = self.listing
        return self.counts | {"refused": listing.refused, "ignored": listing.ignored, "missing": self.missing}

    def store_counts(self, session: Session) -> None:
        update = sa.update(Source).where(Source.id == self.source.id)
        session.execute(update.values(self._all_counts()))

    def queue_what_follows(self, session: Session) -> None:
        if self.counts["added"] or self.counts["changed"]:
            queue_score_new_items(session, session.get_one(Project, self.source.project_id))

    def look(self, pair: tuple[Candidate, KnownItem | None]) -> Look | None:
        """None where the item is out of reach."""
        if self.misses >= _AWAY:
            return None
        found, item = pair
        try:
            look = self.looker.look(found, item)
        except SourceUnreachable as error:
            self.misses += 1
            self.out_of_reach = ImportIncomplete(key=found.key, reason=error.fields["reason"])
            return None
        self.misses = 0
        return look

    def _keyed(self, found: Candidate) -> Candidate:
        """Folders of the pool and of the test split often use the same names: `cat/0001.png` is in both."""
        own = self.source.split == "pool" or found.has_own_key
        key = found.key if own else f"test/{found.key}"
        class_name = found.class_name
        if self.source.split == "test" and class_name is not None:
            class_name = self._called_now(class_name)
        uri = self.item_bytes.as_stored(place_as_text(found.uri), self.uploaded_to)
        return replace(found, key=key, uri=uri, class_name=class_name)

    def _called_now(self, class_name: str) -> str | None:
        """The class of a test item, whatever it is called there; where an item has several, their set. A folder says of
        one class that it is there, and of no other that it is not: this is no set.
        """
        if not self.several:
            return self.class_names.or_same(class_name)
        if self.listing.by_folders:
            return None
        is_one = self.class_names.now(class_name) is not None
        names = [class_name] if is_one else class_sets.in_cell(class_name)
        return self.class_names.text_now(class_sets.joined(names))

    def _are_known(self, class_name: str) -> bool:
        return all(self.class_names.now(name) is not None for name in class_sets.classes_in(class_name))

    def _wanted(self, found: Candidate) -> str:
        """A sentence for a test item without classes of the project: it lacks them."""
        has, known = _shown(found.class_name), ", ".join(sorted(self.classes))
        if self.several:
            return (
                f"{found.key!r}: a test item needs its classes, by `label_column`: a list, or names between semicolons "
                f"([] where nothing is there); {has} is not of the project's ({known})."
            )
        return (
            f"{found.key!r}: a test item needs its class, by `label_column` or as first subfolder; "
            f"{has} is none of the project's ({known})."
        )

    def _take(self, chunk: list[Candidate], threads: ThreadPoolExecutor) -> None:
        keys = {found.key for found in chunk if _is_text(found.key)}
        with self.context.read() as session:
            known = self.known_items.by_key(session, keys)
        accepted = list(self._acceptable(chunk, known))
        looked = list(zip(accepted, threads.map(self.look, accepted), strict=True))
        elsewhere = self._elsewhere([(item, look) for (_, item), look in looked if look is not None])
        plan = _Plan()
        for (found, item), look in looked:
            if item is not None:
                self.seen.add(item.id)
            if look is None:
                continue
            if look.content_hash in elsewhere and (item is None or self._is_changed(found, item, look)):
                if item is not None:
                    self.seen.discard(item.id)  # its bytes may turn up under another key
                self.late.add(found, look)
            else:
                self._decide(plan, found, item, look)
        self._write(plan)

    def _acceptable(
        self, chunk: Iterable[Candidate], known: dict[str, KnownItem]
    ) -> Iterator[tuple[Candidate, KnownItem | None]]:
        """Without repeats, names that no database takes, and test items without a class, or with a second one."""
        classes: dict[str, str | None] = {}  # by key, of this chunk
        taken: set[int] = set()  # items, by this chunk
        for found in chunk:
            if not _is_text(found.key + found.uri):
                self.listing.refuse(f"{found.key!r}: its name is not valid Unicode text; rename it.")
                continue
            item = known.get(found.key)
            if item is not None and item.key != found.key and (item.id in self.seen or item.id in taken):
                item = None  # another one, though it reads the same
            if found.key in classes or (item is not None and item.id in self.seen):
                before = classes.get(found.key) or (item.class_name if item is not None else None)
                self.listing.refuse(self._repeated(found, before))
            elif self.source.split == "test" and (
                found.class_name is None or not self._are_known(found.class_name)
            ):
                self.listing.refuse(self._wanted(found))
                if item is not None:
                    self.seen.add(item.id)  # it is not missing
            else:
                classes[found.key] = found.class_name
                if item is not None:
                    taken.add(item.id)
                yield found, item

    def _repeated(self, found: Candidate, class_before: str | None) -> str:
        if self.source.split == "test" and found.class_name != class_before:
            return (
                f"{found.key!r}: this key appears twice, as {_shown(class_before)} and as {_shown(found.class_name)}; "
                "a test item has one class, and keeps the first."
            )
        return f"{found.key!r}: this key appears twice."

    def _elsewhere(self, looked: Iterable[tuple[KnownItem | None, Look]]) -> set[str]:
        """Contents of items of this place that were not found so far, among those that are new under their key."""
        hashes = {
            look.content_hash
            for item, look in looked
            if look.content_hash is not None and (item is None or item.content_hash != look.content_hash)
        }
        if not self.again or not hashes:
            return set()
        with self.context.read() as session:
            found = self.known_items.by_content(session, hashes)
        return {content for content, items in found.items() if any(one.id not in self.seen for one in items)}

    def _is_changed(self, found: Candidate, item: KnownItem, look: Look) -> bool:
        """True if the item's key has other bytes now, in the place where it had its own."""
        if look.same or item.split != self.source.split or item.content_hash in (None, look.content_hash):
            return False
        return (item.mine or item.uri == found.uri) and not self._was_never_good(item)

    def _was_never_good(self, item: KnownItem) -> bool:
        """Quarantined since it came, so that nobody labeled it or holds it: it may be repaired in place."""
        if not (item.bad and item.fresh):
            return False
        with self.context.read() as session:
            used = (
                sa.exists().where(Label.item_id == item.id),
                sa.exists().where(Reservation.item_id == item.id),
            )
            return not session.scalar(sa.select(sa.or_(*used)))

    def _decide(self, plan: _Plan, found: Candidate, item: KnownItem | None, look: Look) -> None:
        if look.reason is not None:
            kind = _PARTICULARS.sub("…", look.reason)
            if kind not in self.examples and len(self.examples) >= _KINDS_OF_REASONS:
                kind = _OTHER_REASONS
            self.reasons[kind] += 1
            self.examples.setdefault(kind, look.reason if kind != _OTHER_REASONS else kind)
        if item is None:
            plan.rows.append(self._row(found, look, came_by="added"))
        elif item.split != self.source.split:
            self.listing.refuse(f"{found.key!r} is in the {item.split} split already.")
        elif self.source.split == "test" and item.class_name not in (None, found.class_name):
            self.listing.refuse(
                f"{found.key!r} is a test item of class {_shown(item.class_name)} already; "
                f"{_shown(found.class_name)} would be a second one."
            )
        elif look.content_hash is None and not item.bad:  # as a manifest's file that is gone
            self.seen.discard(item.id)
            self.listing.refuse(f"{found.key!r} cannot be read any more: {look.reason}.")
        elif item.bad and (item.content_hash in (None, look.content_hash) or self._was_never_good(item)):
            self._looked_again(plan, found, item, look)
        elif look.same or item.content_hash == look.content_hash:
            self._known(plan, found, item, look)
        elif item.content_hash is None and item.uri == found.uri and look.reason is None:
            self._known(plan, found, item, look)  # registered by its place alone; nobody had read it
        elif self._is_changed(found, item, look):
            plan.displaced.append(Displaced(item.id, item.key))
            plan.rows.append(self._row(found, look, came_by="changed", replaces_id=item.id))
        else:
            self.listing.refuse(
                f"{found.key!r} is the key of another item already, at {item.uri!r}: import the folder above "
                "both, or a manifest or Parquet file with a column `key`."
            )

    def _known(self, plan: _Plan, found: Candidate, item: KnownItem, look: Look) -> None:
        values: dict[str, Any] = {}
        if item.uri != found.uri:
            values["uri"] = found.uri
        if item.source_id is None or (values and not item.mine):
            values |= {"source_id": self.source.id, "came_by": "known"}
        if look.stamp is not None and look.stamp != item.stamp:
            values["stamp"] = look.stamp
        if item.content_hash is None:
            values |= {"content_hash": look.content_hash, "facts": look.facts}
        if values:
            plan.updates.append({"id": item.id, **values})
        if item.state in asides.ASIDE:
            plan.back.append(item.id)
        self._count(item)

    def _count(self, item: KnownItem) -> None:
        """Items that were stored before this job was interrupted count as they did then."""
        if item.source_id != self.source.id:
            self.counts["known"] += 1
        elif item.state == "quarantined" and item.came_by not in ("changed", "moved"):
            self.counts["quarantined"] += 1
        else:
            self.counts[item.came_by or "added"] += 1

    def _looked_again(self, plan: _Plan, found: Candidate, item: KnownItem, look: Look) -> None:
        """It was quarantined: it has been repaired, or is as bad as it was."""
        values = {"id": item.id, "uri": found.uri, **look.columns()}
        if look.reason is None:
            plan.updates.append(values | {"source_id": self.source.id, "came_by": "added"})
            self.counts["added"] += 1
        else:
            if (item.state, item.content_hash, item.uri) != ("quarantined", look.content_hash, found.uri):
                plan.updates.append(values)
            self._count(item)

    def _row(self, found: Candidate, look: Look, **came: Any) -> dict[str, Any]:
        return {
            "project_id": self.source.project_id,
            "source_id": self.source.id,
            "key": found.key,
            "uri": found.uri,
            "split": self.source.split,
            "shuffle": shuffle_position(self.seed, found.key),
            "class_name": found.class_name if self.source.split == "test" else None,
            "replaces_id": None,
            **came,
            **look.columns(),
        }

    def _take_late(self, chunk: list[tuple[Candidate, Look]]) -> None:
        """Candidates with the bytes of items that may be gone: where one is, it has moved."""
        with self.context.read() as session:
            known = self.known_items.by_key(session, {found.key for found, _ in chunk})
            known = {key: one for key, one in known.items() if one.key == key or one.id not in self.seen}
            hashes = {look.content_hash for _, look in chunk if look.content_hash is not None}
            holders = self.known_items.by_content(session, hashes) if self.listing.complete else {}
        taken = {key for key, item in known.items() if item.id in self.seen}
        plan = _Plan()
        for found, look in chunk:
            item = known.get(found.key)
            if found.key in taken:
                self.listing.refuse(self._repeated(found, item.class_name if item is not None else None))
                continue
            taken.add(found.key)
            if item is not None:
                plan.displaced.append(Displaced(item.id, item.key))
            replaces = item.id if item is not None else None
            gone = (one for one in holders.get(str(look.content_hash), ()) if one.id not in self.seen)
            moved = next(gone, None)
            if moved is None:
                came_by = "added" if item is None else "changed"
                plan.rows.append(self._row(found, look, came_by=came_by, replaces_id=replaces))
                continue
            self.seen.add(moved.id)
            self.counts["moved"] += 1
            values = {"key": found.key, "uri": found.uri, "source_id": self.source.id, "came_by": "moved"}
            values["quarantine_reason"] = look.reason
            if moved.state == "quarantined" and look.reason is None:
                values["state"] = "available"
            if self.source.split == "test":
                values["class_name"] = found.class_name
            plan.updates.append({"id": moved.id, "stamp": look.stamp, "replaces_id": replaces, **values})
            plan.back.append(moved.id)
        self._write(plan)

    def _write(self, plan: _Plan) -> None:
        if not plan:
            return
        with self.context.publish() as session:
            if plan.displaced or plan.back:
                project = self._locked(session)
                trained = asides.displace(session, plan.displaced) if plan.displaced else False
            if plan.updates:
                self._free_keys(session, plan.updates)
                session.execute(sa.update(Item), plan.updates)
            if plan.displaced or plan.back:
                trained |= asides.bring_back(session, project, plan.back)
                self._others_are_served(session, project, trained)
            if plan.rows:
                self._insert(session, plan.rows)
            progressed(session, self.context.job)
            self.store_counts(session)

    def _free_keys(self, session: Session, updates: list[dict[str, Any]]) -> None:
        """Items that move in a row, each to the key of the next, would meet: they let go of their keys first."""
        moving = [{"id": one["id"], "key": f"#moving-{one['id']}"} for one in updates if "key" in one]
        if moving:
            session.execute(sa.update(Item), moving)

    def _locked(self, session: Session) -> Project:
        return session.get_one(Project, self.source.project_id, with_for_update={"key_share": True})

    def _others_are_served(self, session: Session, project: Project, trained: bool) -> None:
        """Items went or came back: what waits for them is queued with it."""
        if trained:
            asides.labels_changed(session, project)
        if project.score_run_id is not None:
            queue_score_new_items(session, project)
            pipeline.queue_rank(session, project)

    def _insert(self, session: Session, rows: list[dict[str, Any]]) -> None:
        """Insert new items; one that somebody else registered under the same key meanwhile stays as it is."""
        dialect = postgresql if session.get_bind().dialect.name == "postgresql" else sqlite
        insert = dialect.insert(Item).on_conflict_do_nothing(index_elements=["project_id", "key"])
        stored = session.execute(insert.returning(Item.id, Item.state, Item.came_by), rows).all()
        for number, state, came_by in stored:
            self.seen.add(number)
            self.counts["quarantined" if state == "quarantined" and came_by == "added" else came_by] += 1
        self.counts["known"] += len(rows) - len(stored)

    def _put_missing_aside(self) -> None:
        """Put aside the items that earlier imports of this place found, and this one did not."""
        gone, before = [], 0
        with self.context.read() as session:
            for number, is_new in self.known_items.live_of_place(session):
                before += not is_new
                if number not in self.seen:
                    gone.append(number)
        if 2 * len(gone) > before and not self.context.job.payload.get("accept_missing"):
            raise JobFailed(
                f"{len(gone):,} of the {before:,} items that earlier imports found in {self.source.uri!r} are not "
                "there any more. As that is more than half, nothing was put aside: see that it is mounted, and "
                "the right place. What is new was imported. If they are gone for good, import it again with "
                '"accept_missing": true (POST …/sources), or `shortlist up --accept-missing`.'
            )
        for start in range(0, len(gone), _CHUNK):
            with self.context.publish() as session:
                project = self._locked(session)
                trained = asides.put_missing_aside(session, gone[start : start + _CHUNK])
                self._others_are_served(session, project, trained)
        with self.context.read() as session:
            self.missing = self.known_items.missing(session)

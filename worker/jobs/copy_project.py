"""Job copy_project: fill a new, paused project with the items, and the labels, of another; then it is active.

A few thousand items a transaction, each with its labels and with the source locked, so that what is copied fits
together while annotators go on labeling there. Run again after an interruption, it copies what is missing.
Labels keep their arm and time; they belong to round 0, before the copy's first.
"""

from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session, aliased

from service.store import asides, pipeline
from service.store.asides import ASIDE
from service.store.tables import Item, Label, Project, Round, ScoreRun, Table
from worker.errors import JobFailed
from worker.jobs.context import JobContext

_CHUNK = 2_000  # items a transaction; annotators of the source wait for one

_SAME_ITEM = (
    "key",
    "uri",
    "split",
    "shuffle",
    "content_hash",
    "facts",
    "quarantine_reason",
    "meta",
    "gold",
)
_SAME_LABEL = (
    "annotator",
    "revision",
    "current",
    "used",
    "class",
    "said",
    "skip",
    "arm",
    "outcome",
    "duration_ms",
    "annotation",
    "created_at",
)


def run(context: JobContext) -> dict[str, Any]:
    source_id, with_labels = context.job.payload["from"], context.job.payload["labels"]
    with context.read() as session:
        total = session.scalar(sa.select(sa.func.count()).where(Item.project_id == source_id)) or 0
    copied, after = 0, 0
    while True:
        with context.publish() as session:
            source = session.get(Project, source_id, with_for_update={"key_share": True})
            if source is None:
                raise JobFailed("The project that was to be copied has been deleted. Delete the copy, too.")
            numbers = _next_items(session, source, after)
            if numbers:
                copy = _Copy(session, source, session.get_one(Project, context.job.project_id), numbers)
                copy.items(with_labels)
                if with_labels:
                    copy.labels()
        if not numbers:
            break
        copied, after = copied + len(numbers), numbers[-1]
        context.report(copied / max(copied, total), f"{copied:,} of {total:,} items")
    with context.finish({"items": copied}) as session:
        _activate(session, session.get_one(Project, context.job.project_id), source_id)
    return {"items": copied}


def _copied(old: type[Item], new: type[Item], project: Project) -> sa.ColumnElement[bool]:
    """True of an item and its copy. Meanwhile an import of the source may give a key to other bytes, which are another
    item, and a scoring may tell the hash of one that was copied without.
    """
    same_bytes = new.content_hash.is_not_distinct_from(old.content_hash)
    told_since = sa.and_(new.content_hash.is_(None), new.created_at == old.created_at)
    return sa.and_(new.project_id == project.id, new.key == old.key, sa.or_(same_bytes, told_since))


def _next_items(session: Session, source: Project, after: int) -> list[int]:
    query = sa.select(Item.id).where(Item.project_id == source.id, Item.id > after).order_by(Item.id)
    return list(session.scalars(query.limit(_CHUNK)))


class _Copy:
    """One transaction's part: the source's items with these numbers."""

    def __init__(self, session: Session, source: Project, project: Project, numbers: list[int]) -> None:
        self.session, self.project = session, project
        self.old, self.new = aliased(Item), aliased(Item)
        self.part = sa.and_(self.old.project_id == source.id, self.old.id.between(numbers[0], numbers[-1]))
        self.pair = _copied(self.old, self.new, project)

    def items(self, decided: bool) -> None:
        """`decided`: as the labels made them; otherwise open again, but for gold items and the test split."""
        old = self.old
        kept = sa.or_(old.gold, old.split == "test")
        keeps_state = sa.or_(kept, old.state.in_(("quarantined", "withdrawn", *ASIDE)))
        columns: dict[str, Any] = {name: getattr(old, name) for name in _SAME_ITEM}
        columns |= {
            "project_id": sa.literal(self.project.id),
            "state": old.state if decided else sa.case((keeps_state, old.state), else_="available"),
            "class": old.class_name if decided else sa.case((kept, old.class_name), else_=None),
            "asked_again": old.asked_again if decided else sa.literal(0),
            "created_at": old.created_at,
        }
        self._insert(Item, columns, sa.select(*columns.values()).where(self.part))

    def labels(self) -> None:
        label = aliased(Label)
        columns: dict[str, Any] = {
            name: getattr(label, "class_name" if name == "class" else name) for name in _SAME_LABEL
        }
        columns |= {
            "project_id": sa.literal(self.project.id),
            "item_id": self.new.id,
            "round_number": sa.literal(0),
        }
        rows = (
            sa.select(*columns.values())
            .select_from(label)
            .join(self.old, self.old.id == label.item_id)
            .join(self.new, self.pair)
            .where(self.part)
            .order_by(label.id)
        )
        self._insert(Label, columns, rows)
        self._point_at_deciding_labels()

    def _point_at_deciding_labels(self) -> None:
        old_label, new_label = aliased(Label), aliased(Label)
        deciding = (
            sa.select(self.new.id, new_label.id)
            .join(self.old, self.pair)
            .join(old_label, old_label.id == self.old.decided_by)
            .join(
                new_label,
                sa.and_(
                    new_label.item_id == self.new.id,
                    new_label.annotator == old_label.annotator,
                    new_label.revision == old_label.revision,
                ),
            )
            .where(self.part)
        )
        found = [
            {"id": item_id, "decided_by": label_id} for item_id, label_id in self.session.execute(deciding)
        ]
        if found:
            self.session.execute(sa.update(Item), found)

    def _insert(self, table: type[Table], columns: dict[str, Any], rows: sa.Select[Any]) -> None:
        on_postgresql = self.session.get_bind().dialect.name == "postgresql"
        insert = (postgresql.insert if on_postgresql else sqlite.insert)(table)
        self.session.execute(insert.from_select(list(columns), rows).on_conflict_do_nothing())


def _tell_replaced(session: Session, project: Project, source_id: int) -> None:
    """Items whose keys others took know so in the copy, too: by their key, which ends in their number, and by their
    successor.
    """
    old, new, old_before, new_before = (aliased(Item) for _ in range(4))
    successors = (
        sa.select(new.id, new_before.id)
        .select_from(old)
        .join(new, _copied(old, new, project))
        .join(old_before, old_before.id == old.replaces_id)
        .join(new_before, _copied(old_before, new_before, project))
        .where(old.project_id == source_id, old.replaces_id.is_not(None))
    )
    values = [{"id": number, "replaces_id": before} for number, before in session.execute(successors)]
    out = (
        sa.select(old.id, new.id, new.key)
        .join(new, _copied(old, new, project))
        .where(old.project_id == source_id, old.state.in_(("changed", "withdrawn")))
    )
    renamed = [(number, asides.renumbered(key, was, number)) for was, number, key in session.execute(out)]
    for update in (values, [{"id": number, "key": key} for number, key in renamed]):
        if update:
            session.execute(sa.update(Item), update)


def _activate(session: Session, project: Project, source_id: int) -> None:
    session.refresh(project, with_for_update={"key_share": True})
    _tell_replaced(session, project, source_id)
    votes = sa.select(sa.func.count()).where(
        Label.project_id == project.id, Label.current, Label.used, Label.class_name.is_not(None)
    )
    project.labels_used = session.scalar(votes) or 0
    opened = session.scalars(
        sa.select(Round).where(Round.project_id == project.id, Round.closed_at.is_(None))
    )
    opened.one().labels_before = project.labels_used
    project.state = "active"
    source = session.get(Project, source_id)
    if source is not None and source.score_run_id is not None:
        score_run = session.get_one(ScoreRun, source.score_run_id)
        if score_run.pretext_model_id is not None:
            pipeline.queue_score_pool(session, project, score_run.pretext_model_id)
        else:
            pipeline.queue_score_raw(session, project)

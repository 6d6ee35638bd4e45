"""Annotations become labels. An annotator's newest annotation of a task is their label; when it is deleted, the one
before it is, or the label is withdrawn.

What was seen is kept by number, unique id and time of the last change, so nothing is stored twice, in whatever order
and however often it is told.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, cast

import sqlalchemy as sa
from sqlalchemy.orm import Session

from service.integrations.label_studio import batch_push
from service.integrations.label_studio.client import Annotation, Task
from service.integrations.label_studio.labeling_config import LabelingConfig, NoClass, as_project_writes
from service.labeling import batches, labels
from service.labeling.labels import MAX_ANNOTATION_BYTES, Arm, NewLabel, annotation_bytes
from service.store.ids import public_id, row_number
from service.store.names import composed
from service.store.tables import Item, Project, ToolAnnotation, ToolConnection, ToolTask, utc_now

_LONGEST_NAME = 200
_LONGEST_MS = 2**31 - 1


@dataclass(frozen=True)
class _Entry:
    label: NewLabel
    row: ToolAnnotation | None  # of the annotation that the label is made of; None where it is withdrawn


def store(
    session: Session,
    project: Project,
    connection: ToolConnection,
    config: LabelingConfig,
    tasks: Sequence[Task],
    people: Mapping[int, str],
) -> int:
    """The number of labels that were looked at, as an annotation was new, changed or deleted. The tasks are registered,
    the project is locked.
    """
    numbers = [task.id for task in tasks]
    task_of = _items(session, connection, numbers)
    seen: dict[int, dict[int, ToolAnnotation]] = {number: {} for number in numbers}
    rows = sa.select(ToolAnnotation).where(
        ToolAnnotation.connection_id == connection.id, ToolAnnotation.task_id.in_(numbers)
    )
    for known in session.scalars(rows):
        seen[known.task_id][known.annotation_id] = known
    entries: list[_Entry] = []
    changes = 0
    for task in tasks:
        shown = task_of.get(task.id)
        if shown is not None:
            changes += _of_task(
                session, project, connection, config, task, people, seen[task.id], shown, entries
            )
    if connection.batch_push:  # who labels an item first takes its reservation over
        labeled = [entry.label for entry in reversed(entries) if entry.row is not None]
        to = {row_number("i", str(label.item)): label.annotator for label in labeled}
        batches.pass_on(session, project, batch_push.HOLDER, to)
    if entries:
        _, refused = labels.store_good(session, project, [entry.label for entry in entries], utc_now())
        for index, error in refused:
            row = entries[index].row
            if row is not None:
                row.refusal = str(error).rstrip(".")
    session.flush()
    return changes


def _items(session: Session, connection: ToolConnection, numbers: Sequence[int]) -> dict[int, ToolTask]:
    """The tasks that are items which may be labeled, by number."""
    query = (
        sa.select(ToolTask)
        .join(Item, Item.id == ToolTask.item_id)
        .where(ToolTask.connection_id == connection.id, ToolTask.task_id.in_(numbers), Item.split == "pool")
    )
    return {row.task_id: row for row in session.scalars(query)}


def _of_task(
    session: Session,
    project: Project,
    connection: ToolConnection,
    config: LabelingConfig,
    task: Task,
    people: Mapping[int, str],
    seen: dict[int, ToolAnnotation],
    shown: ToolTask,
    entries: list[_Entry],
) -> int:
    there = {annotation.id: annotation for annotation in task.annotations}
    changed = {}  # annotators, in the order in which they are come upon
    for number, known in seen.items():
        if number not in there:
            changed[known.annotator] = True
            session.delete(known)
    for annotation in task.annotations:
        before = seen.get(annotation.id)
        same = annotation.unique_id, annotation.updated_at
        if before is not None and (before.unique_id, before.updated_at) == same:
            continue
        if before is not None:
            changed[before.annotator] = True
        changed[_annotator(annotation, people)] = True
    for annotator in changed:
        theirs = [one for one in there.values() if _annotator(one, people) == annotator]
        theirs.sort(key=lambda one: (one.updated_at, one.id))
        earlier = any(row.annotator == annotator for row in seen.values())
        rows = [_noted(session, connection, task, one, annotator, seen.get(one.id)) for one in theirs]
        label = _label(project, config, shown, annotator, theirs[-1], rows[-1]) if theirs else None
        if label is not None:  # the newest; of the others it is kept that they were seen
            entries.append(_Entry(label, rows[-1]))
        elif earlier:  # deleted, or it says nothing any more that could be a label
            entries.append(_Entry(NewLabel(item=_item(shown), annotator=annotator), None))
    return len(changed)


def _noted(
    session: Session,
    connection: ToolConnection,
    task: Task,
    annotation: Annotation,
    annotator: str,
    row: ToolAnnotation | None,
) -> ToolAnnotation:
    if row is None:
        row = ToolAnnotation(connection_id=connection.id, annotation_id=annotation.id, task_id=task.id)
        session.add(row)
    row.unique_id, row.updated_at = annotation.unique_id, annotation.updated_at
    row.annotator, row.refusal = annotator, None
    return row


def _label(
    project: Project,
    config: LabelingConfig,
    shown: ToolTask,
    annotator: str,
    annotation: Annotation,
    row: ToolAnnotation,
) -> NewLabel | None:
    """None, and a refusal in the row, where it names no class or several, and an item has one."""
    class_name = classes = None
    if not annotation.cancelled and project.label_kind == "multi":
        classes = [as_project_writes(name, project.classes) for name in config.classes_in(annotation.result)]
    elif not annotation.cancelled:
        try:
            class_name = as_project_writes(config.class_in(annotation.result), project.classes)
        except NoClass as error:
            row.refusal = str(error)
            return None
    kept: dict[str, Any] = {
        "label_studio": {"annotation": annotation.id, "unique_id": annotation.unique_id},
        "result": annotation.result,
    }
    if (why := _why_not_kept(kept)) is not None:
        kept |= {"result": None, "left_out": why}
        row.refusal = f"its class is kept, but not what was drawn, as it {why}; that is in Label Studio"
    return NewLabel(
        item=_item(shown),
        annotator=annotator,
        class_name=class_name,
        classes=classes,
        skip="other" if annotation.cancelled else None,
        duration_ms=_milliseconds(annotation.lead_time_s),
        annotation=kept,
        created_at=_time(annotation.updated_at),
        arm=cast(Arm | None, shown.arm),
        ranking_id=shown.ranking_id,
    )


def _item(shown: ToolTask) -> str:
    return public_id("i", shown.item_id or 0)


def _why_not_kept(kept: dict[str, Any]) -> str | None:
    try:
        size = annotation_bytes(kept)
    except (ValueError, RecursionError):
        return "holds numbers, characters or a nesting that cannot be stored"
    if size > MAX_ANNOTATION_BYTES:
        return f"has {size:,} bytes and an annotation may have {MAX_ANNOTATION_BYTES:,}"
    return None


def _annotator(annotation: Annotation, people: Mapping[int, str]) -> str:
    known = people.get(annotation.by) if annotation.by is not None else None
    return composed(known or f"label-studio-{annotation.by or 'unknown'}")[:_LONGEST_NAME]


def _milliseconds(seconds: float | None) -> int | None:
    return None if seconds is None else max(0, min(round(1000 * seconds), _LONGEST_MS))


def _time(text: str) -> datetime | None:
    """Never in the future, whatever the tool's clock says."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    found = found if found.tzinfo else found.replace(tzinfo=UTC)
    return min(found.astimezone(UTC), utc_now())

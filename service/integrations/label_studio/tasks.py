"""Tasks become items: what each shows is fetched and kept here, so that the pool is there while the tool is not."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from service.content import contents
from service.content.contract import Limits
from service.content.reader import INLINE_FOLDER, content_hash_of, inline_file_uri
from service.errors import BadItem, ShortlistError
from service.integrations.label_studio.client import Task
from service.integrations.label_studio.labeling_config import LabelingConfig
from service.pool import inline_texts, items
from service.pool.items import NewItem
from service.store import asides, pipeline
from service.store.artifacts import Artifacts
from service.store.asides import Displaced
from service.store.tables import Item, Project, ToolConnection, ToolTask

MOST_GONE = 0.5  # of all tasks at once: more look like a mistake


class TooManyGone(ShortlistError):
    """{gone} of {all} tasks are not in the Label Studio project any more, or this token may not see them. Their items
    stay as they are; where they are meant to be gone, withdraw them, or delete this connection and connect again."""

    code = "too_many_gone"


@dataclass
class Fetched:
    """A task whose data is new, as an item; or the reason why it is none. pushed: the item that it was made for."""

    task: Task
    digest: str
    pushed: int | None = None
    item: NewItem | None = None
    refusal: str | None = None
    data: bytes = field(default=b"", repr=False)


def digest_of(task: Task, config: LabelingConfig) -> str:
    """Another one once the task shows something else."""
    shown = json.dumps(task.data.get(config.data_key), sort_keys=True).encode()
    return blake2b(shown, digest_size=16).hexdigest()


def known_digests(session: Session, connection_id: int, tasks: Sequence[Task]) -> dict[int, str]:
    """The digests of tasks that are known and there, by number."""
    query = sa.select(ToolTask.task_id, ToolTask.digest).where(
        ToolTask.connection_id == connection_id,
        ToolTask.task_id.in_([task.id for task in tasks]),
        ToolTask.gone.is_(False),
    )
    return dict(session.execute(query).all())


def looked_at(fetched: Fetched, data: bytes, config: LabelingConfig, limits: Limits, project_id: int) -> None:
    """The item is made of its bytes, or refused."""
    content = contents()[config.kind]
    try:
        facts = content.inspect(data, limits)
    except BadItem as error:
        fetched.refusal = error.reason.rstrip(".")
        return
    mark = content_hash_of(data)
    key, meta = _key(fetched.task.id), {"label_studio_task": fetched.task.id}
    if content.binary:
        fetched.data = data
        uri = inline_file_uri(f"{project_id}/{mark}.bin")
        fetched.item = NewItem(key, uri, meta=meta, facts=facts, content_hash=mark)
    else:
        text = data.decode(errors="replace")
        fetched.item = NewItem(key, "", meta=meta, text=text, facts=facts, content_hash=mark)


def _key(task: int) -> str:
    return f"label-studio/{task}"


def keep(artifacts: Artifacts, project: Project, fetched: Sequence[Fetched]) -> None:
    """The bytes are on the disk before the database knows of them."""
    for one in fetched:
        if one.item is not None and one.data:
            name = f"{INLINE_FOLDER}/{project.id}/{one.item.content_hash}.bin"
            if not artifacts.exists(name):
                with artifacts.writing(name) as out:
                    out.write(one.data)
            one.data = b""
    texts = [one for one in fetched if one.item is not None and one.item.text is not None]
    kept = inline_texts.keep(artifacts, project, [one.item for one in texts if one.item is not None])
    for one, item in zip(texts, kept, strict=True):
        one.item = item


def register(
    session: Session, project: Project, connection: ToolConnection, fetched: Sequence[Fetched]
) -> None:
    """Tasks that are new, or show something else than before. The project is locked."""
    if not fetched:
        return
    numbers = [one.task.id for one in fetched]
    known = {
        row.task_id: row
        for row in session.scalars(
            sa.select(ToolTask).where(ToolTask.connection_id == connection.id, ToolTask.task_id.in_(numbers))
        )
    }
    trained = _displace(session, project, [one for one in fetched if one.pushed is None])
    same = _same_bytes(session, project, [one for one in fetched if one.task.id not in known])
    same |= {one.task.id: one.pushed for one in fetched if one.pushed is not None}
    new = [one.item for one in fetched if one.item is not None and one.task.id not in same]
    if items.register(session, project, new):
        pipeline.queue_score_new_items(session, project)
    by_key = dict(
        session.execute(
            sa.select(Item.key, Item.id).where(
                Item.project_id == project.id, Item.key.in_([e.key for e in new])
            )
        ).all()
    )
    back = []
    for one in fetched:
        row = known.get(one.task.id)
        if row is None:
            row = ToolTask(connection_id=connection.id, task_id=one.task.id)
            session.add(row)
        elif row.gone and row.item_id is not None:
            back.append(row.item_id)
        number = same.get(one.task.id) or (by_key[one.item.key] if one.item is not None else None)
        if row.item_id is not None and number not in (None, row.item_id):
            session.execute(sa.update(Item).where(Item.id == number).values(replaces_id=row.item_id))
        row.item_id, row.digest, row.refusal, row.gone = number, one.digest, one.refusal, False
        row.pushed = one.pushed is not None
    session.flush()
    if back:
        trained |= asides.bring_back(session, project, back)
    if trained:
        asides.labels_changed(session, project)


def _displace(session: Session, project: Project, fetched: Sequence[Fetched]) -> bool:
    """Put aside what holds the key of a task and has other bytes: the task shows something else now, or was a task of
    another Label Studio. Whether heads trained on any.
    """
    marks = {_key(one.task.id): one.item.content_hash if one.item is not None else None for one in fetched}
    query = sa.select(Item).where(Item.project_id == project.id, Item.key.in_(list(marks)))
    displaced = [
        Displaced(item.id, item.key)
        for item in session.scalars(query)
        if item.content_hash != marks[item.key]
    ]
    return asides.displace(session, displaced) if displaced else False


def _same_bytes(session: Session, project: Project, fetched: Sequence[Fetched]) -> dict[int, int]:
    """The items that the pool has already, and no other task shows, by the new task that shows the same bytes."""
    wanted: dict[Any, int] = {}
    for one in fetched:
        if one.item is not None:
            wanted.setdefault(one.item.content_hash, one.task.id)
    query = sa.select(Item.content_hash, sa.func.min(Item.id)).where(
        Item.project_id == project.id,
        Item.content_hash.in_(list(wanted)),
        Item.split == "pool",
        Item.state.in_(("available", "done", "broken")),
        ~sa.exists().where(ToolTask.item_id == Item.id),
    )
    return {wanted[mark]: number for mark, number in session.execute(query.group_by(Item.content_hash))}


def count(session: Session, connection_id: int) -> int:
    """Tasks that are in the tool, as far as is known."""
    query = sa.select(sa.func.count()).where(
        ToolTask.connection_id == connection_id, ToolTask.gone.is_(False)
    )
    return session.scalar(query) or 0


def put_gone_aside(session: Session, project: Project, connection: ToolConnection, there: set[int]) -> bool:
    """Items of tasks that the tool has no more are missing, and keep their labels; whether `there` has tasks that are
    not known. Those that a task was made for are where they were. The project is locked. Raises `TooManyGone`.
    """
    mine = sa.select(ToolTask).where(ToolTask.connection_id == connection.id)
    rows = {row.task_id: row for row in session.scalars(mine)}
    gone = [row for number, row in rows.items() if not row.gone and number not in there]
    brought, lost = (sum(not row.pushed for row in some) for some in (rows.values(), gone))
    if lost > 10 and lost > MOST_GONE * brought:
        raise TooManyGone(gone=lost, all=brought)
    for row in gone:
        row.gone = True
    session.flush()
    # By their keys: an item of a folder, which the task merely showed, is where it was.
    keys = {row.item_id: _key(row.task_id) for row in gone}
    query = sa.select(Item.id, Item.key).where(Item.id.in_([number for number in keys if number is not None]))
    numbers = [number for number, key in session.execute(query) if key == keys[number]]
    if numbers:
        if asides.put_missing_aside(session, numbers):
            asides.labels_changed(session, project)
        if project.score_run_id is not None:
            pipeline.queue_rank(session, project)
    return bool(there - rows.keys())

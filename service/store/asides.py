"""Items that are put aside because their source changed, and that come back. Both programs know these rules.

`changed`: the item's key has other bytes now; another item has the key. `missing`: an import of its place did not find
it. Labels, class and gold stay on the item, which is its bytes: nobody is asked for it, and no head trains on it. When
its bytes are found again it is what its labels say.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.orm import Session

from service.store import item_decisions, pipeline
from service.store.ids import public_id
from service.store.project_settings import ProjectSettings
from service.store.tables import Item, Project, QueuedItem, Suspect

ASIDE = ("changed", "missing")
# Constants in the statements, not parameters, so that both databases use the partial indexes.
CHANGED = sa.text("items.state NOT IN ('available', 'done') AND items.state = 'changed'")
MISSING = sa.text("items.state NOT IN ('available', 'done') AND items.state = 'missing'")


@dataclass(frozen=True)
class Displaced:
    """An item whose key another one takes."""

    id: int
    key: str


def displace(session: Session, displaced: Sequence[Displaced]) -> bool:
    """Put items aside whose keys have other bytes now, and free the keys; whether heads trained on any. What was
    withdrawn stays so. The project is locked.
    """
    ids = [one.id for one in displaced]
    trained = _any_done(session, ids)
    state = sa.case((Item.state == "withdrawn", "withdrawn"), else_="changed")
    update = sa.update(Item).where(Item.id.in_(ids)).values(state=state)
    session.execute(update.execution_options(synchronize_session=False))
    keys = [{"id": one.id, "key": one.key + _suffix(one.id)} for one in displaced]
    session.execute(sa.update(Item), keys)
    _forget(session, ids)
    return trained


def state_when_restored(item: Item) -> str:
    """`changed` where another item took its key while it was withdrawn: there is nothing to show for it."""
    return "changed" if item.key.endswith(_suffix(item.id)) else "available"


def renumbered(key: str, before: int, number: int) -> str:
    """The key of a copy with another number, of an item that another one took the key from; else the key."""
    own = key.removesuffix(_suffix(before))
    return key if own == key else own + _suffix(number)


def had_key(item: Item, key: str) -> bool:
    """True if the key was the item's, before another one took it."""
    return item.key == key + _suffix(item.id)


def _suffix(number: int) -> str:
    """The end of the key that an item has once another took its own."""
    return f"#{public_id('i', number)}"


def put_missing_aside(session: Session, ids: Collection[int]) -> bool:
    """Put items aside that their source does not hold any more; whether heads trained on any. The project is locked."""
    trained = _any_done(session, ids)
    update = sa.update(Item).where(Item.id.in_(ids), Item.state.not_in(("withdrawn", *ASIDE)))
    session.execute(update.values(state="missing").execution_options(synchronize_session=False))
    _forget(session, ids)
    return trained


def bring_back(session: Session, project: Project, ids: Collection[int]) -> bool:
    """Items whose bytes were found again, and are what their labels say; whether heads may train on any. The project is
    locked.
    """
    items = session.scalars(sa.select(Item).where(Item.id.in_(ids), Item.state.in_(ASIDE))).all()
    overlap = ProjectSettings.model_validate(project.settings).overlap
    for item in items:
        item.state = "done" if item.gold else "quarantined" if item.quarantine_reason else "available"
    open_items = [item for item in items if item.state == "available" and item.split == "pool"]
    for labels in item_decisions.load(session, open_items).values():
        labels.item.class_name = labels.item.decided_by = None
        labels.settle(overlap)
        if labels.item.state == "available":  # labels that came while it was aside count now
            votes_before = len(labels.votes())
            labels.count_all()
            labels.settle(overlap)
            project.labels_used += len(labels.votes()) - votes_before
    session.flush()
    return any(item.state == "done" for item in items)


def labels_changed(session: Session, project: Project) -> None:
    """Labeled items were put aside or came back: the head is trained anew, or goes, where there is or may be one."""
    settings = ProjectSettings.model_validate(project.settings)
    due = project.labels_used >= settings.retrain_min_labels or project.head_id is not None
    if project.score_run_id is not None and due:
        pipeline.queue_train_head(session, project)


def _any_done(session: Session, ids: Collection[int]) -> bool:
    done = sa.select(Item.id).where(Item.id.in_(ids), Item.state == "done", Item.split == "pool")
    return session.scalar(done.limit(1)) is not None


def _forget(session: Session, ids: Collection[int]) -> None:
    """Nobody is to label them next, and none of their labels is doubted."""
    for table in (QueuedItem, Suspect):
        gone = sa.delete(table).where(table.item_id.in_(ids))
        session.execute(gone.execution_options(synchronize_session=False))

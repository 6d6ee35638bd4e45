"""The items that are kept for the control arm. Serving, ranking and measuring must agree on it, so it stands here."""

import sqlalchemy as sa
from sqlalchemy.orm import Session

from service.store.project_settings import ProjectSettings
from service.store.tables import Item

# In words that the partial index has. Withdrawn or quarantined items measure nothing.
TESTED = sa.text("items.split = 'test' AND items.state = 'available'")


def has_test_split(session: Session, project_id: int) -> bool:
    """True if there are test items that heads are measured on."""
    query = sa.select(Item.id).where(Item.project_id == project_id, TESTED)
    return session.scalar(query.limit(1)) is not None


def control_item_ids(session: Session, project_id: int, settings: ProjectSettings) -> list[int]:
    """The first K pool items in `shuffle` order, in that order; see `ProjectSettings.control_items` for K.

    Gold items are left out: people chose them, so they measure nothing. None moves up, so that the rest stays random.
    """
    tested = has_test_split(session, project_id)
    if settings.control_share(tested) == 0:
        return []
    pool = sa.select(sa.func.count()).where(Item.project_id == project_id, Item.split == "pool")
    pool_size = session.scalar(pool) or 0
    first = (
        sa.select(Item.id, Item.gold)
        .where(Item.project_id == project_id, Item.split == "pool")
        .order_by(Item.shuffle, Item.id)
        .limit(settings.control_items(pool_size, tested))
    )
    return [number for number, gold in session.execute(first) if not gold]

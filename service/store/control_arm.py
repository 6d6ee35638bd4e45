"""Which items are kept for the control arm. Serving, ranking and measuring must agree on it, so it stands here."""

import sqlalchemy as sa
from sqlalchemy.orm import Session

from service.store.project_settings import ProjectSettings
from service.store.tables import Item


def control_item_ids(session: Session, project_id: int, settings: ProjectSettings) -> list[int]:
    """The first K pool items in `shuffle` order, in that order; see `ProjectSettings.control_items` for K.

    Gold items are left out: people chose them, so they measure nothing. None moves up, so that the rest stays random.
    """
    items = sa.select(sa.func.count()).where(Item.project_id == project_id)
    has_test_split = bool(session.scalar(items.where(Item.split == "test")))
    if settings.control_share(has_test_split) == 0:
        return []
    pool_size = session.scalar(items.where(Item.split == "pool")) or 0
    first = (
        sa.select(Item.id, Item.gold)
        .where(Item.project_id == project_id, Item.split == "pool")
        .order_by(Item.shuffle, Item.id)
        .limit(settings.control_items(pool_size, has_test_split))
    )
    return [number for number, gold in session.execute(first) if not gold]

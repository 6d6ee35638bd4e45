"""The outbox of webhook events. An event is written in the transaction of what it tells: both are there or neither is.

It costs a project without webhooks one look at an index, at moments that come once a round or a job; sending is
`service.webhooks.deliverer`'s.
"""

import json
import secrets
from typing import Any, Literal, get_args

import sqlalchemy as sa
from sqlalchemy.orm import Session

from service.store.ids import public_id
from service.store.tables import Delivery, Webhook, utc_now

EventName = Literal[
    "round.closed", "round.measured", "head.promoted", "ranking.ready", "classes.changed", "job.failed"
]
EVENTS: tuple[EventName, ...] = get_args(EventName)


def tell(session: Session, project_id: int, event: EventName, data: dict[str, Any]) -> None:
    """To all webhooks of the project that chose the event. `data` is JSON and names rows by their public ids.

    None of them can be deleted until the transaction ends, as a row that refers to a deleted one would undo it.
    """
    query = sa.select(Webhook.id, Webhook.events).where(Webhook.project_id == project_id)
    for webhook_id, events in session.execute(query.with_for_update(read=True, key_share=True)).all():
        if event in events:
            add(session, webhook_id, event, {"project": public_id("p", project_id)} | data)


def add(session: Session, webhook_id: int, event: str, data: dict[str, Any]) -> Delivery:
    """To one webhook. The body is what Standard Webhooks proposes: type, timestamp, data."""
    now = utc_now()
    body = {"type": event, "timestamp": now.isoformat().replace("+00:00", "Z"), "data": data}
    delivery = Delivery(
        webhook_id=webhook_id,
        message_id=f"msg_{secrets.token_hex(16)}",
        event=event,
        body=json.dumps(body, separators=(",", ":")),
        created_at=now,
    )
    session.add(delivery)
    return delivery

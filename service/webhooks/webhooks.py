"""Webhooks of a project: made, found, listed, deleted. What they are told is in `service.store.outbox`."""

import base64
import secrets
from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.orm import Session

from service.access import keys
from service.errors import NotFound, TooManyWebhooks
from service.projects import projects
from service.settings import Settings
from service.store.ids import row_number
from service.store.outbox import EventName
from service.store.tables import Delivery, Project, Webhook
from service.webhooks import addresses

MOST = 20  # of a project


@dataclass(frozen=True)
class Report:
    """A webhook, and how many of its deliveries wait or were given up."""

    webhook: Webhook
    pending: int
    dead: int


def create(
    session: Session, project: Project, settings: Settings, *, url: str, events: Sequence[EventName]
) -> Webhook:
    """Raises `WebhookAddressRefused`, `TooManyWebhooks`, `ProjectArchived`."""
    addresses.checked_url(url, settings.webhooks_to_private_addresses, field="url")
    projects.lock_open(session, project)
    count = sa.select(sa.func.count()).where(Webhook.project_id == project.id)
    if session.scalar(count) == MOST:
        raise TooManyWebhooks(most=MOST)
    webhook = Webhook(project_id=project.id, url=url, events=list(events), nonce=secrets.token_hex(16))
    session.add(webhook)
    session.flush()
    return webhook


def secret_of(server_secret: bytes, nonce: str) -> bytes:
    """32 bytes. Derived, so that whoever reads the database cannot sign."""
    return keys.derived(server_secret, f"webhook {nonce}")


def shown(secret: bytes) -> str:
    """As the libraries of Standard Webhooks take it."""
    return f"whsec_{base64.b64encode(secret).decode()}"


def find(session: Session, project: Project, public: str) -> Webhook:
    webhook = session.get(Webhook, row_number("w", public))
    if webhook is None or webhook.project_id != project.id:
        raise NotFound(what="webhook", id=public)
    return webhook


def page(session: Session, project: Project, after: int, limit: int) -> list[Report]:
    """Oldest first."""
    query = sa.select(Webhook).where(Webhook.project_id == project.id, Webhook.id > after)
    return reports(session, list(session.scalars(query.order_by(Webhook.id).limit(limit))))


def reports(session: Session, found: list[Webhook]) -> list[Report]:
    states = (
        sa.select(Delivery.webhook_id, Delivery.state, sa.func.count())
        .where(Delivery.webhook_id.in_([each.id for each in found]))
        .where(Delivery.state.in_(("pending", "dead")))
        .group_by(Delivery.webhook_id, Delivery.state)
    )
    counts = {(webhook_id, state): count for webhook_id, state, count in session.execute(states)}
    return [
        Report(each, counts.get((each.id, "pending"), 0), counts.get((each.id, "dead"), 0)) for each in found
    ]


def delete(session: Session, webhook: Webhook) -> None:
    """With its deliveries, also those that wait."""
    session.delete(webhook)
    session.flush()

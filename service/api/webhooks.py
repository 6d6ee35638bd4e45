from datetime import datetime
from typing import Annotated, Self

from fastapi import APIRouter, Response
from pydantic import Field

from service.http.dependencies import Admin, PartsDep, ReadSession, WriteSession
from service.http.etag import ETagRoute
from service.http.schemas import Answer, Body, Cursor, Limit, Page, Text, decode_cursor, with_example
from service.projects import projects
from service.store import outbox
from service.store.ids import public_id
from service.store.outbox import EventName
from service.store.tables import Delivery
from service.webhooks import deliveries, webhooks
from service.webhooks.deliveries import State
from service.webhooks.webhooks import Report

router = APIRouter(prefix="/projects/{project_id}/webhooks", tags=["webhooks"], route_class=ETagRoute)

_URL = "https://tool.example.com/shortlist"
_EXAMPLE = {
    "id": "w_1",
    "url": _URL,
    "events": ["round.measured", "job.failed"],
    "pending": 0,
    "dead": 0,
    "created_at": "2026-01-31T12:00:00Z",
}


class NewWebhook(Body):
    """Without `events`: all of them."""

    model_config = with_example({"url": _URL, "events": ["round.measured", "job.failed"]})

    url: Annotated[Text, Field(min_length=1, max_length=2000, description="https:// or http://")]
    events: list[EventName] = Field(
        default=list(outbox.EVENTS),
        min_length=1,
        max_length=len(outbox.EVENTS),
        description="what it is told of",
    )


class WebhookAnswer(Answer):
    """A webhook without its secret."""

    model_config = with_example(_EXAMPLE)

    id: str
    url: str
    events: list[EventName]
    pending: int = Field(description="deliveries that wait, also for another attempt")
    dead: int = Field(description="deliveries that were given up")
    created_at: datetime

    @classmethod
    def of(cls, report: Report, **more: str) -> Self:
        row = report.webhook
        return cls(
            id=public_id("w", row.id),
            url=row.url,
            events=row.events,
            pending=report.pending,
            dead=report.dead,
            created_at=row.created_at,
            **more,
        )


class CreatedWebhook(WebhookAnswer):
    """`secret` is shown this once. The libraries of Standard Webhooks check signatures with it."""

    model_config = with_example(_EXAMPLE | {"secret": "whsec_…"})

    secret: str


class DeliveryAnswer(Answer):
    """An event on its way: `pending`, `delivered`, or `dead` once it was given up."""

    model_config = with_example(
        {
            "id": "msg_5f0c…",
            "event": "round.measured",
            "state": "pending",
            "attempts": 1,
            "status": 503,
            "error": "503 Service Unavailable.",
            "created_at": "2026-01-31T12:00:00Z",
            "ended_at": None,
        }
    )

    id: str = Field(description="the header `webhook-id`, the same at each attempt")
    event: str
    state: State
    attempts: int
    status: int | None = Field(description="of the newest answer")
    error: str | None = Field(description="why the newest attempt failed")
    created_at: datetime
    ended_at: datetime | None

    @classmethod
    def of(cls, row: Delivery) -> Self:
        return cls(
            id=row.message_id,
            event=row.event,
            state=row.state,
            attempts=row.attempts,
            status=row.status,
            error=row.error,
            created_at=row.created_at,
            ended_at=row.ended_at,
        )


class SentAgain(Answer):
    model_config = with_example({"queued": 3})

    queued: int = Field(description="deliveries that had been given up and are tried again")


@router.post("", status_code=201)
def create_webhook(
    project_id: str,
    body: NewWebhook,
    session: WriteSession,
    caller: Admin,
    parts: PartsDep,
    response: Response,
) -> CreatedWebhook:
    """Tell an address of events: POSTed as JSON, signed as Standard Webhooks has it, tried again until it answers
    2xx, at least once each."""
    project = projects.find(session, project_id, caller.project_id)
    webhook = webhooks.create(session, project, parts.settings, url=body.url, events=body.events)
    response.headers["Cache-Control"] = "no-store"
    secret = webhooks.secret_of(parts.secret, webhook.nonce)
    return CreatedWebhook.of(Report(webhook, pending=0, dead=0), secret=webhooks.shown(secret))


@router.get("")
def list_webhooks(
    project_id: str, session: ReadSession, caller: Admin, cursor: Cursor = None, limit: Limit = 100
) -> Page[WebhookAnswer]:
    """The project's webhooks, oldest first; the secrets are not stored."""
    project = projects.find(session, project_id, caller.project_id)
    (after,) = decode_cursor(cursor, int) or (0,)
    found = webhooks.page(session, project, after, limit)
    return Page.of(found, limit, WebhookAnswer.of, lambda last: (last.webhook.id,))


@router.get("/{webhook_id}")
def get_webhook(project_id: str, webhook_id: str, session: ReadSession, caller: Admin) -> WebhookAnswer:
    """One webhook, with how many deliveries wait or were given up."""
    project = projects.find(session, project_id, caller.project_id)
    return WebhookAnswer.of(webhooks.reports(session, [webhooks.find(session, project, webhook_id)])[0])


@router.delete("/{webhook_id}", status_code=204)
def delete_webhook(project_id: str, webhook_id: str, session: WriteSession, caller: Admin) -> None:
    """Delete a webhook, with what it has not been told yet."""
    project = projects.find(session, project_id, caller.project_id)
    webhooks.delete(session, webhooks.find(session, project, webhook_id))


@router.get("/{webhook_id}/deliveries")
def list_deliveries(
    project_id: str,
    webhook_id: str,
    session: ReadSession,
    caller: Admin,
    state: State | None = None,
    cursor: Cursor = None,
    limit: Limit = 100,
) -> Page[DeliveryAnswer]:
    """The webhook's deliveries, past and pending, newest first; ended ones are kept for a week."""
    project = projects.find(session, project_id, caller.project_id)
    webhook = webhooks.find(session, project, webhook_id)
    (before,) = decode_cursor(cursor, int) or (None,)
    found = deliveries.page(session, webhook, state, before, limit)
    return Page.of(found, limit, DeliveryAnswer.of, lambda last: (last.id,))


@router.post("/{webhook_id}/test", status_code=202)
def send_test(project_id: str, webhook_id: str, session: WriteSession, caller: Admin) -> DeliveryAnswer:
    """Send the event `webhook.test`, to see that it arrives."""
    project = projects.find(session, project_id, caller.project_id)
    webhook = webhooks.find(session, project, webhook_id)
    delivery = outbox.add(session, webhook.id, "webhook.test", {"project": public_id("p", project.id)})
    session.flush()
    return DeliveryAnswer.of(delivery)


@router.post("/{webhook_id}/send-again")
def send_again(project_id: str, webhook_id: str, session: WriteSession, caller: Admin) -> SentAgain:
    """Try the deliveries that were given up once more, once the receiver works again."""
    project = projects.find(session, project_id, caller.project_id)
    return SentAgain(queued=deliveries.send_dead_again(session, webhooks.find(session, project, webhook_id)))

"""Connections as people make them, and the addresses that a Label Studio calls: as a webhook, and as an ML backend.

What the tool calls answers in milliseconds: it reads one or two rows, and all work is the syncer's.
"""

import base64
import binascii
import hmac
from collections.abc import Iterator
from datetime import datetime
from typing import Annotated, Any, Self

import sqlalchemy as sa
from fastapi import APIRouter, Depends, Request, Response
from fastapi.concurrency import run_in_threadpool
from pydantic import Field
from sqlalchemy.orm import Session

from service.errors import Invalid, NotFound
from service.http.dependencies import Admin, PartsDep, Reader, ReadSession, WriteSession
from service.http.etag import ETagRoute
from service.http.schemas import Answer, Body, Text, with_example
from service.integrations.label_studio import connect, connections
from service.integrations.label_studio.connect import Wanted
from service.integrations.label_studio.connections import Report
from service.integrations.label_studio.errors import SecretRefused, ToolAddressRefused
from service.integrations.label_studio.labeling_config import LabelingConfig
from service.integrations.label_studio.syncer import SECRET_HEADER, Syncer
from service.projects import projects
from service.store.ids import public_id, row_number
from service.store.session import read_session
from service.store.tables import Project, ToolConnection, ToolTask

router = APIRouter(
    prefix="/projects/{project_id}/integrations/label-studio", tags=["integrations"], route_class=ETagRoute
)
# The protocol is Label Studio's and not ours to describe.
called_by_the_tool = APIRouter(prefix="/integrations/label-studio/{project_id}", include_in_schema=False)

_MOST_TASKS = 10_000
_LAST = 1.0  # the score of a task that is in no ranking: shown after all that are
_NONE = "shortlist"  # the version before there is a ranking
_URL = "https://label-studio.example.com"
_EXAMPLE = {
    "project": "p_1",
    "url": _URL,
    "tool_project": 7,
    "tool_version": "1.23.2",
    "control": "Choices",
    "data_key": "image",
    "webhook": "https://shortlist.example.com/integrations/label-studio/p_1/webhook",
    "webhook_accepted": True,
    "warning": None,
    "error": None,
    "failures": 0,
    "batch_push": False,
    "low_water": 10,
    "pre_annotate": False,
    "tasks": 5000,
    "tasks_open": 4686,
    "tasks_gone": 2,
    "annotations": 312,
    "refused": 1,
    "refusals": ["Annotation 9 of task 4: it names no class with Choices 'label'."],
    "model_version": "shortlist-12",
    "predictions": 1000,
    "synced_at": "2026-01-31T12:00:00Z",
    "created_at": "2026-01-31T09:00:00Z",
}


class NewConnection(Body):
    """A project of a Label Studio whose tasks become this project's items."""

    model_config = with_example(
        {"url": _URL, "token": "eyJ…", "tool_project": 7, "callback_url": "https://shortlist.example.com"}
    )

    url: Annotated[Text, Field(min_length=1, max_length=2000, description="at which people open it")]
    token: Annotated[
        Text, Field(min_length=1, max_length=4000, description="a personal access token, or a legacy one")
    ]
    tool_project: int = Field(ge=1, lt=2**31, description="its number there")
    callback_url: Annotated[Text, Field(min_length=1, max_length=2000)] | None = Field(
        None,
        description="of this service, as Label Studio reaches it; without it the tool is asked every 10 seconds",
    )
    top: int = Field(
        connections.DEFAULT_TOP, ge=1, le=10_000, description="tasks of a ranking that it is told of"
    )
    batch_push: bool = Field(
        False,
        description="keep the project there filled with just the next items, made as tasks, and do not tell it the "
        "order of its own",
    )
    low_water: int = Field(
        connections.DEFAULT_LOW_WATER,
        ge=1,
        le=500,
        description="with `batch_push`: once fewer open tasks are left, or fewer than two for each who annotates, "
        "it is filled up to twice as many",
    )
    pre_annotate: bool = Field(
        False,
        description="show tasks with the class that the head predicts, for people to confirm; never control items",
    )
    add_classes: bool = Field(False, description="add the classes that only Label Studio has")


class ConnectionAnswer(Answer):
    """A connection, and how it gets on; never the token."""

    model_config = with_example(_EXAMPLE)

    project: str
    url: str
    tool_project: int
    tool_version: str | None
    control: str = Field(description="the tag of its labeling configuration that says the class")
    data_key: str = Field(description="of a task's data: what is an item here")
    webhook: str | None = Field(description="that it calls; null: it is asked every 10 seconds")
    webhook_accepted: bool
    warning: str | None
    error: str | None = Field(description="why the newest attempt failed; it is tried again each minute")
    failures: int
    batch_push: bool
    low_water: int
    pre_annotate: bool
    tasks: int
    tasks_open: int = Field(description="that nobody there has annotated or skipped")
    tasks_gone: int = Field(
        description="deleted there; their items are `missing` here, and keep their labels"
    )
    annotations: int
    refused: int = Field(
        description="tasks that are no item, and annotations that are no label, or not all of one"
    )
    refusals: list[str] = Field(description="why, of the first 20")
    model_version: str | None = Field(description="of the ranking that its tasks are ordered by")
    predictions: int
    synced_at: datetime | None
    created_at: datetime

    @classmethod
    def of(cls, report: Report, **more: str) -> Self:
        row = report.connection
        config = LabelingConfig.stored(row.config)
        return cls(
            project=public_id("p", row.project_id),
            url=row.url,
            tool_project=row.tool_project,
            tool_version=row.tool_version,
            control=config.control,
            data_key=config.data_key,
            webhook=connections.webhook_url(row),
            webhook_accepted=row.has_webhook,
            warning=row.warning or _webhook_warning(row),
            error=row.error,
            failures=row.failures,
            batch_push=row.batch_push,
            low_water=row.low_water,
            pre_annotate=row.pre_annotate,
            tasks=report.tasks,
            tasks_open=report.tasks_open,
            tasks_gone=report.tasks_gone,
            annotations=report.annotations,
            refused=report.refused,
            refusals=report.refusals,
            model_version=row.model_version,
            predictions=row.predictions,
            synced_at=row.synced_at,
            created_at=row.created_at,
            **more,
        )


class CreatedConnection(ConnectionAnswer):
    """`secret` is shown this once: webhooks carry it, and the dialog "Connect model" takes it as password."""

    model_config = with_example(_EXAMPLE | {"secret": "9f86d0…"})

    secret: str


def _webhook_warning(row: ToolConnection) -> str | None:
    if row.callback_url is None or row.has_webhook or row.synced_at is None:
        return None
    return (
        "Label Studio refuses to call this address, so it is asked every 10 seconds. For private addresses set "
        "SSRF_PROTECTION_ENABLED=false there."
    )


@router.post("", status_code=201)
async def connect_label_studio(
    project_id: str, body: NewConnection, caller: Admin, parts: PartsDep, response: Response
) -> CreatedConnection:
    """Connect a Label Studio project: its tasks become items, its annotations labels, and each ranking the order in
    which it shows its tasks. It is asked at once, so a wrong token is told at once; the rest follows by itself.
    """
    _check_callback(body.callback_url)

    def find() -> Project:
        with read_session(parts.engine) as session:
            project = projects.find(session, project_id, caller.project_id)
            projects.refuse_archived(project)
            return project

    await run_in_threadpool(find)
    wanted = Wanted(**body.model_dump())
    found = await connect.look(parts.settings, wanted)

    def project_of(session: Session) -> Project:
        return projects.find(session, project_id, caller.project_id)

    connection = await parts.write(connect.store(parts.secret, wanted, found, project_of))
    response.headers["Cache-Control"] = "no-store"
    secret = connections.shared_secret(parts.secret, connection.nonce)
    return CreatedConnection.of(Report(connection, 0, 0, 0, 0, 0, []), secret=secret)


def _check_callback(url: str | None) -> None:
    if url is None:
        return
    try:
        connect.checked_callback(url)
    except ToolAddressRefused as error:
        reason = f"{error.fields['reason']}; send the URL at which Label Studio reaches this service."
        raise Invalid(field="callback_url", message=reason) from None


@router.get("")
def get_connection(project_id: str, session: ReadSession, caller: Reader) -> ConnectionAnswer:
    """The project's connection to a Label Studio, and how it gets on."""
    project = projects.find(session, project_id, caller.project_id)
    return ConnectionAnswer.of(connections.report(session, connections.find(session, project)))


@router.delete("", status_code=204)
def disconnect(project_id: str, session: WriteSession, caller: Admin) -> None:
    """End the connection. Items and labels stay; in Label Studio, delete the webhook, and choose another sampling."""
    project = projects.find(session, project_id, caller.project_id)
    connections.delete(session, project, connections.find(session, project))


@router.post("/sync", status_code=202)
def sync_now(project_id: str, request: Request, session: ReadSession, caller: Admin) -> ConnectionAnswer:
    """Look at the tool now, and not only within the next minute."""
    project = projects.find(session, project_id, caller.project_id)
    connection = connections.find(session, project)
    _syncer(request).look(connection.id)
    return ConnectionAnswer.of(connections.report(session, connection))


def _syncer(request: Request) -> Syncer:
    syncer: Syncer = request.app.state.label_studio
    return syncer


def _of_tool(project_id: str, request: Request, parts: PartsDep) -> Iterator[ToolConnection]:
    """The connection whose secret the call carries, compared in constant time. Raises `SecretRefused`."""
    sent = request.headers.get(SECRET_HEADER) or _basic_password(request)
    try:
        number = row_number("p", project_id)
    except NotFound:
        number = 0
    with read_session(parts.engine) as session:
        found = session.scalar(sa.select(ToolConnection).where(ToolConnection.project_id == number))
    secret = connections.shared_secret(parts.secret, found.nonce if found is not None else "")
    if not hmac.compare_digest(sent.encode(), secret.encode()) or found is None:
        raise SecretRefused(header=SECRET_HEADER)
    yield found


def _basic_password(request: Request) -> str:
    scheme, _, sent = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "basic":
        return ""
    try:
        return base64.b64decode(sent, validate=True).decode().partition(":")[2]
    except (binascii.Error, UnicodeDecodeError):
        return ""


OfTool = Annotated[ToolConnection, Depends(_of_tool)]


@called_by_the_tool.post("/webhook")
def webhook(connection: OfTool, request: Request) -> dict[str, str]:
    """Whatever it says, it is only taken as "look now"."""
    _syncer(request).look(connection.id)
    return {"status": "ok"}


@called_by_the_tool.get("/health")
async def health() -> dict[str, str]:
    return {"status": "UP", "model_class": "Shortlist"}


@called_by_the_tool.post("/setup")
def setup(connection: OfTool) -> dict[str, str]:
    """Its body is not read: it holds a credential of whoever connected the model."""
    return {"model_version": connection.model_version or _NONE}


@called_by_the_tool.get("/versions")
def versions(connection: OfTool) -> dict[str, list[str]]:
    return {"versions": [connection.model_version or _NONE]}


@called_by_the_tool.post("/predict")
async def predict(connection: OfTool, request: Request, parts: PartsDep) -> dict[str, list[dict[str, Any]]]:
    """A score for each task that is asked for, in their order, from the newest ranking."""
    numbers = _task_numbers(await _json(request))

    def scores() -> dict[int, float | None]:
        with read_session(parts.engine) as session:
            query = sa.select(ToolTask.task_id, ToolTask.score).where(
                ToolTask.connection_id == connection.id, ToolTask.task_id.in_(numbers)
            )
            return dict(session.execute(query).all())

    found = await run_in_threadpool(scores)
    version = connection.model_version or _NONE
    results = []
    for number in numbers:
        score = found.get(number)
        results.append({"result": [], "score": _LAST if score is None else score, "model_version": version})
    return {"results": results}


async def _json(request: Request) -> Any:
    try:
        return await request.json()
    except (ValueError, RecursionError):
        raise Invalid(field="body", message="this is no JSON.") from None


def _task_numbers(body: Any) -> list[int]:
    tasks = body.get("tasks") if isinstance(body, dict) else None
    if not isinstance(tasks, list) or len(tasks) > _MOST_TASKS:
        raise Invalid(field="tasks", message=f"send an array of at most {_MOST_TASKS:,} tasks.")
    numbers = [task.get("id") if isinstance(task, dict) else None for task in tasks]
    if not all(isinstance(number, int) and abs(number) < 2**63 for number in numbers):
        raise Invalid(field="tasks", message="each task needs its `id`, a number.")
    return [int(number) for number in numbers if number is not None]

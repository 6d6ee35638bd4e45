"""Direct registration of items: as JSON, or streamed as one object a line."""

import asyncio
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from pydantic import Field, ValidationError
from sqlalchemy.orm import Session

from service.errors import NotJson
from service.http.dependencies import Admin, Parts, PartsDep
from service.http.idempotent_route import OnceRoute
from service.http.middleware import NDJSON
from service.http.ndjson import chunks
from service.http.schemas import Answer, Body, Text, with_example
from service.pool import items
from service.pool.items import NewItem, Refusal, Split
from service.projects import projects
from service.store import pipeline, planner_stats
from service.store.ids import public_id
from service.store.session import read_session
from service.store.tables import Project

router = APIRouter(prefix="/projects/{project_id}/items", tags=["items"], route_class=OnceRoute)

_MOST_ITEMS = 10_000  # in a JSON body
_CHUNK_ITEMS = 5_000  # of a stream, in one transaction
_REFUSED_TOLD = 1_000


class ItemIn(Body):
    key: Annotated[Text, Field(min_length=1, max_length=1000)]
    uri: Annotated[Text, Field(min_length=1, max_length=4000)]
    split: Split = "pool"
    class_name: Text | None = Field(None, alias="class", max_length=200)
    meta: dict[str, Any] | None = None


class ItemsIn(Body):
    items: list[ItemIn] = Field(max_length=_MOST_ITEMS)


class RefusedItem(Answer):
    line: int = Field(description="counts from 1")
    code: Refusal | Literal["malformed"]


class ItemsAnswer(Answer):
    """`known` were there already, by their key. `refused` tells the first 1,000."""

    model_config = with_example(
        {"added": 2, "known": 1, "refused": [{"line": 4, "code": "uri_not_allowed"}], "refused_count": 1}
    )

    added: int
    known: int
    refused: list[RefusedItem]
    refused_count: int


@dataclass
class _Registration:
    """A call's counts; each chunk is a transaction, so a stream that breaks off can simply be sent again."""

    parts: Parts
    project: Project
    line: int = 0
    added: int = 0
    known: int = 0
    refused_count: int = 0
    refused: list[RefusedItem] = field(default_factory=list)

    def read(self, numbered: list[tuple[int, ItemIn | None]]) -> list[NewItem]:
        """(line, item) pairs, None for a line that is no item -> what may be stored; the others are noted."""
        good = []
        for line, entry in numbered:
            given = entry and NewItem(entry.key, entry.uri, entry.split, entry.class_name, entry.meta)
            code = items.refusal(self.project, self.parts.item_bytes, given) if given else "malformed"
            if code is not None:
                self.refused_count += 1
                if len(self.refused) < _REFUSED_TOLD:
                    self.refused.append(RefusedItem(line=line, code=code))
            elif given:
                good.append(given)
        return good

    async def store(self, good: list[NewItem]) -> None:
        def register(session: Session) -> int:
            project = projects.find(session, public_id("p", self.project.id))  # it may be gone by now
            added = items.register(session, project, good)
            if added:
                pipeline.queue_score_new_items(session, project)
            return added

        added = await self.parts.write(register)
        self.added += added
        self.known += len(good) - added

    def read_lines(self, lines: list[bytes]) -> list[NewItem]:
        numbered = list(enumerate(lines, self.line + 1))
        self.line += len(lines)
        return self.read([(number, _parsed(line)) for number, line in numbered if line.strip()])

    async def finish(self) -> ItemsAnswer:
        if self.added >= planner_stats.MANY_ROWS:
            await self.parts.write(lambda session: planner_stats.refresh(session, "items"))
        return ItemsAnswer(
            added=self.added, known=self.known, refused=self.refused, refused_count=self.refused_count
        )


_ITEM_EXAMPLE = {"key": "shirts/0012.png", "uri": "/data/shirts/0012.png"}
_BODY = {
    "required": True,
    "content": {
        "application/json": {
            "schema": {
                "type": "object",
                "required": ["items"],
                "additionalProperties": False,
                "properties": {
                    "items": {"type": "array", "maxItems": _MOST_ITEMS, "items": ItemIn.model_json_schema()}
                },
            },
            "example": {"items": [_ITEM_EXAMPLE]},
        },
        NDJSON: {"schema": {}, "example": '{"key": "a", "uri": "/data/a.png"}\n'},
    },
}


@router.post("", openapi_extra={"requestBody": _BODY})
async def add_items(project_id: str, request: Request, caller: Admin, parts: PartsDep) -> ItemsAnswer:
    """Register items by key and place: up to 10,000 as JSON, any number as NDJSON. Known keys stay as they are."""

    def find() -> Project:
        with read_session(parts.engine) as session:
            project = projects.find(session, project_id, caller.project_id)
            projects.refuse_archived(project)
            return project

    registration = _Registration(parts, await run_in_threadpool(find))
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if kind == NDJSON:
        await _streamed(request, registration)
    elif kind == "application/json":
        body = _validated(await request.body())
        good = await run_in_threadpool(registration.read, list(enumerate(body.items, 1)))
        await registration.store(good)
    else:
        raise NotJson(expected=f"application/json` or `{NDJSON}")
    return await registration.finish()


async def _streamed(request: Request, registration: _Registration) -> None:
    """The next lines are read while the database stores those before them."""
    storing: asyncio.Task[None] | None = None
    try:
        async for lines in chunks(request, _CHUNK_ITEMS):
            good = await run_in_threadpool(registration.read_lines, lines)
            if storing is not None:
                await storing
            storing = asyncio.create_task(registration.store(good))
    finally:
        if storing is not None:
            await storing


def _validated(body: bytes) -> ItemsIn:
    try:
        return ItemsIn.model_validate_json(body)
    except ValidationError as error:
        errors = [{**each, "loc": ("body", *each["loc"])} for each in error.errors(include_context=False)]
        raise RequestValidationError(errors) from error


def _parsed(line: bytes) -> ItemIn | None:
    try:
        return ItemIn.model_validate_json(line)
    except ValidationError:
        return None

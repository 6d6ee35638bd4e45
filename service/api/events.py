from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header
from fastapi.concurrency import run_in_threadpool
from fastapi.sse import EventSourceResponse, ServerSentEvent

from service.access.keys import Principal
from service.http.dependencies import Parts, PartsDep, Reader
from service.http.event_streams import Watch
from service.projects import events, projects
from service.store.session import read_session

router = APIRouter(prefix="/projects/{project_id}/events", tags=["progress"])

_RETRY_MS = 2000
_EXAMPLE = """retry: 2000

event: job
data: {"id": "j_4", "kind": "rank", "state": "running", "progress": 0.4, "message": "ordering items", "error": null}
id: project:9f3c12aa,labels:04be7711,j_4:51d0e3c8

"""
_STREAM: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "`project`, `items`, `labels`, `round`, `score_run`, `ranking`, `head`, `job`: what changed, in "
        "few words; the GET of that name tells all. `deleted`: there is no such project any more.",
        "content": {"text/event-stream": {"example": _EXAMPLE}},
    }
}


@dataclass(frozen=True)
class Listener:
    watch: Watch
    key_id: int


async def _listener(parts: PartsDep, caller: Reader, project_id: str) -> AsyncIterator[Listener]:
    """Counted from here to the end of the stream, however it ends."""
    async with parts.slots:
        number = await run_in_threadpool(_number, parts, caller, project_id)
    with parts.event_streams.listening(caller.key_id, number) as watch:
        yield Listener(watch, caller.key_id)


def _number(parts: Parts, caller: Principal, project_id: str) -> int:
    with read_session(parts.engine) as session:
        return projects.find(session, project_id, caller.project_id).id


@router.get("", response_class=EventSourceResponse, responses=_STREAM)
async def stream_events(
    parts: PartsDep,
    listener: Annotated[Listener, Depends(_listener)],
    last_event_id: Annotated[
        str | None, Header(max_length=8000, description="the `id` of the last event you have")
    ] = None,
) -> AsyncIterator[ServerSentEvent]:
    """Stream what changes, as server-sent events: first the present state, or with `Last-Event-ID` what of it is new,
    then each change within about a second. Changes that follow each other faster come as one. Every 15 s a comment
    shows that the stream is alive; after an hour it ends, and clients come back by themselves."""
    yield ServerSentEvent(retry=_RETRY_MS)
    known = events.decode(last_event_id or "")
    async for news in parts.event_streams.news(listener.watch, listener.key_id, known):
        yield news

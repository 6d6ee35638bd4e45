"""Dependencies of routes: a session, the caller, the parts of the service."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Annotated, TypeVar
from weakref import WeakValueDictionary

import anyio
import sqlalchemy as sa
from fastapi import BackgroundTasks, Depends, Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from sqlalchemy.orm import Session

from service.access import keys
from service.access.keys import Principal, Role
from service.access.rate_limits import RateLimits, UseNotes
from service.access.signed_urls import ItemLinks
from service.content.contract import Limits
from service.content.reader import ItemBytes
from service.http.credentials import recognise
from service.http.event_streams import EventStreams
from service.http.figures import Figures
from service.settings import Settings
from service.store.artifacts import Artifacts
from service.store.ids import row_number
from service.store.marks import Marks
from service.store.session import read_session, single_read, write_session
from service.store.tables import utc_now

# Requests that hold a database connection at the same time. Fewer than the thread pool has threads (40), so that
# one that has it can always go on: it needs a thread again to finish.
SESSIONS = 16
WRITERS = 4  # those that write

T = TypeVar("T")


class Turns:
    """One project's annotators take turns (`projects.lock`). Whoever waits here and not at the database holds no
    thread and no connection: with 128 of them on PostgreSQL that halves the longest waits.
    """

    def __init__(self) -> None:
        self._of: WeakValueDictionary[str, anyio.Lock] = WeakValueDictionary()

    def of(self, project_id: str) -> anyio.Lock:
        return self._of.setdefault(project_id, anyio.Lock())


@dataclass(frozen=True)
class Parts:
    """The parts of the service; `app.state.parts`."""

    settings: Settings
    engine: sa.Engine
    secret: bytes
    links: ItemLinks
    item_bytes: ItemBytes
    limits: Limits
    artifacts: Artifacts
    marks: Marks
    figures: Figures
    slots: anyio.CapacityLimiter
    write_slots: anyio.CapacityLimiter
    turns: Turns
    rate_limits: RateLimits
    use_notes: UseNotes
    event_streams: EventStreams

    async def write(self, do: Callable[[Session], T]) -> T:
        """A transaction that is not a whole request's (`WriteSession`): it waits in the same queue."""

        def transaction() -> T:
            with write_session(self.engine) as session:
                return do(session)

        async with self.write_slots:
            return await run_in_threadpool(transaction)


# Dependencies that wait for nothing are `async`: FastAPI sends the others to a thread and back.
async def get_parts(request: Request) -> Parts:
    parts: Parts = request.app.state.parts
    return parts


PartsDep = Annotated[Parts, Depends(get_parts)]


_bearer = HTTPBearer(auto_error=False, description="A key: POST /keys, or `shortlist keys add`")


def get_caller(
    request: Request,
    parts: PartsDep,
    background: BackgroundTasks,
    _: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],  # for the description
) -> Principal:
    with single_read(parts.engine) as connection:
        caller = recognise(connection, parts.secret, request)
    parts.rate_limits.take(caller.key_id)
    if not caller.noted and parts.use_notes.due(caller.key_id):
        background.add_task(parts.write, partial(keys.note_use, key_id=caller.key_id, now=utc_now()))
    return caller


Caller = Annotated[Principal, Depends(get_caller)]


async def _slot(parts: PartsDep) -> AsyncIterator[None]:
    async with parts.slots:
        yield


async def _write_slot(parts: PartsDep) -> AsyncIterator[None]:
    """SQLite lets one write at a time, and who waits for it looks again after up to 100 ms. Here they queue."""
    async with parts.write_slots:
        yield


_Slot = Depends(_slot, scope="function")
_WriteSlot = Depends(_write_slot, scope="function")


@asynccontextmanager
async def _ended_in_a_thread(opened: AbstractContextManager[Session]) -> AsyncIterator[Session]:
    """A session connects at its first statement, which runs in the route's thread: only its end needs one of its own,
    also where the request was cancelled.
    """
    session = opened.__enter__()
    error: BaseException | None = None
    try:
        yield session
    except BaseException as raised:
        error = raised
        raise
    finally:
        with anyio.CancelScope(shield=True):
            how = (type(error), error, error.__traceback__) if error is not None else (None, None, None)
            # Beside the pool, as FastAPI ends a context: its threads may all wait for what this one gives back.
            await anyio.to_thread.run_sync(opened.__exit__, *how, limiter=anyio.CapacityLimiter(1))


async def get_session(
    request: Request, parts: PartsDep, caller: Caller, slot: Annotated[None, _WriteSlot]
) -> AsyncIterator[Session]:
    """One transaction, committed before the answer is sent (scope "function"): a 2xx is never taken back.

    The caller comes first: nobody without a key ever holds SQLite's write lock.
    """
    async with _ended_in_a_thread(write_session(parts.engine)) as session:
        request.state.session = session  # for `service.http.idempotent_route`
        yield session


async def get_read_session(parts: PartsDep, _: Annotated[None, _Slot]) -> AsyncIterator[Session]:
    async with _ended_in_a_thread(read_session(parts.engine)) as session:
        yield session


WriteSession = Annotated[Session, Depends(get_session, scope="function")]


async def _turn(project_id: str, parts: PartsDep, caller: Caller) -> AsyncIterator[None]:
    async with parts.turns.of(project_id):
        yield


async def get_session_in_turn(
    turn: Annotated[None, Depends(_turn, scope="function")], session: WriteSession
) -> Session:
    """For what locks the project from its first statement on."""
    return session


TurnSession = Annotated[Session, Depends(get_session_in_turn, scope="function")]
ReadSession = Annotated[Session, Depends(get_read_session, scope="function")]


def _allow(*roles: Role) -> Callable[[Principal], Awaitable[Principal]]:
    async def check(caller: Caller) -> Principal:
        caller.require_role(*roles)
        return caller

    return check


Admin = Annotated[Principal, Depends(_allow("admin"))]
Annotator = Annotated[Principal, Depends(_allow("admin", "annotator"))]
Reader = Annotated[Principal, Depends(_allow("admin", "reader"))]


def get_item_scope(
    request: Request,
    parts: PartsDep,
    background: BackgroundTasks,
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
    project_id: str,
    item_id: str,
    expires: Annotated[int | None, Query(ge=0, le=2**53)] = None,
    signature: Annotated[str | None, Query(max_length=100)] = None,
) -> int | None:
    """The only project whose items may be seen (None: all), by a signed link or by a key."""
    if signature is None or expires is None:
        return get_caller(request, parts, background, credentials).project_id
    project = row_number("p", project_id)
    parts.links.check(project, row_number("i", item_id), expires, signature)
    return project


ItemScope = Annotated[int | None, Depends(get_item_scope)]

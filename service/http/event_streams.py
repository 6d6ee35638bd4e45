"""Event streams: one task looks at the watched projects in the database, all listeners wait for what it sees.

A listener holds neither a thread nor a database connection. Looking costs a few indexed statements a second and
project, however many listen.
"""

import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import anyio
import anyio.to_thread
import sqlalchemy as sa
import structlog
from fastapi.sse import ServerSentEvent

from service.access import keys
from service.errors import TooManyListeners
from service.projects import events
from service.projects.events import State
from service.store.session import read_session

TICK_S = 1.0

log = structlog.get_logger()


@dataclass
class Watch:
    """A project that somebody listens to."""

    project_id: int
    listeners: int = 0
    looked: bool = False  # at least once
    state: State | None = None  # None: the project is gone
    changed: anyio.Event = field(default_factory=anyio.Event)  # since the newest look

    def tell(self) -> None:
        self.changed.set()
        self.changed = anyio.Event()


class EventStreams:
    def __init__(self, engine: sa.Engine, per_key: int, stream_s: float) -> None:
        """stream_s: a stream ends after so long, so that services behind one address share listeners anew."""
        self._engine, self._per_key, self._stream_s = engine, per_key, stream_s
        self._watches: dict[int, Watch] = {}
        self._keys: Counter[int] = Counter()  # streams by key
        self._revoked: frozenset[int] = frozenset()
        self._joined = anyio.Event()
        self._closed = False

    async def run(self) -> None:
        """Looks until cancelled."""
        while True:
            joined = self._joined
            await self._look()
            with anyio.move_on_after(TICK_S if self._watches else None):
                await joined.wait()

    def close(self) -> None:
        """Ends all streams, and those that begin later."""
        self._closed = True
        for watch in self._watches.values():
            watch.tell()

    @contextmanager
    def listening(self, key_id: int, project_id: int) -> Iterator[Watch]:
        """Raises `TooManyListeners`."""
        if self._keys[key_id] >= self._per_key:
            raise TooManyListeners(most=self._per_key)
        watch = self._watches.setdefault(project_id, Watch(project_id))
        self._keys[key_id] += 1
        watch.listeners += 1
        if not watch.looked:
            self._joined.set()
            self._joined = anyio.Event()
        try:
            yield watch
        finally:
            self._keys[key_id] -= 1
            watch.listeners -= 1
            if watch.listeners == 0:
                del self._watches[project_id]

    async def news(self, watch: Watch, key_id: int, known: dict[str, str]) -> AsyncIterator[ServerSentEvent]:
        """Events for differences from `known`, then for each change. Ends with the stream's time, the project, the key,
        or the service.
        """
        if not watch.looked and not self._closed:
            await watch.changed.wait()
        ends_at = time.monotonic() + self._stream_s
        while not self._closed:
            changed = watch.changed
            if watch.state is None:  # a key that was bound to it is gone too
                yield ServerSentEvent(event="deleted", data={}, id="")
                return
            if key_id in self._revoked:
                return
            for found in _differences(watch.state, known):
                yield found
            left_s = ends_at - time.monotonic()
            if left_s <= 0:
                return
            with anyio.move_on_after(left_s):
                await changed.wait()

    async def _look(self) -> None:
        """At all watched projects. While the database cannot be reached, nothing is news."""
        watches, key_ids = list(self._watches.values()), [key_id for key_id, n in self._keys.items() if n]
        if not watches:
            return
        try:
            found, self._revoked = await anyio.to_thread.run_sync(
                self._read, [watch.project_id for watch in watches], key_ids
            )
        except sa.exc.SQLAlchemyError as error:
            log.warning("database not reached", reason=str(getattr(error, "orig", error)))
            return
        for watch, state in zip(watches, found, strict=True):
            if self._revoked or not watch.looked or state != watch.state:
                watch.looked, watch.state = True, state
                watch.tell()

    def _read(self, project_ids: list[int], key_ids: list[int]) -> tuple[list[State | None], frozenset[int]]:
        with read_session(self._engine) as session:
            found = [events.state(session, project_id) for project_id in project_ids]
            return found, frozenset(key_ids) - keys.good(session, key_ids)


def _differences(state: State, known: dict[str, str]) -> Iterator[ServerSentEvent]:
    """`known` keeps step with what is told."""
    for topic in known.keys() - state.keys():
        del known[topic]
    for topic, event in state.items():
        if known.get(topic) != event.mark:
            known[topic] = event.mark
            yield ServerSentEvent(event=event.name, data=event.data, id=events.encode(known))

"""The context of a job function: `run(context) -> result`. Long computing holds no transaction."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from service.settings import Settings
from service.store import jobs
from service.store.artifacts import Artifacts
from service.store.session import read_session, write_session
from worker.errors import GivesWay

_GAVE_WAY = Counter[tuple[str, int]]()  # how often an unfinished job did, in this process


@dataclass(kw_only=True)
class JobContext:
    job: jobs.ClaimedJob
    settings: Settings
    engine: sa.Engine
    artifacts: Artifacts
    report: Callable[[float, str], None]  # progress 0..1 and a message for people; cheap, call it often
    has: frozenset[str] | None = None  # what the worker has of what jobs need; None: whatever they need
    finished: bool = field(default=False, init=False)

    def read(self) -> AbstractContextManager[Session]:
        """A short read-only transaction."""
        return read_session(self.engine)

    def give_way(self, at_most: int | None = None) -> None:
        """Raises `GivesWay` where a job of higher priority is ready in the lane. For a job that nobody waits for, at
        each place where it can stop. at_most: so many times, for one that would begin from the start for ever
        """
        if at_most is not None and _GAVE_WAY[self._key] >= at_most:
            return
        with self.read() as session:
            if jobs.others_first(session, self.job, self.has):
                _GAVE_WAY[self._key] += 1
                raise GivesWay

    @property
    def _key(self) -> tuple[str, int]:
        return str(self.engine.url), self.job.id

    @contextmanager
    def publish(self) -> Iterator[Session]:
        """A transaction that only the holder of the lease can commit: raises `jobs.LeaseLost` otherwise.

        Keep it far shorter than the lease: the heartbeats wait for it.
        """
        with write_session(self.engine) as session:
            jobs.fence(session, self.job)
            yield session

    @contextmanager
    def finish(self, result: dict[str, Any] | None = None) -> Iterator[Session]:
        """The last `publish`: what it writes and "succeeded" are one transaction."""
        with self.publish() as session:
            yield session
            jobs.succeed(session, self.job, result)
        self.finished = True
        _GAVE_WAY.pop(self._key, None)

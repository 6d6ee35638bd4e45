"""Errors that end a job, or one run of it, wherever they are found out."""

from collections.abc import Iterable
from typing import Literal


class JobFailed(Exception):
    """A person must act, so the job is not tried again. The sentence is what they read in `job.error`."""

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence)


class Unsuited(Exception):
    """This worker, or this lane, is not for the job; it goes back to the queue for another.

    missing  what a worker needs to run it
    lane     where it belongs; None: where it is
    """

    def __init__(
        self, sentence: str, *, missing: Iterable[str] = (), lane: Literal["short", "long"] | None = None
    ) -> None:
        super().__init__(sentence)
        self.missing, self.lane = tuple(missing), lane


class GivesWay(Exception):
    """A job that is waited for is ready in the lane of this one, which goes back to the queue until that has run."""

import os
import signal
from typing import Any

from service.errors import SourceUnreadable
from worker.errors import JobFailed, Unsuited
from worker.jobs.context import JobContext


def run(context: JobContext) -> dict[str, Any]:
    how = context.job.payload["how"]
    if how == "needs a person":
        raise JobFailed("There are no items. Import some.")
    if how == "unsuited":
        raise Unsuited("This worker knows no head 'foo'.", missing=["head:foo"])
    if how == "wrongly unsuited":
        raise Unsuited("This worker knows no jobs of kind 'echo'.", missing=["kind:echo"])
    if how == "too long" and context.job.lane == "short":
        raise Unsuited("This takes minutes.", lane="long")
    if how == "bad source":
        raise SourceUnreadable(uri="/gone", reason="no such folder")
    if how == "die once" and context.job.attempts == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "raise once" and context.job.attempts == 1:
        raise ValueError("first line\nlast line")
    return {"attempts": context.job.attempts, "pid": os.getpid(), "lane": context.job.lane}

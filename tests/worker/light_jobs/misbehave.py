import os
import signal
from typing import Any

from service.errors import SourceUnreadable
from worker.errors import JobFailed
from worker.jobs.context import JobContext


def run(context: JobContext) -> dict[str, Any]:
    how = context.job.payload["how"]
    if how == "needs a person":
        raise JobFailed("There are no items. Import some.")
    if how == "bad source":
        raise SourceUnreadable(uri="/gone", reason="no such folder")
    if how == "die once" and context.job.attempts == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "raise once" and context.job.attempts == 1:
        raise ValueError("first line\nlast line")
    return {"attempts": context.job.attempts, "pid": os.getpid()}

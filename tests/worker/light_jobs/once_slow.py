"""Endless at the first attempt, prompt at the next."""

import os
import time
from typing import Any

from worker.jobs.context import JobContext


def run(context: JobContext) -> dict[str, Any]:
    while context.job.attempts == 1:
        context.report(0.5, f"pid {os.getpid()}")
        time.sleep(0.05)
    return {"attempts": context.job.attempts}

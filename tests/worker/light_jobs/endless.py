"""Says where it is, then computes until somebody ends it."""

import os
import time

from worker.jobs.context import JobContext


def run(context: JobContext) -> None:
    while True:
        context.report(0.5, f"pid {os.getpid()}")
        time.sleep(0.05)

from typing import Any

from worker.jobs.context import JobContext


def run(context: JobContext) -> dict[str, Any]:
    return {"danced": True}

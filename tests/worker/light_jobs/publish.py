"""Its output and its end in one transaction."""

from service.store.tables import Project
from worker.jobs.context import JobContext


def run(context: JobContext) -> None:
    name = context.job.payload["name"]
    with context.finish({"name": name}) as session:
        session.add(Project(name=name, classes=[], settings={}))

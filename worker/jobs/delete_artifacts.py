"""Job delete_artifacts: the stored files of a project that was deleted, of a training or scoring that was given up."""

from worker.jobs.context import JobContext


def run(context: JobContext) -> None:
    for folder in context.job.payload["folders"]:
        context.artifacts.delete(folder)

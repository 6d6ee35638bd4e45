"""What follows what: import → train_pretext → score_pool → rank, and labels → train_head → rank → probe_pretext.

Both programs queue jobs through these functions, in the transaction of the change that causes them.
"""

import sqlalchemy as sa
from sqlalchemy.orm import Session

from service.store import jobs
from service.store.project_settings import ProjectSettings
from service.store.tables import Job, PretextModel, Project, ScoreRun, Source

# The pretext models by which pools are to be scored.
SCORING = sa.select(Job.payload["pretext_model_id"].as_integer()).where(
    Job.kind == "score_pool", Job.state.in_(("queued", "running"))
)


def queue_import(session: Session, source: Source) -> int:
    return jobs.enqueue(
        session, "import_source", {"source_id": source.id}, project_id=source.project_id, queue="cpu",
        serial_key=f"import_source:{source.project_id}",
    )  # fmt: skip


def queue_train_pretext(session: Session, project: Project) -> int:
    """Train a new version of the pretext model; scoring follows by itself."""
    key = f"train_pretext:{project.id}"
    job_id = jobs.enqueue(
        session, "train_pretext", {}, project_id=project.id, queue="gpu", coalesce_key=key, serial_key=key
    )
    jobs.begin_anew(session, job_id)
    return job_id


def queue_score_pool(session: Session, project: Project, pretext_model_id: int) -> int:
    key = f"score_pool:{project.id}"
    return jobs.enqueue(
        session, "score_pool", {"pretext_model_id": pretext_model_id}, project_id=project.id, queue="gpu",
        coalesce_key=key, serial_key=key,
    )  # fmt: skip


def queue_score_new_items(session: Session, project: Project) -> None:
    """Items came, or came back: they get their score, and a rank, without a new pretraining. Nothing is queued before
    a first one.
    """
    model_id = model_to_serve(session, project)
    if model_id is not None:
        queue_score_pool(session, project, model_id)


def model_to_serve(session: Session, project: Project) -> int | None:
    """The pretext model of the scoring that waits or runs, else that of the scores there are."""
    wanted = SCORING.where(Job.project_id == project.id).order_by(
        Job.state, Job.id.desc()
    )  # queued before running
    served = sa.select(ScoreRun.pretext_model_id).where(ScoreRun.id == project.score_run_id)
    return session.scalar(wanted.limit(1)) or session.scalar(served)


def queue_probe_pretext(session: Session, project: Project) -> int:
    """Judge the embeddings that are served by the labels so far; never before a head or a ranking."""
    key = f"probe_pretext:{project.id}"
    return jobs.enqueue(
        session, "probe_pretext", {}, project_id=project.id, queue="cpu", coalesce_key=key, serial_key=key
    )


def queue_train_head(session: Session, project: Project, *, at_once: bool = False) -> int:
    """One waiting per project; not sooner than `retrain_min_interval_s` after the last one started."""
    settings = ProjectSettings.model_validate(project.settings)
    key = f"train_head:{project.id}"
    return jobs.enqueue(
        session, "train_head", {}, project_id=project.id, queue="cpu", priority=1, coalesce_key=key, serial_key=key,
        min_interval_s=0.0 if at_once else settings.retrain_min_interval_s,
    )  # fmt: skip


def queue_rank(session: Session, project: Project) -> int:
    key = f"rank:{project.id}"
    return jobs.enqueue(
        session, "rank", {}, project_id=project.id, queue="cpu", priority=2, coalesce_key=key, serial_key=key
    )


def queue_remove_score_runs(session: Session, project: Project) -> int:
    """Those that nothing needs any more, now that another one is served; behind all that anybody waits for."""
    key = f"remove_score_runs:{project.id}"
    return jobs.enqueue(
        session, "remove_score_runs", {}, project_id=project.id, queue="cpu", priority=-1, coalesce_key=key,
        serial_key=key,
    )  # fmt: skip


def queue_delete_artifacts(session: Session, folders: list[str], *, later: bool) -> int:
    """Of what is gone. `later`: once whoever still runs a job on it has lost its lease and knows."""
    delay_s = jobs.NOTICED_S if later else 0.0
    return jobs.enqueue(session, "delete_artifacts", {"folders": folders}, queue="cpu", delay_s=delay_s)


def queue_copy_project(session: Session, project: Project, source: Project, *, labels: bool) -> int:
    """Fill `project` with the items, and the labels, of `source`."""
    payload = {"from": source.id, "labels": labels}
    return jobs.enqueue(session, "copy_project", payload, project_id=project.id, queue="cpu")


def queue_check_labels(session: Session, project: Project) -> int:
    """Consensus, agreement, suspects; behind the ranking, which annotators wait for."""
    key = f"check_labels:{project.id}"
    return jobs.enqueue(
        session, "check_labels", {}, project_id=project.id, queue="cpu", coalesce_key=key, serial_key=key
    )


def queue_export_backbone(session: Session, model: PretextModel, artifact: str) -> int:
    payload = {"pretext_model_id": model.id, "artifact": artifact}
    return jobs.enqueue(session, "export_backbone", payload, project_id=model.project_id, queue="cpu")

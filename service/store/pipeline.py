"""What follows what: import → train_pretext → score_pool → rank, and labels → train_head → rank → probe_pretext.

Both programs queue jobs through these functions, in the transaction of the change that causes them.
"""

from sqlalchemy.orm import Session

from service.store import jobs
from service.store.project_settings import ProjectSettings
from service.store.tables import Project, Source


def queue_import(session: Session, source: Source) -> int:
    return jobs.enqueue(
        session, "import_source", {"source_id": source.id}, project_id=source.project_id, queue="cpu",
        serial_key=f"import_source:{source.project_id}",
    )  # fmt: skip


def queue_train_pretext(session: Session, project: Project) -> int:
    """Train a new version of the pretext model; scoring follows by itself."""
    key = f"train_pretext:{project.id}"
    return jobs.enqueue(
        session, "train_pretext", {}, project_id=project.id, queue="gpu", coalesce_key=key, serial_key=key
    )


def queue_score_pool(session: Session, project: Project, pretext_model_id: int) -> int:
    key = f"score_pool:{project.id}"
    return jobs.enqueue(
        session, "score_pool", {"pretext_model_id": pretext_model_id}, project_id=project.id, queue="gpu",
        coalesce_key=key, serial_key=key,
    )  # fmt: skip


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

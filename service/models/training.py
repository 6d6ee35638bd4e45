"""Trainings that people ask for: the pretext model, and the head at once. What follows is in `store.pipeline`."""

import sqlalchemy as sa
from sqlalchemy.orm import Session

from service.errors import EmptyPool, NoLabels, NoPretextModel, NoScoreRun
from service.projects import projects
from service.store import pipeline
from service.store.ids import public_id
from service.store.project_settings import ProjectSettings
from service.store.tables import Item, Job, PretextModel, Project, ScoreRun


def pretrain(session: Session, project: Project) -> Job:
    """Train the pretext model, or take the newest of `pretext_from`; then the pool is scored.

    Raises `EmptyPool`, `NoPretextModel`.
    """
    projects.lock_open(session, project)
    usable = sa.select(Item.id).where(Item.project_id == project.id, Item.split == "pool")
    if session.scalar(usable.where(Item.state.in_(("available", "done"))).limit(1)) is None:
        raise EmptyPool(project=public_id("p", project.id))
    if project.pretext_from_id is None:
        return session.get_one(Job, pipeline.queue_train_pretext(session, project))
    model_id = _lent(session, project.pretext_from_id)
    if model_id is None:
        raise NoPretextModel(other=public_id("p", project.pretext_from_id))
    return session.get_one(Job, pipeline.queue_score_pool(session, project, model_id))


def _lent(session: Session, project_id: int) -> int | None:
    """The newest finished pretext model of a project, or else the one that it borrowed itself."""
    newest = session.scalar(
        sa.select(PretextModel.id)
        .where(PretextModel.project_id == project_id, PretextModel.state == "ready")
        .order_by(PretextModel.version.desc())
        .limit(1)
    )
    if newest is not None:
        return newest
    served = sa.select(ScoreRun.pretext_model_id).join(Project, Project.score_run_id == ScoreRun.id)
    return session.scalar(served.where(Project.id == project_id))


def retrain(session: Session, project: Project) -> Job:
    """Train the head now, without waiting for more labels. Raises `NoScoreRun`, `NoLabels`."""
    projects.lock_open(session, project)
    if project.score_run_id is None:
        raise NoScoreRun(project=public_id("p", project.id))
    if project.labels_used == 0:
        raise NoLabels
    return session.get_one(Job, pipeline.queue_train_head(session, project, at_once=True))


def retrain_if_due(session: Session, project: Project) -> int | None:
    """Queue a training after a change of labels, once there are enough of them; the job's number. Also where there are
    not enough any more: the head in use then goes.
    """
    settings = ProjectSettings.model_validate(project.settings)
    too_few = project.labels_used < settings.retrain_min_labels and project.head_id is None
    if project.score_run_id is None or too_few:
        return None
    return pipeline.queue_train_head(session, project)


def pretext_models(session: Session, project: Project, before: int | None, limit: int) -> list[PretextModel]:
    """Newest version first."""
    query = sa.select(PretextModel).where(PretextModel.project_id == project.id)
    query = query.order_by(PretextModel.version.desc()).limit(limit)
    return list(session.scalars(query if before is None else query.where(PretextModel.version < before)))

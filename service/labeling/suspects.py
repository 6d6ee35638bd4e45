"""Suspects: labeled items whose class the head contradicts, found by the job check_labels; worth another look."""

from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.orm import Session

from service.errors import NoLabels, NoScoreRun, NoSuspects
from service.pool import queues
from service.projects import projects
from service.store import pipeline
from service.store.ids import public_id
from service.store.tables import Item, Job, Label, Project, Suspect


@dataclass(frozen=True)
class ListedSuspect:
    suspect: Suspect
    item: Item
    annotators: list[str]  # who labeled it


def page(
    session: Session,
    project: Project,
    after: tuple[float, int] | None,
    limit: int,
    not_labeled_by: str | None = None,
) -> list[ListedSuspect]:
    """The most doubtful first, after the position (quality, item number). What was relabeled, opened again or made
    gold since the check is left out."""
    query = (
        sa.select(Suspect, Item)
        .join(Item, Item.id == Suspect.item_id)
        .where(Suspect.project_id == project.id, Item.state == "done", Item.class_name == Suspect.class_name)
        .where(~Item.gold)
        .order_by(Suspect.quality, Suspect.item_id)
        .limit(limit)
    )
    if after is not None:
        query = query.where(sa.tuple_(Suspect.quality, Suspect.item_id) > sa.tuple_(*after))
    if not_labeled_by is not None:
        theirs = sa.exists().where(Label.item_id == Item.id, Label.annotator == not_labeled_by, Label.current)
        query = query.where(~theirs)
    found = session.execute(query).all()
    annotators: dict[int, list[str]] = {item.id: [] for _, item in found}
    labels = sa.select(Label.item_id, Label.annotator).where(Label.item_id.in_(annotators), Label.current)
    for item_id, annotator in session.execute(labels.order_by(Label.id)):
        annotators[item_id].append(annotator)
    return [ListedSuspect(suspect, item, annotators[item.id]) for suspect, item in found]


def queue(session: Session, project: Project, *, count: int, annotator: str | None) -> queues.Queued:
    """Have the most doubtful `count` labeled again, by somebody else: `annotator`, of those that they have not labeled.
    Raises `NoSuspects`."""
    projects.lock_open(session, project)
    found = page(session, project, None, count, not_labeled_by=annotator)
    worst = [public_id("i", one.item.id) for one in found]
    if not worst:
        raise NoSuspects(project=public_id("p", project.id))
    return queues.add(session, project, worst, annotator)


def check(session: Session, project: Project) -> Job:
    """Check the labels now. Raises `NoScoreRun`, `NoLabels`."""
    projects.lock_open(session, project)
    if project.score_run_id is None:
        raise NoScoreRun(project=public_id("p", project.id))
    if project.labels_used == 0:
        raise NoLabels
    return session.get_one(Job, pipeline.queue_check_labels(session, project))

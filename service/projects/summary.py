"""One small object for dashboards. Counts come from partial indexes; nothing walks the pool (`service.pool.counts`)."""

from collections import Counter
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.orm import Session

from service.labeling import rounds
from service.models import jobs
from service.models.jobs import Waiting
from service.pool import counts
from service.projects.advice import Advice, RandomSelection, on_random_selection, on_stopping
from service.store import class_sets
from service.store.project_settings import ProjectSettings
from service.store.tables import (
    Head,
    Item,
    Job,
    Label,
    LabelCheck,
    PretextModel,
    Project,
    Ranking,
    Round,
    ScoreRun,
)

T = TypeVar("T")

# The conditions below are those of the partial indexes, word for word: only so they are used.
_DONE = "state = 'done' AND split = 'pool'"
_ASIDE = "state NOT IN ('available', 'done')"
_RATE_OVER = timedelta(hours=1)
_JOBS_SHOWN = 20


@dataclass(frozen=True)
class Metrics:
    project: Project
    settings: ProjectSettings
    states: dict[str, int]  # pool items by state
    test_items: int
    round: Round
    learning_curve: list[dict[str, Any]]
    labels_last_hour: int
    annotators_last_hour: int
    class_balance: dict[str, int]  # decided pool items by class, all classes of the project
    jobs: list[Job]  # queued and running
    waits_for: dict[int, str]  # of these, by number: what must come for a live worker to take them
    waiting: list[Waiting]  # the same of all jobs of the project, each once
    pretext_model: PretextModel | None
    score_run: ScoreRun | None
    ranking: Ranking | None
    head: Head | None
    head_note: str | None  # why the newest head is not the one in use
    advice: Advice
    random_selection: RandomSelection | None  # None before the first measured round
    label_check: LabelCheck | None  # the newest


def collect(session: Session, project: Project, now: datetime) -> Metrics:
    score_run = _current(session, ScoreRun, project.score_run_id)
    rate = session.execute(
        sa.select(sa.func.count(), sa.func.count(Label.annotator.distinct())).where(
            Label.project_id == project.id, Label.created_at > now - _RATE_OVER
        )
    ).one()
    balance = _counted(session, project, Item.class_name, _DONE)
    aside = _counted(session, project, Item.state, f"{_ASIDE} AND split = 'pool'")
    sizes = counts.sizes(session, project)
    settings = ProjectSettings.model_validate(project.settings)
    learning_curve = rounds.learning_curve(session, project)
    newest = rounds.newest_head(session, project)
    shown = [
        job
        for state in ("running", "queued")
        for job in jobs.page(session, only=project.id, state=state, limit=_JOBS_SHOWN)
    ]
    return Metrics(
        project=project,
        settings=settings,
        states={
            "available": max(0, sizes.pool - sum(balance.values()) - sum(aside.values())),
            "done": sum(balance.values()),
        }
        | aside,
        test_items=sizes.test - _count(session, project, f"{_ASIDE} AND split = 'test'"),
        round=rounds.open_round(session, project),
        learning_curve=learning_curve,
        labels_last_hour=rate[0],
        annotators_last_hour=rate[1],
        class_balance=_by_class(project, balance),
        jobs=shown,
        waits_for=jobs.waits_for(session, shown),
        waiting=jobs.waiting(session, project.id),
        pretext_model=_current(session, PretextModel, score_run.pretext_model_id if score_run else None),
        score_run=score_run,
        ranking=_current(session, Ranking, project.ranking_id),
        head=_current(session, Head, project.head_id),
        head_note=newest.metrics.get("note") if newest else None,
        advice=on_stopping(learning_curve, settings.round_size, rounds.figure_of(project)),
        random_selection=_random_selection(session, project),
        label_check=session.get(LabelCheck, project.id),
    )


def _by_class(project: Project, balance: dict[str, int]) -> dict[str, int]:
    """Items by class; an item of several counts for each."""
    found = Counter[str]()
    for text, items in balance.items():
        for name in class_sets.classes_in(text):
            found[name] += items
    return {name: found[name] for name in project.classes}


def _random_selection(session: Session, project: Project) -> RandomSelection | None:
    measured = rounds.newest_measured_head(session, project)
    if measured is None:
        return None
    curve = measured.metrics.get("random_curve", [])
    figure = rounds.figure_of(project)
    reached = measured.metrics[figure]
    return on_random_selection(curve, measured.labels_used, reached, figure) if reached is not None else None


def _current(session: Session, table: type[T], number: int | None) -> T | None:
    return session.get(table, number) if number is not None else None


def _count(session: Session, project: Project, which: str) -> int:
    query = sa.select(sa.func.count()).where(Item.project_id == project.id, sa.text(which))
    return session.scalar(query) or 0


def _counted(session: Session, project: Project, column: Any, which: str) -> dict[str, int]:
    query = sa.select(column, sa.func.count()).where(Item.project_id == project.id, sa.text(which))
    return dict(session.execute(query.group_by(column)).all())

"""Readiness of the service, and the metrics that operators watch."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from service.errors import NotMigrated, NotReady
from service.store import migrate
from service.store.catalogue import live_workers
from service.store.ids import public_id
from service.store.jobs import clock
from service.store.session import read_session
from service.store.tables import Delivery, Head, Job, Project, Ranking, Reservation, ScoreRun

_HOUR_S = 3600


def check_ready(engine: sa.Engine) -> int:
    """The number of live workers. Raises `NotReady`, which says what fails: database, migration or worker."""
    try:
        migrate.check(engine)
        with read_session(engine) as session:
            workers = len(live_workers(session))
    except sa.exc.DBAPIError as error:
        raise NotReady(what="database", reason=f"{error.orig}") from error
    except NotMigrated as error:
        raise NotReady(what="migration", reason=error) from error
    if workers == 0:
        raise NotReady(what="worker", reason="none is alive. Start one with `shortlist worker`.")
    return workers


@dataclass(frozen=True)
class Gauge:
    """A figure of the database, by Prometheus' conventions: a value for each combination of its labels."""

    name: str
    help: str
    labels: tuple[str, ...]
    values: dict[tuple[str, ...], float]


def gauges(engine: sa.Engine) -> list[Gauge]:
    """Figures that are the same whichever service is asked. Of archived projects none is told."""
    with read_session(engine) as session:
        now = session.scalars(sa.select(clock(session))).one()
        return [
            Gauge(
                "shortlist_workers_alive",
                "Workers that announced themselves lately",
                (),
                {(): len(live_workers(session))},
            ),
            *_of_jobs(session, now),
            *_of_projects(session, now),
            Gauge(
                "shortlist_webhook_deliveries",
                "Events on their way to webhooks, and given up",
                ("state",),
                _counts(session, Delivery.state, Delivery.state.in_(("pending", "dead"))),
            ),
        ]


def _of_jobs(session: Session, now: float) -> list[Gauge]:
    unfinished = sa.text("jobs.state IN ('queued', 'running')")
    by_state = sa.select(Job.state, Job.kind, sa.func.count()).where(unfinished).group_by(Job.state, Job.kind)
    due = sa.select(Job.kind, sa.func.min(Job.run_at)).where(
        sa.text("jobs.state = 'queued'"), Job.run_at <= now
    )
    failed = sa.select(Job.kind, sa.func.count()).where(
        Job.state == "failed", Job.finished_at > now - _HOUR_S
    )
    return [
        Gauge(
            "shortlist_jobs",
            "Jobs that are not ended",
            ("state", "kind"),
            {(state, kind): count for state, kind, count in session.execute(by_state)},
        ),
        Gauge(
            "shortlist_job_oldest_due_seconds",
            "How long the oldest job has waited for a worker",
            ("kind",),
            {(kind,): now - since for kind, since in session.execute(due.group_by(Job.kind))},
        ),
        Gauge(
            "shortlist_jobs_failed_last_hour",
            "Jobs that failed for good in the last hour",
            ("kind",),
            {(kind,): count for kind, count in session.execute(failed.group_by(Job.kind))},
        ),
    ]


def _of_projects(session: Session, now: float) -> list[Gauge]:
    query = (
        sa.select(Project.id, Project.labels_used, ScoreRun.finished_at, Ranking.created_at, Head.metrics)
        .outerjoin(ScoreRun, ScoreRun.id == Project.score_run_id)
        .outerjoin(Ranking, Ranking.id == Project.ranking_id)
        .outerjoin(Head, Head.id == Project.head_id)
        .where(Project.state != "archived")
    )
    in_time = Reservation.expires_at > datetime.fromtimestamp(now, UTC)
    held = _counts(session, Reservation.project_id, sa.text("reservations.state = 'open'"), in_time)
    active: dict[tuple[str, ...], float] = {}
    labels, scored, ranked, accuracy = dict(active), dict(active), dict(active), dict(active)
    for number, labels_used, scored_at, ranked_at, metrics in session.execute(query):
        name = (public_id("p", number),)
        active[name], labels[name] = held.get((str(number),), 0), labels_used
        if scored_at is not None:
            scored[name] = now - scored_at.timestamp()
        if ranked_at is not None:
            ranked[name] = now - ranked_at.timestamp()
        if metrics and metrics.get("accuracy") is not None:
            accuracy[name] = metrics["accuracy"]
    by = ("project",)
    return [
        Gauge("shortlist_projects", "Projects", ("state",), _counts(session, Project.state)),
        Gauge("shortlist_reservations_active", "Items that annotators hold", by, active),
        Gauge("shortlist_labels_used", "Labels that count for the budget", by, labels),
        Gauge("shortlist_score_run_age_seconds", "Since the served score run was finished", by, scored),
        Gauge("shortlist_ranking_age_seconds", "Since the served ranking was made", by, ranked),
        Gauge(
            "shortlist_head_accuracy_ratio",
            "Accuracy of the head in use, on test or control items",
            by,
            accuracy,
        ),
    ]


def _counts(
    session: Session,
    column: sa.orm.InstrumentedAttribute[Any],
    *where: sa.ColumnElement[bool] | sa.TextClause,
) -> dict[tuple[str, ...], float]:
    counted = sa.select(column, sa.func.count()).where(*where).group_by(column)
    return {(str(value),): count for value, count in session.execute(counted)}

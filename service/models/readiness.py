"""Readiness of the service, and the metrics that operators watch."""

import sqlalchemy as sa

from service.errors import NotMigrated, NotReady
from service.store import migrate
from service.store.catalogue import live_workers
from service.store.session import read_session
from service.store.tables import Job, Project


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


def figures(engine: sa.Engine) -> dict[str, float]:
    """Gauges, by Prometheus name."""
    with read_session(engine) as session:
        jobs = dict(
            session.execute(
                sa.select(Job.state, sa.func.count())
                .where(sa.text("state IN ('queued', 'running')"))
                .group_by(Job.state)
            ).all()
        )
        labels, projects = session.execute(
            sa.select(sa.func.coalesce(sa.func.sum(Project.labels_used), 0), sa.func.count())
        ).one()
        return {
            "shortlist_jobs_queued": jobs.get("queued", 0),
            "shortlist_jobs_running": jobs.get("running", 0),
            "shortlist_workers_alive": len(live_workers(session)),
            "shortlist_labels_used": float(labels),
            "shortlist_projects": projects,
        }

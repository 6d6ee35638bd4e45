"""Jobs have lanes and needs in the place of queues; workers say what they have.

Columns are added and dropped in place, on SQLite too: alembic's batch mode would copy the table, and the copy lose the
checks and the numbers of deleted rows, which must not be given away again.
"""

import json
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_QUEUED, _RUNNING = "state = 'queued'", "state = 'running'"
_LONG_KINDS = ("train_pretext", "score_pool")
_LONG_HEAD = "finetune"  # the only one of its kind before this revision
_CHUNK = 1_000

_jobs = sa.table(
    "jobs",
    *(sa.column(name) for name in ("id", "kind", "state", "project_id", "queue", "lane", "needs")),
    sa.column("payload", sa.JSON),
)
_workers = sa.table("workers", sa.column("id"), sa.column("queues", sa.JSON), sa.column("lanes", sa.JSON))
_projects = sa.table(
    "projects",
    *(sa.column(name) for name in ("id", "score_run_id", "head_id")),
    sa.column("settings", sa.JSON),
)
_models = sa.table("pretext_models", sa.column("id"), sa.column("task", sa.JSON))
_runs = sa.table("score_runs", sa.column("id"), sa.column("pretext_model_id"))
_heads = sa.table("heads", sa.column("id"), sa.column("kind", sa.JSON))
_catalogue = sa.table("catalogue", *(sa.column(name) for name in ("kind", "name", "lane")))


def upgrade() -> None:
    op.drop_index("ix_jobs_ready", "jobs")
    op.drop_index("ix_jobs_lease", "jobs")
    op.add_column("jobs", sa.Column("lane", sa.Text(), nullable=False, server_default="short"))
    op.add_column("jobs", sa.Column("needs", sa.Text(), nullable=False, server_default="[]"))
    op.add_column("workers", sa.Column("lanes", sa.JSON(), nullable=False, server_default="[]"))
    op.add_column("workers", sa.Column("has", sa.JSON(), nullable=False, server_default="[]"))
    op.add_column("catalogue", sa.Column("lane", sa.Text(), nullable=True))
    _say_lanes_and_needs(op.get_bind())
    op.drop_column("jobs", "queue")
    op.drop_column("workers", "queues")
    _create_index("ix_jobs_ready", ["lane", "needs", "priority", "run_at"], _QUEUED)
    _create_index("ix_jobs_lease", ["lane", "lease_until"], _RUNNING)


def downgrade() -> None:
    op.drop_index("ix_jobs_ready", "jobs")
    op.drop_index("ix_jobs_lease", "jobs")
    op.add_column("jobs", sa.Column("queue", sa.Text(), nullable=False, server_default="cpu"))
    op.add_column("workers", sa.Column("queues", sa.JSON(), nullable=False, server_default="[]"))
    connection = op.get_bind()
    # As they were queued before: by kind only.
    connection.execute(sa.update(_jobs).where(_jobs.c.kind.in_(_LONG_KINDS)).values(queue="gpu"))
    names = {"long": "gpu", "short": "cpu"}
    for worker in connection.execute(sa.select(_workers.c.id, _workers.c.lanes)).all():
        queues = [names[lane] for lane in worker.lanes if lane in names]
        connection.execute(sa.update(_workers).where(_workers.c.id == worker.id).values(queues=queues))
    for table, column in (
        ("jobs", "needs"),
        ("jobs", "lane"),
        ("workers", "has"),
        ("workers", "lanes"),
        ("catalogue", "lane"),
    ):
        op.drop_column(table, column)
    _create_index("ix_jobs_ready", ["queue", "priority", "run_at"], _QUEUED)
    _create_index("ix_jobs_lease", ["queue", "lease_until"], _RUNNING)


def _create_index(name: str, columns: list[str], where: str) -> None:
    condition = sa.text(where)
    op.create_index(name, "jobs", columns, sqlite_where=condition, postgresql_where=condition)


def _say_lanes_and_needs(connection: sa.Connection) -> None:
    """All jobs get their lane and need their kind; what is still to do also needs what its project's settings name."""
    connection.execute(sa.update(_jobs).where(_jobs.c.kind.in_(_LONG_KINDS)).values(lane="long"))
    for kind in connection.scalars(sa.select(_jobs.c.kind).distinct()).all():
        connection.execute(sa.update(_jobs).where(_jobs.c.kind == kind).values(needs=_text({f"kind:{kind}"})))
    unfinished = sa.select(_jobs.c.id).where(_jobs.c.state.in_(("queued", "running"))).order_by(_jobs.c.id)
    numbers = connection.scalars(unfinished).all()
    for first in range(0, len(numbers), _CHUNK):
        chunk = sa.select(_jobs).where(_jobs.c.id.in_(numbers[first : first + _CHUNK]))
        chunk = chunk.with_only_columns(_jobs.c.id, _jobs.c.kind, _jobs.c.project_id, _jobs.c.payload)
        for job in connection.execute(chunk).all():
            needs = {f"kind:{job.kind}"} | _plug_ins(connection, job)
            values = {"needs": _text(needs)}
            if job.kind == "train_head" and f"head:{_LONG_HEAD}" in needs:
                values["lane"] = "long"
            connection.execute(sa.update(_jobs).where(_jobs.c.id == job.id).values(values))
    names = {"gpu": "long", "cpu": "short"}
    for worker in connection.execute(sa.select(_workers.c.id, _workers.c.queues)).all():
        lanes = [names[queue] for queue in worker.queues if queue in names]
        connection.execute(sa.update(_workers).where(_workers.c.id == worker.id).values(lanes=lanes))
    finetune = (_catalogue.c.kind == "head", _catalogue.c.name == _LONG_HEAD)
    connection.execute(sa.update(_catalogue).where(*finetune).values(lane="long"))


def _plug_ins(connection: sa.Connection, job: Any) -> set[str]:
    """As `service.store.pipeline` said when this revision was made."""
    project = connection.execute(sa.select(_projects).where(_projects.c.id == job.project_id)).one_or_none()
    if project is None:
        return set()
    match job.kind:
        case "train_pretext":
            return {f"task:{_chosen(project, 'pretext_task', 'rotation')}"}
        case "score_pool" | "export_backbone":
            return _task_of(connection, job.payload.get("pretext_model_id"))
        case "probe_pretext":
            run = sa.select(_runs.c.pretext_model_id).where(_runs.c.id == project.score_run_id)
            return _task_of(connection, connection.scalar(run))
        case "train_head":
            return {f"head:{_chosen(project, 'head', 'linear')}"}
        case "rank":
            served = connection.scalar(sa.select(_heads.c.kind).where(_heads.c.id == project.head_id))
            names = {_chosen(project, setting, "shortlist") for setting in ("strategy", "cold_start")}
            heads = {f"head:{served['name']}"} if served and "name" in served else set()
            return {f"strategy:{name}" for name in names} | heads
        case _:
            return set()


def _chosen(project: Any, setting: str, default: str) -> str:
    choice = (project.settings or {}).get(setting, default)
    return str(choice.get("name", default) if isinstance(choice, dict) else choice)


def _task_of(connection: sa.Connection, model_id: int | None) -> set[str]:
    task = connection.scalar(sa.select(_models.c.task).where(_models.c.id == model_id))
    return {f"task:{task['name']}"} if task and "name" in task else set()


def _text(needs: set[str]) -> str:
    return json.dumps(sorted(needs))

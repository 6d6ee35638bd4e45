"""Connections to projects of a Label Studio: made, found, told, deleted; held by the one process that follows them."""

import secrets
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from service.access.keys import derived
from service.errors import ModalityFixed
from service.integrations.label_studio import batch_push
from service.integrations.label_studio.errors import ConnectedAlready, NotConnected, ToolClassesUnknown
from service.integrations.label_studio.labeling_config import LabelingConfig, as_project_writes
from service.labeling import batches
from service.projects import project_changes, projects
from service.store import modalities
from service.store.class_names import ClassNames
from service.store.ids import public_id
from service.store.jobs import clock
from service.store.tables import Project, ToolAnnotation, ToolConnection, ToolTask

LEASE_S = 60.0  # renewed with each step
REFUSALS_TOLD = 20
DEFAULT_TOP = 1_000
DEFAULT_LOW_WATER = 10


class LeaseLost(Exception):
    """Another process follows this connection now, or it was deleted."""


@dataclass(frozen=True)
class Report:
    """A connection, and what came of the tool's tasks and annotations."""

    connection: ToolConnection
    tasks: int
    tasks_open: int
    tasks_gone: int
    annotations: int
    refused: int
    refusals: list[str]


@dataclass(frozen=True)
class Claim:
    """A connection that is ours to follow until the lease runs out. full: its time had come; else it was hinted at, or
    there is a new ranking.
    """

    id: int
    project_id: int
    token: int
    full: bool


def create(
    session: Session,
    project: Project,
    *,
    url: str,
    tool_project: int,
    token: str,
    config: LabelingConfig,
    callback_url: str | None,
    top: int,
    batch_push: bool,
    low_water: int,
    pre_annotate: bool,
    add_classes: bool,
    tool_version: str | None,
    warning: str | None,
) -> ToolConnection:
    """token: encrypted. Raises `ConnectedAlready`, `ToolClassesUnknown`, `ModalityFixed`, `ProjectArchived`, and what
    changing a project raises.
    """
    projects.lock_open(session, project)
    _refuse_second(session, project, url, tool_project)
    if modalities.tell(session, project.id, config.kind) != config.kind:
        raise ModalityFixed(field="tool_project", kind=project.modality)
    known = ClassNames(project)  # a class that was renamed here may well keep its name there
    missing = [name for name in config.classes if known.now(as_project_writes(name, project.classes)) is None]
    if missing and not add_classes:
        raise ToolClassesUnknown(field="tool_project", project=project.name, missing=", ".join(missing))
    if missing:
        project_changes.change(
            session,
            project,
            changes={},
            name=None,
            classes=[*project.classes, *missing],
            state=None,
            if_match=None,
        )
    connection = ToolConnection(
        project_id=project.id,
        url=url,
        tool_project=tool_project,
        token=token,
        nonce=secrets.token_hex(16),
        callback_url=callback_url,
        config=config.as_row(),
        top=top,
        batch_push=batch_push,
        low_water=low_water,
        pre_annotate=pre_annotate,
        tool_version=tool_version,
        warning=warning,
        known_classes=list(project.classes),
    )
    session.add(connection)
    try:
        session.flush()
    except sa.exc.IntegrityError:  # made at the same moment
        session.rollback()
        raise ConnectedAlready(field="tool_project", what="one of both", with_what="just now") from None
    return connection


def _refuse_second(session: Session, project: Project, url: str, tool_project: int) -> None:
    same = sa.and_(ToolConnection.url == url, ToolConnection.tool_project == tool_project)
    query = sa.select(ToolConnection, Project.name).join(Project, Project.id == ToolConnection.project_id)
    for other, name in session.execute(query.where(sa.or_(ToolConnection.project_id == project.id, same))):
        if other.project_id == project.id:
            with_what = f"with project {other.tool_project} of {other.url}"
            raise ConnectedAlready(field="project", what=repr(project.name), with_what=with_what)
        raise ConnectedAlready(
            field="tool_project", what=f"project {tool_project} of {url}", with_what=f"with {name!r}"
        )


def find(session: Session, project: Project) -> ToolConnection:
    """Raises `NotConnected`."""
    found = session.scalar(sa.select(ToolConnection).where(ToolConnection.project_id == project.id))
    if found is None:
        raise NotConnected(project=public_id("p", project.id))
    return found


def report(session: Session, connection: ToolConnection) -> Report:
    tasks = session.execute(
        sa.select(sa.func.count(), sa.func.sum(sa.case((ToolTask.gone, 1), else_=0))).where(
            ToolTask.connection_id == connection.id
        )
    ).one()
    mine = ToolAnnotation.connection_id == connection.id
    annotations = session.scalar(sa.select(sa.func.count()).where(mine)) or 0
    refused_tasks = sa.select(ToolTask.task_id, ToolTask.refusal).where(
        ToolTask.connection_id == connection.id, ToolTask.refusal.is_not(None)
    )
    refused = sa.select(ToolAnnotation.annotation_id, ToolAnnotation.task_id, ToolAnnotation.refusal).where(
        mine, ToolAnnotation.refusal.is_not(None)
    )
    told = [
        f"Task {task} is no item: {why}."
        for task, why in session.execute(refused_tasks.order_by(ToolTask.task_id).limit(REFUSALS_TOLD))
    ]
    told += [
        f"Annotation {number} of task {task}: {why}."
        for number, task, why in session.execute(
            refused.order_by(ToolAnnotation.annotation_id.desc()).limit(REFUSALS_TOLD)
        )
    ]
    count = sum(
        session.scalar(sa.select(sa.func.count()).select_from(query.subquery())) or 0
        for query in (refused_tasks, refused)
    )
    untouched = batch_push.open_tasks(session, connection.id)
    return Report(
        connection, tasks[0], untouched, int(tasks[1] or 0), annotations, count, told[:REFUSALS_TOLD]
    )


def delete(session: Session, project: Project, connection: ToolConnection) -> None:
    """Items and labels stay."""
    projects.lock(session, project)
    batches.give_all_back(session, project, batch_push.HOLDER)  # what is open there is nobody's any more
    session.delete(connection)
    session.flush()


def webhook_url(connection: ToolConnection) -> str | None:
    """The address that the tool is to call; None where it cannot reach this service."""
    if connection.callback_url is None:
        return None
    return f"{connection.callback_url}{path(connection.project_id)}/webhook"


def path(project_id: int) -> str:
    """The address of this service's side of the connection: of its webhook, and as a machine-learning backend."""
    return f"/integrations/label-studio/{public_id('p', project_id)}"


def shared_secret(server_secret: bytes, nonce: str) -> str:
    """The secret that the tool's calls must carry. Derived, so that whoever reads the database cannot forge one."""
    return derived(server_secret, f"label studio {nonce}").hex()


def due(session: Session, hinted: Collection[int], busy: Collection[int]) -> list[int]:
    """Connections to follow now: their time has come, or, where nothing is wrong, there is something to do."""
    now = clock(session)
    something = sa.or_(
        ToolConnection.id.in_(hinted),
        sa.and_(
            Project.ranking_id.is_not(None),
            Project.state == "active",
            ToolConnection.seen_until.is_not(None),
            ToolConnection.pushed_ranking_id.is_distinct_from(Project.ranking_id),
        ),
    )
    query = (
        sa.select(ToolConnection.id)
        .join(Project, Project.id == ToolConnection.project_id)
        .where(Project.state != "archived", ToolConnection.lease_until <= now, ToolConnection.id.not_in(busy))
        .where(sa.or_(ToolConnection.next_at <= now, sa.and_(ToolConnection.failures == 0, something)))
        .order_by(ToolConnection.next_at)
    )
    return list(session.scalars(query))


def claim(session: Session, number: int) -> Claim | None:
    """None where another process was faster."""
    now = clock(session)
    full = session.scalar(sa.select(ToolConnection.next_at <= now).where(ToolConnection.id == number))
    row = session.execute(
        sa.update(ToolConnection)
        .where(ToolConnection.id == number, ToolConnection.lease_until <= now)
        .values(lease_until=now + LEASE_S, lease_token=ToolConnection.lease_token + 1)
        .returning(ToolConnection.project_id, ToolConnection.lease_token)
        .execution_options(synchronize_session=False)
    ).one_or_none()
    return None if row is None else Claim(number, row.project_id, row.lease_token, bool(full))


def held(session: Session, claimed: Claim) -> ToolConnection:
    """The connection, its lease renewed. Raises `LeaseLost`."""
    _set(session, claimed, lease_until=clock(session) + LEASE_S)
    return session.get_one(ToolConnection, claimed.id, populate_existing=True)


def release(session: Session, claimed: Claim, *, wait_s: float | None, **values: Any) -> None:
    """Whoever is first may have it again, once it is due: after `wait_s`, or when it was due anyway. Raises
    `LeaseLost`.
    """
    if wait_s is not None:
        values["next_at"] = clock(session) + wait_s
    _set(session, claimed, lease_until=0.0, **values)


def _set(session: Session, claimed: Claim, **values: Any) -> None:
    changed = session.execute(
        sa.update(ToolConnection)
        .where(ToolConnection.id == claimed.id, ToolConnection.lease_token == claimed.token)
        .values(**values)
        .returning(ToolConnection.id)
        .execution_options(synchronize_session=False)
    )
    if changed.one_or_none() is None:
        raise LeaseLost

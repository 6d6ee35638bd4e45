"""Follows the connected Label Studios, beside the requests of each service process; the rows say who follows which.

A call of a webhook only says "look now": it is unsigned, sent once, and comes in any order, so what it says is never
taken for true. Looking is always the same: the tasks that changed since the last look are read with their annotations,
and what is new is stored. So nothing is missed but until the next look, and nothing is stored twice.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import Any, TypeVar

import anyio
import anyio.to_thread
import sqlalchemy as sa
import structlog
from sqlalchemy.orm import Session

from service.errors import EmptyPool, ShortlistError
from service.http.dependencies import Parts
from service.integrations.label_studio import (
    annotations,
    batch_push,
    connect,
    connections,
    labeling_config,
    predictions,
    vault,
)
from service.integrations.label_studio import tasks as tool_tasks
from service.integrations.label_studio.batch_push import Entry
from service.integrations.label_studio.client import LabelStudio, NotDownloaded, Task
from service.integrations.label_studio.connections import Claim, LeaseLost
from service.integrations.label_studio.errors import ToolUnreachable
from service.integrations.label_studio.labeling_config import LabelingConfig
from service.integrations.label_studio.predictions import PREFIX, Push
from service.integrations.label_studio.tasks import Fetched
from service.models import training
from service.projects import projects
from service.store.ids import public_id
from service.store.session import read_session
from service.store.tables import PretextModel, Project, ToolAnnotation, ToolConnection, utc_now

TICK_S = 1.0
INTERVAL_S = 60.0
WITHOUT_WEBHOOK_S = 10.0
LONGEST_WAIT_S = 60.0  # after failures
AT_ONCE = 4  # connections
DOWNLOADS = 8
MOST_UNFETCHED = 20  # tasks in a look
SAMPLING = "Uncertainty sampling"
SECRET_HEADER = "X-Shortlist-Secret"
ACTIONS = (
    "ANNOTATION_CREATED",
    "ANNOTATIONS_CREATED",
    "ANNOTATION_UPDATED",
    "ANNOTATIONS_DELETED",
    "TASKS_CREATED",
    "TASKS_DELETED",
    "PROJECT_UPDATED",
)
# Looked back further than to the last look: what was being written then may carry an earlier time.
MARGIN = timedelta(seconds=5)
LONG_MARGIN = timedelta(minutes=5)

T = TypeVar("T")
log = structlog.get_logger()


class Syncer:
    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._hinted: set[int] = set()
        self._busy: set[int] = set()
        self._people: dict[int, dict[int, str]] = {}  # by connection

    def look(self, connection_id: int) -> None:
        """Soon: the tool says that something has changed. What is lost with the process is found a minute later."""
        self._hinted.add(connection_id)

    async def run(self) -> None:
        """Until cancelled. What is under way then is done again by whoever comes next."""
        async with anyio.create_task_group() as following:
            while True:
                for number in await self._due():
                    self._busy.add(number)
                    following.start_soon(self._follow, number)
                await anyio.sleep(TICK_S)

    async def _due(self) -> list[int]:
        hinted, busy = frozenset(self._hinted), frozenset(self._busy)  # requests add to them meanwhile

        def look() -> list[int]:
            with read_session(self._parts.engine) as session:
                return connections.due(session, hinted, busy)

        try:
            found = await anyio.to_thread.run_sync(look)
        except sa.exc.SQLAlchemyError as error:
            log.warning("database not reached", reason=str(getattr(error, "orig", error)))
            return []
        return found[: max(0, AT_ONCE - len(self._busy))]

    async def _follow(self, number: int) -> None:
        try:
            await self.follow(number)
        except (LeaseLost, sa.exc.SQLAlchemyError) as error:
            log.warning("label studio not followed", connection=number, reason=str(error) or "lease lost")
        finally:
            self._busy.discard(number)

    async def follow(self, number: int) -> None:
        """One look at one tool, if nobody else is looking."""
        self._hinted.discard(number)
        claimed = await self._parts.write(partial(connections.claim, number=number))
        if claimed is None:
            return
        run = _Run(self._parts, claimed, self._people.setdefault(number, {}))
        try:
            try:
                await run.all()
            except ShortlistError as error:
                await self._failed(claimed, str(error), run.failures)
            except LeaseLost:
                raise
            except Exception as error:  # whatever it is, it is told in the row, and it is tried again
                log.error("unexpected, following label studio", connection=number, exc_info=error)
                await self._failed(
                    claimed, "Something went wrong here; the service's log says more.", run.failures
                )
            else:
                wait_s = None
                if claimed.full:
                    wait_s = INTERVAL_S if run.has_webhook else WITHOUT_WEBHOOK_S
                values: dict[str, Any] = {"error": None, "failures": 0, "synced_at": utc_now()}
                await self._parts.write(
                    partial(connections.release, claimed=claimed, wait_s=wait_s, **values)
                )
        except anyio.get_cancelled_exc_class():
            with anyio.CancelScope(shield=True), suppress(LeaseLost, sa.exc.SQLAlchemyError):
                await self._parts.write(partial(connections.release, claimed=claimed, wait_s=0.0))
            raise

    async def _failed(self, claimed: Claim, why: str, failures: int) -> None:
        log.warning("label studio", connection=claimed.id, reason=why)
        wait_s = min(LONGEST_WAIT_S, 2.0 ** min(failures, 10))
        values: dict[str, Any] = {"error": why, "failures": failures + 1}
        await self._parts.write(partial(connections.release, claimed=claimed, wait_s=wait_s, **values))


@dataclass
class _Run:
    """One look: tasks and annotations come in, then a new ranking goes out.

    A hint costs the tool one call, as it is slow and people wait for it; what changes seldom is asked for when the time
    of a full look has come.
    """

    parts: Parts
    claimed: Claim
    people: dict[int, str]
    failures: int = 0
    has_webhook: bool = False
    unfetched: list[ShortlistError] = field(default_factory=list)  # tasks that are looked at again next time

    async def all(self) -> None:
        connection, project = await self._read()
        self.failures = connection.failures
        token = vault.decrypted(self.parts.secret, connection.token)
        async with connect.client(self.parts.settings, connection.url, token) as tool:
            config = LabelingConfig.stored(connection.config)
            self.has_webhook = connection.has_webhook
            if self.claimed.full:
                await self._version(tool, connection)
                self.people.update(await tool.people())
                config = await self._config(tool, connection)
                await self._webhook(tool, connection)
            await self._pull(tool, connection, config)
            if project.state == "active" and connection.batch_push:
                await self._fill(tool, connection, config)
            elif project.state == "active":
                await self._push(tool)
        if self.unfetched:
            raise self.unfetched[0]

    async def _read(self) -> tuple[ToolConnection, Project]:
        def read() -> tuple[ToolConnection, Project]:
            with read_session(self.parts.engine) as session:
                connection = session.get(ToolConnection, self.claimed.id)
                if connection is None:
                    raise LeaseLost
                return connection, session.get_one(Project, connection.project_id)

        return await anyio.to_thread.run_sync(read)

    async def _write(self, do: Callable[[Session, Project, ToolConnection], T]) -> T:
        """One step: with the lease renewed and the project locked."""

        def step(session: Session) -> T:
            connection = connections.held(session, self.claimed)
            project = projects.find(session, public_id("p", self.claimed.project_id))
            projects.lock_open(session, project)
            return do(session, project, connection)

        async with self.parts.turns.of(public_id("p", self.claimed.project_id)):
            return await self.parts.write(step)

    async def _version(self, tool: LabelStudio, connection: ToolConnection) -> None:
        """It is upgraded while it is followed, too."""
        version = await tool.version()

        def note(session: Session, project: Project, connection: ToolConnection) -> None:
            connection.tool_version, connection.warning = version, connect.version_warning(version)

        if version != connection.tool_version:
            await self._write(note)

    async def _config(self, tool: LabelStudio, connection: ToolConnection) -> LabelingConfig:
        """As it is now: people change it while they label. The first time, the tool is told to order its tasks by
        predictions, or, where they are made in their order, by number. Raises `LabelingConfigUnusable`.
        """
        project = await tool.project(connection.tool_project)
        sampling = batch_push.SAMPLING if connection.batch_push else SAMPLING
        if connection.synced_at is None and project.get("sampling") != sampling:
            await tool.change_project(connection.tool_project, sampling=sampling)
        config = labeling_config.parse(str(project.get("label_config", "")))
        if config != LabelingConfig.stored(connection.config):

            def note(session: Session, project: Project, connection: ToolConnection) -> None:
                connection.config = config.as_row()
                connection.seen_until = None  # all is read anew
                if connection.pre_annotate:
                    connection.pushed_ranking_id = None  # what it shows beforehand names the control
                _refused_look_new(session, connection)

            await self._write(note)
        return config

    async def _webhook(self, tool: LabelStudio, connection: ToolConnection) -> None:
        """There is one, with the secret: that of the dialog "Connect model" comes without."""
        url = connections.webhook_url(connection)
        self.has_webhook = False
        if url is not None:
            secret = connections.shared_secret(self.parts.secret, connection.nonce)
            headers = {SECRET_HEADER: secret}
            mine = [hook for hook in await tool.webhooks(connection.tool_project) if hook.get("url") == url]
            for hook in mine:
                if hook.get("headers") != headers or not hook.get("is_active", True):
                    await tool.change_webhook(hook["id"], headers)
            self.has_webhook = bool(mine) or await tool.create_webhook(
                connection.tool_project, url, ACTIONS, headers
            )
        if self.has_webhook != connection.has_webhook:
            await self._write(partial(_note_webhook, has_webhook=self.has_webhook))

    async def _pull(self, tool: LabelStudio, connection: ToolConnection, config: LabelingConfig) -> None:
        since = await self._since()
        async for page in tool.tasks(connection.tool_project, since):
            await self._take(tool, page, config)
        some_missed = self.claimed.full and await self._deleted(tool, connection)
        if tool.now is not None and not self.unfetched:
            await self._write(partial(_seen, until=None if some_missed else tool.now.isoformat()))

    async def _since(self) -> datetime | None:
        """None: everything is read, the first time and where what was refused may be taken now."""
        seen_until = await self._write(_seen_until)
        if seen_until is None:
            return None
        return datetime.fromisoformat(seen_until) - (LONG_MARGIN if self.claimed.full else MARGIN)

    async def _take(self, tool: LabelStudio, page: Sequence[Task], config: LabelingConfig) -> None:
        if not {each.by for task in page for each in task.annotations} <= {None, *self.people}:
            self.people.update(await tool.people())

        def known() -> tuple[dict[int, str], dict[int, int]]:
            with read_session(self.parts.engine) as session:
                return (
                    tool_tasks.known_digests(session, self.claimed.id, page),
                    batch_push.made_for(session, self.parts.secret, self.claimed.project_id, page),
                )

        before, made_for = await anyio.to_thread.run_sync(known)
        digests = {task.id: tool_tasks.digest_of(task, config) for task in page}
        wanted = [
            Fetched(task, digests[task.id], made_for.get(task.id))
            for task in page
            if before.get(task.id) != digests[task.id]
        ]
        new = await self._fetch(tool, wanted, config)
        _, project = await self._read()
        await anyio.to_thread.run_sync(tool_tasks.keep, self.parts.artifacts, project, new)

        def step(session: Session, project: Project, connection: ToolConnection) -> int:
            tool_tasks.register(session, project, connection, new)
            if connection.batch_push:
                batch_push.note_arms(session, project, connection, [one.task.id for one in new])
            return annotations.store(session, project, connection, config, page, self.people)

        changed = await self._write(step)
        if new or changed:
            log.info("label studio", connection=self.claimed.id, tasks=len(new), annotations=changed)

    async def _fetch(
        self, tool: LabelStudio, wanted: Sequence[Fetched], config: LabelingConfig
    ) -> list[Fetched]:
        """The tasks whose bytes could be had, or never can; several are fetched at a time. Raises `ToolUnreachable`
        where many could not: then it is down, and the others need not be tried.
        """
        done: list[Fetched] = []

        async def fetch(one: Fetched) -> None:
            if one.pushed is not None:  # what it shows came from here
                done.append(one)
                return
            try:
                data = await self._bytes_of(tool, one.task, config)
            except NotDownloaded as error:
                one.refusal = str(error)
            except ShortlistError as error:
                self.unfetched.append(error)
                return
            else:
                await anyio.to_thread.run_sync(
                    tool_tasks.looked_at, one, data, config, self.parts.limits, self.claimed.project_id
                )
            done.append(one)

        for first in range(0, len(wanted), DOWNLOADS):
            async with anyio.create_task_group() as fetching:
                for one in wanted[first : first + DOWNLOADS]:
                    fetching.start_soon(fetch, one)
            if len(self.unfetched) >= MOST_UNFETCHED:
                raise self.unfetched[0]
            if config.kind != "text" or config.text_at_url:
                await self.parts.write(
                    partial(connections.held, claimed=self.claimed)
                )  # they take their time
        return sorted(done, key=lambda one: one.task.id)

    async def _bytes_of(self, tool: LabelStudio, task: Task, config: LabelingConfig) -> bytes:
        shown = task.data.get(config.data_key)
        if not isinstance(shown, str) or not shown:
            raise NotDownloaded(f"its data has no text in {config.data_key!r}")
        if config.kind == "text" and not config.text_at_url:
            return shown.encode(errors="replace")
        return await tool.download(shown)

    async def _deleted(self, tool: LabelStudio, connection: ToolConnection) -> bool:
        """Tasks that are not there any more are looked for when their number does not fit: no event tells of all.
        True where others were missed.
        """

        def known() -> int:
            with read_session(self.parts.engine) as session:
                return tool_tasks.count(session, self.claimed.id)

        found = await tool.project(connection.tool_project)
        if found.get("task_number") == await anyio.to_thread.run_sync(known):
            return False
        there = await tool.task_numbers(connection.tool_project)

        def step(session: Session, project: Project, connection: ToolConnection) -> bool:
            return tool_tasks.put_gone_aside(session, project, connection, there)

        return await self._write(step)

    async def _push(self, tool: LabelStudio) -> None:
        """A model version a ranking. Whatever a killed push left of this one goes first, so none is there twice; the
        tool is told to follow it when all of it is there; then what went before is deleted.
        """
        push = await self._write(_planned)
        if push is None:
            return
        number = (await self._read())[0].tool_project
        versions = await tool.model_versions(number)
        if push.tasks:
            if push.model_version in versions:
                await tool.delete_predictions(number, push.model_version)
            await tool.import_predictions(number, push.predictions())
            stored = (await tool.model_versions(number)).get(push.model_version)
            if stored != len(push.tasks):
                raise ToolUnreachable(
                    url=tool.url, reason=f"of {len(push.tasks)} predictions it stored {stored or 0}"
                )
            await tool.change_project(number, model_version=push.model_version)
            for version in versions:
                if version.startswith(PREFIX) and version != push.model_version:
                    await tool.delete_predictions(number, version)
        await self._write(partial(_pushed, push=push))
        log.info(
            "label studio", connection=self.claimed.id, pushed=push.model_version, predictions=len(push.tasks)
        )

    async def _fill(self, tool: LabelStudio, connection: ToolConnection, config: LabelingConfig) -> None:
        """Tasks that are no work any more go; then, where few are left, the next ones are made.

        What was made is not taken from the answer: it is found by looking, as it is when the answer was never heard.
        """
        surplus = await self._write(lambda session, _, connection: batch_push.surplus(session, connection.id))
        gone = [number for number in surplus if await tool.delete_untouched(number)]
        if gone:
            await self._write(lambda session, _, connection: batch_push.note_gone(session, connection, gone))
        entries = await self._write(batch_push.planned)
        if not entries:
            return
        unshown = await self._make(tool, connection, config, entries)
        await self._pull(tool, connection, config)
        missing = len(await self._write(_still_to_be_made)) - len(unshown)
        log.info("label studio", connection=self.claimed.id, tasks_made=len(entries) - len(unshown) - missing)
        if unshown:
            raise unshown[0]
        if missing > 0:
            raise ToolUnreachable(url=tool.url, reason=f"of {len(entries)} tasks it stored all but {missing}")

    async def _make(
        self,
        tool: LabelStudio,
        connection: ToolConnection,
        config: LabelingConfig,
        entries: Sequence[Entry],
    ) -> list[ShortlistError]:
        """Why some cannot be made now; they are tried again."""
        parts, unshown = self.parts, list[ShortlistError]()

        def task_of(entry: Entry) -> dict[str, Any] | None:
            with read_session(parts.engine) as session:
                project = session.get_one(Project, self.claimed.project_id)
                try:
                    shown = batch_push.shown(
                        session, project, entry.item, config, parts.item_bytes, parts.limits
                    )
                except ShortlistError as error:
                    unshown.append(error)
                    return None
                return batch_push.task_of(
                    entry, shown, project, config, parts.secret, connection.pre_annotate
                )

        tasks: list[dict[str, Any]] = []
        for place, entry in enumerate(entries, 1):
            task = await anyio.to_thread.run_sync(task_of, entry)
            tasks += [task] if task is not None else []
            size = sum(len(one["data"][config.data_key]) for one in tasks)
            if tasks and (size > batch_push.CALL_BYTES or place == len(entries)):
                await self.parts.write(partial(connections.held, claimed=self.claimed))
                await tool.import_tasks(connection.tool_project, tasks)
                tasks.clear()
        return unshown


def _still_to_be_made(session: Session, project: Project, connection: ToolConnection) -> list[Entry]:
    return batch_push.to_be_made(session, project, connection, utc_now())


def _note_webhook(_: Session, __: Project, connection: ToolConnection, has_webhook: bool) -> None:
    connection.has_webhook = has_webhook


def _seen(session: Session, project: Project, connection: ToolConnection, until: str | None) -> None:
    """The first time all tasks are items now: the pretext model is trained, unless there is one."""
    if connection.synced_at is None and connection.seen_until is None:
        models = sa.select(PretextModel.id).where(PretextModel.project_id == project.id)
        if project.pretext_from_id is None and session.scalar(models.limit(1)) is None:
            with suppress(EmptyPool):
                training.pretrain(session, project)
    connection.seen_until = until


def _seen_until(session: Session, project: Project, connection: ToolConnection) -> str | None:
    """None also where annotations were refused and the project has other classes now: they are looked at again."""
    if connection.known_classes != project.classes:
        connection.known_classes = list(project.classes)
        if _refused_look_new(session, connection):
            return None
    return connection.seen_until


def _refused_look_new(session: Session, connection: ToolConnection) -> bool:
    """Refused annotations are taken for changed when they are read again; true if there are any."""
    refused = sa.select(ToolAnnotation).where(
        ToolAnnotation.connection_id == connection.id, ToolAnnotation.refusal.is_not(None)
    )
    found = session.scalars(refused).all()
    for row in found:
        row.updated_at = ""
    return bool(found)


def _planned(session: Session, project: Project, connection: ToolConnection) -> Push | None:
    push = predictions.planned(session, project, connection)
    if push is not None:
        predictions.note(session, connection, push)
    return push


def _pushed(_: Session, __: Project, connection: ToolConnection, push: Push) -> None:
    connection.pushed_ranking_id = push.ranking_id
    connection.model_version, connection.predictions = push.model_version, len(push.tasks)

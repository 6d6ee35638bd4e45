"""The client for programs on asyncio: `AsyncShortlist`. Its methods do what those of `client` of the same names do."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping, Sequence
from contextlib import aclosing
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar
from weakref import WeakSet

import httpx2 as httpx
from pydantic import JsonValue

from shortlist_client.client import GIVE_UP_AFTER_S, TIMEOUT_S, ItemFields, address_and_headers, request_of
from shortlist_client.flows import Api, Flow, Pause, ProjectApi, Step, event_of
from shortlist_client.holding import Handed, Holding
from shortlist_client.models import (
    Batch,
    CurvePoint,
    Event,
    ItemInfo,
    ItemsAdded,
    Job,
    Label,
    LabelsImported,
    LabelsStored,
    Metrics,
    OnProgress,
    ProjectInfo,
    SimilarItem,
    Skip,
)

T = TypeVar("T")


class AsyncShortlist:
    """A service, reached over HTTP; as `Shortlist`, with `http` an `httpx.AsyncClient`."""

    def __init__(
        self,
        url: str | None = None,
        key: str | None = None,
        *,
        give_up_after_s: float = GIVE_UP_AFTER_S,
        timeout: float | httpx.Timeout = TIMEOUT_S,
        http: httpx.AsyncClient | None = None,
    ) -> None:
        self._url, self._headers = address_and_headers(url, key)
        self._own = http is None
        self._http = http or httpx.AsyncClient(timeout=timeout)
        self._api = Api(give_up_after_s)
        self._annotating: WeakSet[AsyncAnnotating] = WeakSet()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        for annotating in list(self._annotating):
            await annotating.aclose()
        if self._own:
            await self._http.aclose()

    async def run(self, flow: Flow[T]) -> T:
        """Do what the flow asks for, until it is at its end."""
        try:
            step = next(flow)
            while True:
                try:
                    answer = await self._done(step)
                except httpx.TransportError as error:
                    step = flow.throw(error)
                else:
                    step = flow.send(answer)
        except StopIteration as end:
            result: T = end.value
            return result

    async def _done(self, step: Step) -> httpx.Response | None:
        if isinstance(step, Pause):
            await asyncio.sleep(step.seconds)
            return None
        request = request_of(self._http, step, self._url, self._headers)
        response = await self._http.send(request, stream=step.stream)
        if step.stream and response.is_error:
            async with aclosing(response):
                await response.aread()
        return response

    async def ready(self) -> bool:
        return await self.run(self._api.ready())

    async def get(self, path: str, **params: Any) -> Any:
        return await self.run(self._api.json("GET", path, **params))

    async def post(self, path: str, body: object = None) -> Any:
        return await self.run(self._api.json("POST", path, {} if body is None else body))

    async def pages(self, path: str, **params: Any) -> AsyncIterator[Any]:
        cursor: str | None = None
        while True:
            found, cursor = await self.run(self._api.page(path, params, cursor))
            for each in found:
                yield each
            if cursor is None:
                return

    async def create_project(self, name: str, classes: Sequence[str], **settings: Any) -> "AsyncProject":
        return AsyncProject(self, await self.run(self._api.create_project(name, classes, settings)))

    async def project(self, name_or_id: str | None = None) -> "AsyncProject":
        return AsyncProject(self, await self.run(self._api.project(name_or_id)))

    async def projects(self) -> "list[AsyncProject]":
        return [AsyncProject(self, info) for info in await self.run(self._api.projects())]

    async def job(self, job_id: str) -> Job:
        return await self.run(self._api.job(job_id))

    async def wait_for(
        self, job: Job | str, *, on_progress: OnProgress | None = None, timeout_s: float | None = None
    ) -> Job:
        return await self.run(self._api.wait_for(job, on_progress, timeout_s))


class AsyncProject:
    def __init__(self, client: AsyncShortlist, info: ProjectInfo) -> None:
        self.client, self.info = client, info
        self._api = ProjectApi(client._api, info.id)

    def __repr__(self) -> str:
        return f"AsyncProject({self.info.name!r}, {self.info.id})"

    @property
    def id(self) -> str:
        return self.info.id

    @property
    def name(self) -> str:
        return self.info.name

    @property
    def classes(self) -> list[str]:
        return self.info.classes

    async def refresh(self) -> Self:
        self.info = await self.client.run(self._api.info())
        return self

    async def update(self, **changes: Any) -> Self:
        self.info = await self.client.run(self._api.update(changes))
        return self

    async def delete(self) -> None:
        await self.client.run(self._api.delete())

    async def add_source(self, uri: str, **options: Any) -> Job:
        return await self.client.run(self._api.add_source(uri, options))

    async def add_items(self, items: Iterable[Mapping[str, Any]]) -> ItemsAdded:
        return await self.client.run(self._api.add_items(items))

    async def pretrain(self) -> Job:
        return await self.client.run(self._api.pretrain())

    async def retrain(self) -> Job:
        return await self.client.run(self._api.retrain())

    async def jobs(self, kind: str | None = None) -> list[Job]:
        return await self.client.run(self._api.jobs(kind))

    async def wait_for(
        self, job: Job | str, *, on_progress: OnProgress | None = None, timeout_s: float | None = None
    ) -> Job:
        return await self.client.wait_for(job, on_progress=on_progress, timeout_s=timeout_s)

    async def wait_until_idle(self, *, timeout_s: float | None = None) -> Metrics:
        return await self.client.run(self._api.wait_until_idle(timeout_s))

    async def metrics(self) -> Metrics:
        return await self.client.run(self._api.metrics())

    async def curve(self) -> list[CurvePoint]:
        return (await self.metrics()).learning_curve

    async def items(self, **filters: Any) -> AsyncIterator[ItemInfo]:
        cursor: str | None = None
        while True:
            found, cursor = await self.client.run(self._api.items(filters, cursor))
            for each in found:
                yield each
            if cursor is None:
                return

    async def similar(
        self, *positive: str, negative: Sequence[str] = (), **options: Any
    ) -> list[SimilarItem]:
        body = {"positive": list(positive), "negative": list(negative), **options}
        return await self.client.run(self._api.similar(body))

    async def read(self, item: str, *, size: int | None = None) -> bytes:
        return await self.client.run(self._api.read(item, size))

    async def next_batch(self, annotator: str | None = None, *, size: int = 10, new: bool = False) -> Batch:
        batch, _ = await self.client.run(self._api.next_batch(annotator, size, new))
        return batch

    def annotate(
        self, annotator: str | None = None, *, size: int = 10, limit: int | None = None, wait: bool = False
    ) -> "AsyncAnnotating":
        """`async with project.annotate("ann") as items:` and in it `async for item in items:`. Without the first line a
        loop that is broken off gives back a little later, when the event loop closes its iterator."""
        return AsyncAnnotating(self, Holding(self._api, annotator, size=size, limit=limit, wait=wait))

    async def label(self, labels: Iterable[Label | Mapping[str, Any]]) -> LabelsStored:
        return await self.client.run(self._api.label(labels))

    async def import_labels(
        self, labels: Iterable[Label | Mapping[str, Any]], *, annotator: str | None = None
    ) -> LabelsImported:
        return await self.client.run(self._api.import_labels(labels, annotator))

    async def labels(self, *, history: bool = False) -> AsyncIterator[dict[str, Any]]:
        async with aclosing(await self.client.run(self._api.open_labels("ndjson", history))) as response:
            async for line in response.aiter_lines():
                yield json.loads(line)

    async def export_labels(self, file: str | Path, format: str = "csv", *, history: bool = False) -> None:
        async with aclosing(await self.client.run(self._api.open_labels(format, history))) as response:
            with Path(file).open("wb") as out:
                async for piece in response.aiter_bytes():
                    out.write(piece)

    async def events(self) -> AsyncIterator[Event]:
        last: str | None = None
        while True:
            async with aclosing(await self.client.run(self._api.open_events(last))) as response:
                try:
                    async for sent in httpx.EventSource(response):
                        if (event := event_of(sent)) is not None:
                            last = event.id
                            yield event
                            if event.event == "deleted":
                                return
                except httpx.TransportError:
                    continue


class AsyncAnnotating:
    """The items of one annotator. An asynchronous context manager, too; leaving it gives back what was not labeled."""

    def __init__(self, project: AsyncProject, holding: Holding) -> None:
        self.project = project
        self._holding = holding
        self._renewing: asyncio.Task[None] | None = None

    @property
    def reason(self) -> str | None:
        return self._holding.reason

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def __aiter__(self) -> "AsyncGenerator[AsyncItem]":
        if self._renewing is None:
            self._renewing = asyncio.create_task(self._renew(), name="shortlist-renew")
            self.project.client._annotating.add(self)
        try:
            while (handed := await self.project.client.run(self._holding.next())) is not None:
                yield AsyncItem(self, handed)
        finally:
            await self.aclose()

    async def aclose(self) -> None:
        """Give back what was not labeled; twice is fine."""
        renewing, self._renewing = self._renewing, None
        self.project.client._annotating.discard(self)
        if renewing is not None:
            renewing.cancel()
            await asyncio.wait([renewing])
            await self.project.client.run(self._holding.give_back())

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(self._holding.look_again_s())
            await self.project.client.run(self._holding.renew())


class AsyncItem(ItemFields):
    def __init__(self, annotating: AsyncAnnotating, handed: Handed) -> None:
        super().__init__(handed)
        self._annotating = annotating

    async def read(self, *, size: int | None = None) -> bytes:
        return await self._annotating.project.read(self.id, size=size)

    async def label(self, class_name: str | Sequence[str], *, annotation: JsonValue = None) -> str:
        return await self._send(
            self._annotating._holding.label(self._handed, class_name, annotation=annotation)
        )

    async def skip(self, reason: Skip = "unsure") -> str:
        return await self._send(self._annotating._holding.label(self._handed, None, skip=reason))

    async def undo(self) -> str:
        return await self._send(self._annotating._holding.label(self._handed, None, withdraw=True))

    async def _send(self, flow: Flow[str]) -> str:
        return await self._annotating.project.client.run(flow)

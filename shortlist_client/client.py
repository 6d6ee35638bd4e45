"""The client for programs that wait: `Shortlist`."""

import json
import os
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar
from weakref import WeakSet

import httpx2 as httpx
from pydantic import JsonValue

from shortlist_client.flows import Api, Call, Flow, Pause, ProjectApi, Step, event_of
from shortlist_client.holding import Handed, Holding
from shortlist_client.models import (
    Batch,
    BatchItem,
    Content,
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
    Prediction,
    ProjectInfo,
    SimilarItem,
    Skip,
)

T = TypeVar("T")

HERE = "http://127.0.0.1:8000"
TIMEOUT_S = 60.0
GIVE_UP_AFTER_S = 60.0
USER_AGENT = "shortlist-client/0.1.0"


def address_and_headers(url: str | None, key: str | None) -> tuple[str, dict[str, str]]:
    """The address of the service, and the headers of each request. Raises `ValueError` for a key that is none."""
    url = url or os.environ.get("SHORTLIST_URL") or HERE
    key = key or os.environ.get("SHORTLIST_KEY")
    headers = {"User-Agent": USER_AGENT}
    if key:
        if not (key.isascii() and key.isprintable()):  # else the header cannot be sent
            raise ValueError("`key`: it has characters that no key has. Copy it again, all of it.")
        headers["Authorization"] = f"Bearer {key}"
    return url.rstrip("/"), headers


class Shortlist:
    """A service, reached over HTTP. A context manager; closing it gives back what annotators hold.

    url               of the service; else SHORTLIST_URL, else `http://127.0.0.1:8000`
    key               else SHORTLIST_KEY
    give_up_after_s   how long a request is sent again while nobody answers or the service is busy
    timeout           of a single attempt, in seconds, or as httpx takes it
    http              an `httpx.Client` of your own, for proxies and certificates; it stays open
    """

    def __init__(
        self,
        url: str | None = None,
        key: str | None = None,
        *,
        give_up_after_s: float = GIVE_UP_AFTER_S,
        timeout: float | httpx.Timeout = TIMEOUT_S,
        http: httpx.Client | None = None,
    ) -> None:
        self._url, self._headers = address_and_headers(url, key)
        self._own = http is None
        self._http = http or httpx.Client(timeout=timeout)
        self._api = Api(give_up_after_s)
        self._annotating: WeakSet[Annotating] = WeakSet()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        for annotating in list(self._annotating):
            annotating.close()
        if self._own:
            self._http.close()

    def run(self, flow: Flow[T]) -> T:
        """Do what the flow asks for, until it is at its end."""
        try:
            step = next(flow)
            while True:
                try:
                    answer = self._done(step)
                except httpx.TransportError as error:
                    step = flow.throw(error)
                else:
                    step = flow.send(answer)
        except StopIteration as end:
            result: T = end.value
            return result

    def _done(self, step: Step) -> httpx.Response | None:
        if isinstance(step, Pause):
            time.sleep(step.seconds)
            return None
        response = self._http.send(request_of(self._http, step, self._url, self._headers), stream=step.stream)
        if step.stream and response.is_error:
            with closing(response):
                response.read()
        return response

    def ready(self) -> bool:
        """True where the service answers, its database is there and migrated, and a worker is alive."""
        return self.run(self._api.ready())

    def get(self, path: str, **params: Any) -> Any:
        """Any GET of the API that answers JSON, as plain data."""
        return self.run(self._api.json("GET", path, **params))

    def post(self, path: str, body: object = None) -> Any:
        """Any POST, sent again where it is not answered; it is done once."""
        return self.run(self._api.json("POST", path, {} if body is None else body))

    def pages(self, path: str, **params: Any) -> Iterator[Any]:
        """Every element of a list that comes in pages."""
        cursor: str | None = None
        while True:
            found, cursor = self.run(self._api.page(path, params, cursor))
            yield from found
            if cursor is None:
                return

    def create_project(self, name: str, classes: Sequence[str], **settings: Any) -> "Project":
        """settings: as `POST /projects` takes them, e.g. `round_size=50`."""
        return Project(self, self.run(self._api.create_project(name, classes, settings)))

    def project(self, name_or_id: str | None = None) -> "Project":
        """By name, else by id; without either the only one there is. Raises `NotFound`."""
        return Project(self, self.run(self._api.project(name_or_id)))

    def projects(self) -> "list[Project]":
        return [Project(self, info) for info in self.run(self._api.projects())]

    def job(self, job_id: str) -> Job:
        return self.run(self._api.job(job_id))

    def wait_for(
        self, job: Job | str, *, on_progress: OnProgress | None = None, timeout_s: float | None = None
    ) -> Job:
        """The job once it succeeded. Raises `JobFailed`, `TimedOut`."""
        return self.run(self._api.wait_for(job, on_progress, timeout_s))


def request_of(
    http: httpx.Client | httpx.AsyncClient, call: Call, url: str, headers: Mapping[str, str]
) -> httpx.Request:
    return http.build_request(
        call.method,
        f"{url}{call.path}",
        params=dict(call.params),
        json=call.body,
        content=call.content,
        headers={**headers, **call.headers},
    )


class Project:
    """A project of the service. `info` is what it was when it was asked for."""

    def __init__(self, client: Shortlist, info: ProjectInfo) -> None:
        self.client, self.info = client, info
        self._api = ProjectApi(client._api, info.id)

    def __repr__(self) -> str:
        return f"Project({self.info.name!r}, {self.info.id})"

    @property
    def id(self) -> str:
        return self.info.id

    @property
    def name(self) -> str:
        return self.info.name

    @property
    def classes(self) -> list[str]:
        return self.info.classes

    def refresh(self) -> Self:
        self.info = self.client.run(self._api.info())
        return self

    def update(self, **changes: Any) -> Self:
        """Name, classes, state or settings: `update(state="paused")`."""
        self.info = self.client.run(self._api.update(changes))
        return self

    def delete(self) -> None:
        """With all that is stored of it."""
        self.client.run(self._api.delete())

    def add_source(self, uri: str, **options: Any) -> Job:
        """Import a folder, a table or a bucket that the service sees; `wait_for` the job. options: `split`,
        `label_column`, `accept_missing`."""
        return self.client.run(self._api.add_source(uri, options))

    def add_items(self, items: Iterable[Mapping[str, Any]]) -> ItemsAdded:
        """Items by `key` and `uri`, or with their `text`; any number."""
        return self.client.run(self._api.add_items(items))

    def pretrain(self) -> Job:
        return self.client.run(self._api.pretrain())

    def retrain(self) -> Job:
        return self.client.run(self._api.retrain())

    def jobs(self, kind: str | None = None) -> list[Job]:
        """Newest first, the last hundred."""
        return self.client.run(self._api.jobs(kind))

    def wait_for(
        self, job: Job | str, *, on_progress: OnProgress | None = None, timeout_s: float | None = None
    ) -> Job:
        """The job once it succeeded. Raises `JobFailed`, `TimedOut`."""
        return self.client.wait_for(job, on_progress=on_progress, timeout_s=timeout_s)

    def wait_until_idle(self, *, timeout_s: float | None = None) -> Metrics:
        """The metrics once no job is queued or running. Raises `TimedOut`."""
        return self.client.run(self._api.wait_until_idle(timeout_s))

    def metrics(self) -> Metrics:
        return self.client.run(self._api.metrics())

    def curve(self) -> list[CurvePoint]:
        """The learning curve: accuracy against labels used, a point a measured round."""
        return self.metrics().learning_curve

    def items(self, **filters: Any) -> Iterator[ItemInfo]:
        """`state`, `split`, `sort` and the others of `GET …/items`."""
        cursor: str | None = None
        while True:
            found, cursor = self.client.run(self._api.items(filters, cursor))
            yield from found
            if cursor is None:
                return

    def similar(self, *positive: str, negative: Sequence[str] = (), **options: Any) -> list[SimilarItem]:
        """Items like these, by their ids, and unlike the negative ones. options: `state`, `split`, `limit`."""
        body = {"positive": list(positive), "negative": list(negative), **options}
        return self.client.run(self._api.similar(body))

    def read(self, item: str, *, size: int | None = None) -> bytes:
        """An item's bytes as a browser may show it. size: longest side of a smaller picture."""
        return self.client.run(self._api.read(item, size))

    def next_batch(self, annotator: str | None = None, *, size: int = 10, new: bool = False) -> Batch:
        """Reserve items by hand; `annotate` is the comfortable way."""
        batch, _ = self.client.run(self._api.next_batch(annotator, size, new))
        return batch

    def annotate(
        self, annotator: str | None = None, *, size: int = 10, limit: int | None = None, wait: bool = False
    ) -> "Annotating":
        """Iterate the items to label next: `for item in project.annotate("ann"): item.label("cat")`.

        Reservations are renewed in the background; what was not labeled is given back when the loop ends, however it
        ends. annotator: a key bound to one may leave it out. size: items a batch. limit: items in all. wait: go on
        when items come free or are imported, instead of ending.
        """
        return Annotating(self, Holding(self._api, annotator, size=size, limit=limit, wait=wait))

    def label(self, labels: Iterable[Label | Mapping[str, Any]]) -> LabelsStored:
        """Labels in calls of 1,000, each all or nothing; a mapping is one as `POST …/labels` takes it."""
        return self.client.run(self._api.label(labels))

    def import_labels(
        self, labels: Iterable[Label | Mapping[str, Any]], *, annotator: str | None = None
    ) -> LabelsImported:
        """Labels known already, any number; lines that are wrong are refused and stop nothing. annotator: of those that
        name none."""
        return self.client.run(self._api.import_labels(labels, annotator))

    def labels(self, *, history: bool = False) -> Iterator[dict[str, Any]]:
        """All labels in the order they came, as a stream."""
        with closing(self.client.run(self._api.open_labels("ndjson", history))) as response:
            for line in response.iter_lines():
                yield json.loads(line)

    def export_labels(self, file: str | Path, format: str = "csv", *, history: bool = False) -> None:
        """Write the labels to a file in any format that the service knows."""
        with (
            closing(self.client.run(self._api.open_labels(format, history))) as response,
            Path(file).open("wb") as out,
        ):
            for piece in response.iter_bytes():
                out.write(piece)

    def events(self) -> Iterator[Event]:
        """The changes as they happen: first the present state, then without an end. Where the stream breaks off it
        goes on with what is new since."""
        last: str | None = None
        while True:
            with closing(self.client.run(self._api.open_events(last))) as response:
                try:
                    for sent in httpx.EventSource(response):
                        if (event := event_of(sent)) is not None:
                            last = event.id
                            yield event
                            if event.event == "deleted":
                                return
                except httpx.TransportError:
                    continue


class Annotating:
    """The items of one annotator, one after another. A context manager, too; leaving it gives back what was not
    labeled."""

    def __init__(self, project: Project, holding: Holding) -> None:
        self.project = project
        self._holding = holding
        self._stopping = threading.Event()
        self._renewing: threading.Thread | None = None

    @property
    def reason(self) -> str | None:
        """Why the service had no more items; None while it has, and where `limit` ended the loop."""
        return self._holding.reason

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> Iterator["Item"]:
        self._start()
        try:
            while (handed := self.project.client.run(self._holding.next())) is not None:
                yield Item(self, handed)
        finally:
            self.close()

    def close(self) -> None:
        """Give back what was not labeled; twice is fine."""
        if self._renewing is not None:
            self._stopping.set()
            self._renewing.join()
            self._renewing = None
            self.project.client.run(self._holding.give_back())
        self.project.client._annotating.discard(self)

    def _start(self) -> None:
        if self._renewing is None:
            self._stopping.clear()
            self._renewing = threading.Thread(target=self._renew, name="shortlist-renew", daemon=True)
            self._renewing.start()
            self.project.client._annotating.add(self)

    def _renew(self) -> None:
        while not self._stopping.wait(self._holding.look_again_s()):
            self.project.client.run(self._holding.renew())


class ItemFields:
    """An item to label, as the batch told it."""

    def __init__(self, handed: Handed) -> None:
        self._handed = handed

    def __repr__(self) -> str:
        return f"Item({self.key!r}, {self.id})"

    @property
    def info(self) -> BatchItem:
        """All that the service told."""
        return self._handed.item

    @property
    def id(self) -> str:
        return self.info.id

    @property
    def key(self) -> str:
        return self.info.key

    @property
    def content(self) -> Content:
        return self.info.content

    @property
    def text(self) -> str | None:
        """The text of up to 20,000 characters; `read` has longer ones."""
        return self.content.text

    @property
    def prediction(self) -> Prediction | None:
        """The head's guess. Control items come without one, so that it sways nobody."""
        return self.info.prediction


class Item(ItemFields):
    def __init__(self, annotating: Annotating, handed: Handed) -> None:
        super().__init__(handed)
        self._annotating = annotating

    def read(self, *, size: int | None = None) -> bytes:
        """Its bytes as a browser may show it. size: longest side of a smaller picture."""
        return self._annotating.project.read(self.id, size=size)

    def label(self, class_name: str | Sequence[str], *, annotation: JsonValue = None) -> str:
        """The outcome, `accepted` mostly. annotation: boxes, masks or spans, kept as they are. Stored when this
        returns."""
        return self._send(self._annotating._holding.label(self._handed, class_name, annotation=annotation))

    def skip(self, reason: Skip = "unsure") -> str:
        """`unsure` and `other`: somebody else may get it; `broken`: it leaves the pool."""
        return self._send(self._annotating._holding.label(self._handed, None, skip=reason))

    def undo(self) -> str:
        """Withdraw the label: the item is open again."""
        return self._send(self._annotating._holding.label(self._handed, None, withdraw=True))

    def _send(self, flow: Flow[str]) -> str:
        return self._annotating.project.client.run(flow)

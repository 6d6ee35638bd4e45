"""Every request of the client, written once and without I/O.

A flow is a generator: it yields what is to be done, a `Call` or a `Pause`, is sent the response, and returns the
result. `client.Shortlist` and `async_client.AsyncShortlist` run flows, and do nothing else.
"""

import itertools
import json
import random
import time
import uuid
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar
from urllib.parse import quote

import httpx2 as httpx
from pydantic import BaseModel

from shortlist_client.errors import (
    ApiError,
    JobFailed,
    NotFound,
    NotReached,
    ShortlistError,
    TimedOut,
    error_of,
    is_problem,
)
from shortlist_client.models import (
    Answer,
    Batch,
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
)

T = TypeVar("T")
A = TypeVar("A", bound=Answer)
Json = dict[str, Any]

NDJSON = "application/x-ndjson"
LABELS_A_CALL = 1_000
LINES_A_CALL = 5_000
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 5.0
_POLL_S, _SLOWEST_POLL_S = 0.1, 1.0
_LEAVING_S = 3.0
_BUSY = (502, 503, 504)  # a service that starts again, or its proxy


@dataclass(frozen=True)
class Call:
    """A request. stream: the response is handed over before its body has come."""

    method: str
    path: str
    params: Mapping[str, Any] = field(default_factory=dict)
    body: object = None
    content: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    stream: bool = False


@dataclass(frozen=True)
class Pause:
    seconds: float


Step = Call | Pause
Flow = Generator[Step, Any, T]


def _backoff_s(attempt: int) -> float:
    """Twice as long each time, and a random part of it, so that annotators do not all come back at once."""
    return random.uniform(0.5, 1.0) * min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2.0 ** min(attempt, 30))


def _pause_s(response: httpx.Response, attempt: int) -> float | None:
    """Seconds to wait before the request is sent again; None where that would change nothing."""
    told = response.headers.get("retry-after", "")
    if response.is_error and told.isdecimal():  # also of a 409: the same request is being done just now
        return float(told)
    if response.status_code in _BUSY and not is_problem(response):
        return _backoff_s(attempt)
    return None


def _read(response: httpx.Response, model: type[A]) -> A:
    return model.model_validate_json(response.content)


def _given(**values: Any) -> Json:
    return {name: value for name, value in values.items() if value is not None}


class Api:
    """Flows of no project. give_up_after_s: how long a request is sent again while nobody answers."""

    def __init__(self, give_up_after_s: float) -> None:
        self._give_up_after_s = give_up_after_s

    def send(self, call: Call, give_up_after_s: float | None = None) -> Flow[httpx.Response]:
        """The response, which is no error. Raises `ApiError`, `NotReached`.

        What is sent again has the same `Idempotency-Key`, so it is done once.
        """
        if call.method == "POST":
            call = replace(call, headers={"Idempotency-Key": uuid.uuid4().hex, **call.headers})
        patience_s = self._give_up_after_s if give_up_after_s is None else give_up_after_s
        give_up_at = time.monotonic() + patience_s
        lost = False  # an answer: what it answered may be done
        for attempt in itertools.count():
            cause: Exception | None = None
            pause_s: float | None
            try:
                response: httpx.Response = yield call
            except httpx.TransportError as error:
                reason = str(error) or type(error).__name__
                failure: Exception = NotReached(
                    f"{call.method} {call.path} got no answer for {patience_s:g} s: {reason}."
                )
                cause, pause_s, lost = error, _backoff_s(attempt), True
            else:
                deleted = call.method == "DELETE" and lost and response.status_code == 404
                if not response.is_error or deleted:
                    return response
                failure, pause_s = error_of(response), _pause_s(response, attempt)
            if pause_s is None or time.monotonic() + pause_s > give_up_at:
                raise failure from cause
            yield Pause(pause_s)
        raise AssertionError  # the count has no end

    def json(self, method: str, path: str, body: object = None, **params: Any) -> Flow[Any]:
        """The answer as plain data; None for an empty one."""
        response = yield from self.send(Call(method, path, params, body))
        return response.json() if response.content else None

    def ready(self) -> Flow[bool]:
        """Asked once."""
        try:
            yield from self.send(Call("GET", "/readyz"), give_up_after_s=0)
        except ShortlistError:
            return False
        return True

    def page(self, path: str, params: Json, cursor: str | None) -> Flow[tuple[list[Any], str | None]]:
        """One page of a list, and the cursor of the next one."""
        found = yield from self.json("GET", path, **params, **_given(cursor=cursor))
        return found["items"], found.get("next_cursor")

    def _all(self, path: str) -> Flow[list[Any]]:
        found, cursor = yield from self.page(path, {}, None)
        while cursor is not None:
            more, cursor = yield from self.page(path, {}, cursor)
            found += more
        return found

    def create_project(self, name: str, classes: Sequence[str], settings: Json) -> Flow[ProjectInfo]:
        body = {"name": name, "classes": list(classes), **settings}
        response = yield from self.send(Call("POST", "/projects", body=body))
        return _read(response, ProjectInfo)

    def projects(self) -> Flow[list[ProjectInfo]]:
        found = yield from self._all("/projects")
        return [ProjectInfo.model_validate(each) for each in found]

    def project(self, name_or_id: str | None) -> Flow[ProjectInfo]:
        """By name, else by id; without either the only one there is. Raises `NotFound`."""
        found = yield from self.projects()
        if name_or_id is not None:
            for named in found:
                if named.name == name_or_id:
                    return named
            response = yield from self.send(Call("GET", f"/projects/{_quoted(name_or_id)}"))
            return _read(response, ProjectInfo)
        if len(found) != 1:
            names = ", ".join(repr(each.name) for each in found) or "none"
            raise NotFound(f"Say which project; there are: {names}.", status=404, code="which_project")
        return found[0]

    def job(self, job_id: str) -> Flow[Job]:
        response = yield from self.send(Call("GET", f"/jobs/{_quoted(job_id)}"))
        return _read(response, Job)

    def wait_for(self, job: Job | str, on_progress: OnProgress | None, timeout_s: float | None) -> Flow[Job]:
        """The job once it succeeded. Raises `JobFailed`, `TimedOut`."""
        job_id = job if isinstance(job, str) else job.id
        give_up_at = None if timeout_s is None else time.monotonic() + timeout_s
        for poll in itertools.count():
            found = yield from self.job(job_id)
            if on_progress is not None:
                on_progress(found)
            if found.state == "succeeded":
                return found
            if found.ended:
                raise JobFailed(
                    f"The job {found.id} ({found.kind}) {found.state}: {found.error or 'no reason'}"
                )
            if give_up_at is not None and time.monotonic() > give_up_at:
                now = found.waits_for or found.message or found.state
                raise TimedOut(f"The job {found.id} ({found.kind}) did not end in {timeout_s:g} s: {now}")
            yield Pause(min(_SLOWEST_POLL_S, _POLL_S * 1.3 ** min(poll, 30)))
        raise AssertionError


class ProjectApi:
    """Flows of one project."""

    def __init__(self, api: Api, project_id: str) -> None:
        self.api, self.path = api, f"/projects/{_quoted(project_id)}"

    def _post(self, path: str, body: object, model: type[A]) -> Flow[A]:
        response = yield from self.api.send(Call("POST", f"{self.path}{path}", body=body))
        return _read(response, model)

    def info(self) -> Flow[ProjectInfo]:
        response = yield from self.api.send(Call("GET", self.path))
        return _read(response, ProjectInfo)

    def update(self, changes: Json) -> Flow[ProjectInfo]:
        response = yield from self.api.send(Call("PATCH", self.path, body=changes))
        return _read(response, ProjectInfo)

    def delete(self) -> Flow[None]:
        yield from self.api.send(Call("DELETE", self.path))

    def add_source(self, uri: str, options: Json) -> Flow[Job]:
        return self._post("/sources", {"uri": uri, **options}, Job)

    def add_items(self, items: Iterable[Mapping[str, Any]]) -> Flow[ItemsAdded]:
        """In calls of 5,000 lines; the numbers of refused lines count over all."""
        total = {"added": 0, "known": 0, "refused": [], "refused_count": 0}
        for answer in (yield from self._lines("/items", items, {})):
            total["added"] += answer["added"]
            total["known"] += answer["known"]
            total["refused"] += answer["refused"]
            total["refused_count"] += answer["refused_count"]
        return ItemsAdded.model_validate(total)

    def import_labels(
        self, labels: Iterable[Label | Mapping[str, Any]], annotator: str | None
    ) -> Flow[LabelsImported]:
        outcomes: dict[str, int] = {}
        refused: list[Json] = []
        count = used = 0
        rows = (
            {"annotator": annotator, **row} if annotator is not None else row for row in map(_label, labels)
        )
        for answer in (yield from self._lines("/labels/import", rows, {})):
            for outcome, times in answer["outcomes"].items():
                outcomes[outcome] = outcomes.get(outcome, 0) + times
            refused += answer["refused"]
            count += answer["refused_count"]
            used = answer["labels_used"]
        return LabelsImported(outcomes=outcomes, refused=refused, refused_count=count, labels_used=used)

    def _lines(self, path: str, rows: Iterable[Mapping[str, Any]], params: Json) -> Flow[list[Json]]:
        """The answers of the calls; what was sent before one that fails stays done, and may be sent again."""
        answers: list[Json] = []
        sent = 0
        for chunk in _chunks(rows, LINES_A_CALL):
            content = "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in chunk).encode()
            call = Call(
                "POST", f"{self.path}{path}", params, content=content, headers={"Content-Type": NDJSON}
            )
            response = yield from self.api.send(call)
            answer: Json = response.json()
            answer["refused"] = [{**each, "line": each["line"] + sent} for each in answer["refused"]]
            answers.append(answer)
            sent += len(chunk)
        return answers

    def pretrain(self) -> Flow[Job]:
        return self._post("/pretrain", {}, Job)

    def retrain(self) -> Flow[Job]:
        return self._post("/retrain", {}, Job)

    def jobs(self, kind: str | None) -> Flow[list[Job]]:
        """Newest first, the last hundred."""
        project = self.path.rpartition("/")[2]
        found, _ = yield from self.api.page("/jobs", _given(project=project, kind=kind), None)
        return [Job.model_validate(each) for each in found]

    def wait_until_idle(self, timeout_s: float | None) -> Flow[Metrics]:
        """The metrics once no job is queued or running. Raises `TimedOut`."""
        give_up_at = None if timeout_s is None else time.monotonic() + timeout_s
        for poll in itertools.count():
            metrics = yield from self.metrics()
            if not metrics.jobs:
                return metrics
            if give_up_at is not None and time.monotonic() > give_up_at:
                left = ", ".join(f"{job.kind} ({job.waits_for or job.state})" for job in metrics.jobs)
                raise TimedOut(f"After {timeout_s:g} s there are still jobs: {left}")
            yield Pause(min(_SLOWEST_POLL_S, _POLL_S * 1.3 ** min(poll, 30)))
        raise AssertionError

    def metrics(self) -> Flow[Metrics]:
        response = yield from self.api.send(Call("GET", f"{self.path}/metrics"))
        return _read(response, Metrics)

    def next_batch(self, annotator: str | None, size: int, new: bool) -> Flow[tuple[Batch, float]]:
        """The batch, and the seconds for which it is held."""
        body = {"size": size, "new": new, **_given(annotator=annotator)}
        response = yield from self.api.send(Call("POST", f"{self.path}/next-batch", body=body))
        batch = _read(response, Batch)
        told = response.headers.get("retry-after", "")
        if told.isdecimal():
            batch = batch.model_copy(update={"retry_after_s": float(told)})
        return batch, held_for_s(response, batch.expires_at) if batch.expires_at else 0.0

    def renew(self, batch: str) -> Flow[float]:
        """The seconds for which the unlabeled rest is held from now. Asked once: it comes again soon."""
        call = Call("POST", f"/batches/{_quoted(batch)}/renew")
        response = yield from self.api.send(call, give_up_after_s=0)
        return held_for_s(response, datetime.fromisoformat(response.json()["expires_at"]))

    def give_back(self, batch: str) -> Flow[None]:
        """For a few seconds: people wait for it, and without it the items come free by themselves."""
        yield from self.api.send(Call("DELETE", f"/batches/{_quoted(batch)}"), give_up_after_s=_LEAVING_S)

    def label(self, labels: Iterable[Label | Mapping[str, Any]]) -> Flow[LabelsStored]:
        """In calls of 1,000, each all or nothing."""
        results: list[Any] = []
        accepted = 0
        last: LabelsStored | None = None
        for chunk in _chunks(map(_label, labels), LABELS_A_CALL):
            try:
                last = yield from self._post("/labels", {"labels": chunk}, LabelsStored)
            except ApiError as error:
                if results:
                    error.add_note(f"It counts from label {len(results)}; those before it are stored.")
                raise
            results += last.results
            accepted += last.accepted
        if last is None:
            raise ValueError("there are no labels to send")
        return last.model_copy(update={"results": results, "accepted": accepted})

    def similar(self, body: Json) -> Flow[list[SimilarItem]]:
        found = yield from self.api.json("POST", f"{self.path}/similar", body)
        return [SimilarItem.model_validate(each) for each in found["items"]]

    def items(self, filters: Json, cursor: str | None) -> Flow[tuple[list[ItemInfo], str | None]]:
        found, cursor = yield from self.api.page(f"{self.path}/items", {"limit": 1000, **filters}, cursor)
        return [ItemInfo.model_validate(each) for each in found], cursor

    def read(self, item_id: str, size: int | None) -> Flow[bytes]:
        """An item's bytes as a browser may show it, by the key: a link of the batch may have run out."""
        call = Call("GET", f"{self.path}/items/{_quoted(item_id)}/content", _given(size=size))
        response = yield from self.api.send(call)
        return bytes(response.content)

    def open_labels(self, format: str, history: bool) -> Flow[httpx.Response]:
        """The export as a stream."""
        accept = {"csv": "text/csv", "parquet": "application/vnd.apache.parquet"}.get(format, NDJSON)
        params: Json = {"all": "true"} if history else {}
        if format not in ("ndjson", "csv", "parquet"):
            params["format"], accept = format, "*/*"
        call = Call("GET", f"{self.path}/labels", params, headers={"Accept": accept}, stream=True)
        response = yield from self.api.send(call)
        return response

    def open_events(self, last_event_id: str | None) -> Flow[httpx.Response]:
        headers = {"Accept": "text/event-stream"}
        if last_event_id:
            headers["Last-Event-ID"] = last_event_id
        response = yield from self.api.send(Call("GET", f"{self.path}/events", headers=headers, stream=True))
        return response


def event_of(sent: httpx.ServerSentEvent) -> Event | None:
    """None for what tells nothing, as the time to wait before coming back."""
    return Event(id=sent.id, event=sent.event, data=json.loads(sent.data)) if sent.data else None


def held_for_s(response: httpx.Response, expires_at: datetime) -> float:
    """Seconds from the answer until the reservation runs out, at least. Both times are the service's, whose clock may
    differ from that of this machine; the header's has whole seconds."""
    try:
        now = parsedate_to_datetime(response.headers["date"]) + timedelta(seconds=1)
    except (KeyError, ValueError):
        now = datetime.now(UTC)
    return max(0.0, (expires_at - now).total_seconds())


def _quoted(part: str) -> str:
    return quote(part, safe="")


def _label(label: Label | Mapping[str, Any]) -> Json:
    if isinstance(label, BaseModel):
        return label.model_dump(by_alias=True, exclude_unset=True)
    return dict(label)


def _chunks(rows: Iterable[T], size: int) -> Iterator[list[T]]:
    source = iter(rows)
    while chunk := list(itertools.islice(source, size)):
        yield chunk

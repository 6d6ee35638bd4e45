"""Calls to a Label Studio, as version 1.23.2 answers them; one client a run. Its token goes to no other host.

A personal access token is a refresh token: it is exchanged for one that is good for five minutes. A legacy token is
sent as it is.
"""

import base64
import binascii
import ipaddress
import json
import re
import socket
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Any, Self
from urllib.parse import unquote_to_bytes, urljoin

import anyio
import httpx2

from service.errors import WebhookAddressRefused
from service.integrations.label_studio.errors import (
    ToolAddressRefused,
    ToolProjectMissing,
    ToolTokenRefused,
    ToolUnreachable,
)
from service.webhooks import addresses

KNOWN_VERSION = "1.23"
PAGE = 100  # tasks
_PREDICTIONS = 500  # in one call
_TIMEOUT = httpx2.Timeout(30.0, connect=5.0)
_IMPORT_S = 120.0  # SQLite there may be busy
_LARGEST = 256 * 2**20  # bytes of an item
_REDIRECTS = 3
_TOKEN = re.compile(r"[!-~]+")  # no spaces
_EXCERPT = 200


class NotDownloaded(Exception):
    """An item's bytes cannot be had, and asking again will not help; the sentence says why."""


@dataclass(frozen=True)
class Annotation:
    """An annotation as the tool gives it. result: its regions and choices, opaque."""

    id: int
    unique_id: str | None
    updated_at: str
    by: int | None
    cancelled: bool
    lead_time_s: float | None
    result: Any


@dataclass(frozen=True)
class Task:
    id: int
    data: dict[str, Any]
    annotations: tuple[Annotation, ...]


class LabelStudio:
    """Raises `ToolUnreachable` and `ToolTokenRefused` from every call, the latter when it is made, too.

    private_allowed: whether it, and what its tasks name, may lie in a private network.
    """

    def __init__(self, url: str, token: str, *, private_allowed: bool) -> None:
        self.url = checked_url(url, private_allowed)
        if not _TOKEN.fullmatch(token := token.strip()):  # else the header cannot be sent
            raise ToolTokenRefused(field="token", reason="it has characters that no token has")
        self.now: datetime | None = None  # of its clock, when it answered first
        self._token, self._private_allowed = token, private_allowed
        self._personal = token.count(".") == 2
        self._authorization: str | None = None if self._personal else f"Token {token}"
        self._http = httpx2.AsyncClient(timeout=_TIMEOUT, follow_redirects=False, trust_env=False)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.aclose()

    async def version(self) -> str | None:
        """None where it does not tell."""
        answer = await self._call("GET", "/api/version", missing=None)
        found = answer.get("release") if isinstance(answer, dict) else None
        return str(found) if found is not None else None

    async def project(self, number: int) -> dict[str, Any]:
        """Raises `ToolProjectMissing`."""
        found = await self._call("GET", f"/api/projects/{number}/", missing=None)
        if not isinstance(found, dict):
            raise ToolProjectMissing(field="tool_project", url=self.url, number=number)
        return found

    async def change_project(self, number: int, **values: Any) -> None:
        await self._call("PATCH", f"/api/projects/{number}/", json=values)

    async def people(self) -> dict[int, str]:
        """The addresses by which people sign in there, by number."""
        found = await self._call("GET", "/api/users/", missing=[])
        with self._understood("/api/users/"):
            rows = found.get("results", []) if isinstance(found, dict) else found
            return {row["id"]: str(row.get("email") or row.get("username") or row["id"]) for row in rows}

    async def tasks(self, project: int, since: datetime | None) -> AsyncIterator[list[Task]]:
        """Pages of tasks with their annotations, by number; since: those that changed after that time of its clock.

        By number, and not by that time, so that what changes meanwhile moves no other task to another page.
        """
        query: dict[str, Any] = {"ordering": ["tasks:id"]}
        if since is not None:
            changed = {
                "filter": "filter:tasks:updated_at",
                "operator": "greater",
                "type": "Datetime",
                "value": since.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            }
            query["filters"] = {"conjunction": "and", "items": [changed]}
        async for rows in self._pages(project, {"fields": "all", "query": json.dumps(query)}, PAGE):
            with self._understood("/api/tasks"):
                page = [_task(row) for row in rows]
            yield page

    async def task_numbers(self, project: int) -> set[int]:
        """All there are."""
        query = {"fields": "task_only", "query": json.dumps({"ordering": ["tasks:id"]})}
        with self._understood("/api/tasks"):
            return {int(row["id"]) async for rows in self._pages(project, query, 10 * PAGE) for row in rows}

    async def _pages(
        self, project: int, query: Mapping[str, str], size: int
    ) -> AsyncIterator[list[dict[str, Any]]]:
        page, seen = 1, 0
        while True:
            asked = {**query, "project": str(project), "page": str(page), "page_size": str(size)}
            found = await self._call("GET", "/api/tasks", params=asked)
            with self._understood("/api/tasks"):
                rows, total = found["tasks"], found["total"]
                seen += len(rows)
                finished = not rows or seen >= total
            if rows:
                yield rows
            if finished:
                return
            page += 1

    async def import_tasks(self, project: int, tasks: Sequence[Mapping[str, Any]]) -> None:
        """They are numbered in this order."""
        await self._call("POST", f"/api/projects/{project}/import", timeout=_IMPORT_S, json=list(tasks))

    async def delete_untouched(self, task: int) -> bool:
        """False where somebody has begun it, and it stays; true also where it is gone already."""
        found = await self._call("GET", f"/api/tasks/{task}/", missing=None)
        if found is not None and (found.get("annotations") or found.get("drafts")):
            return False
        if found is not None:
            await self._call("DELETE", f"/api/tasks/{task}/", missing=None)
        return True

    async def model_versions(self, project: int) -> dict[str, int]:
        """The number of predictions of each."""
        found = await self._call("GET", f"/api/projects/{project}/model-versions/", missing={})
        return dict(found) if isinstance(found, dict) else {}

    async def delete_predictions(self, project: int, model_version: str) -> None:
        await self._call(
            "DELETE", f"/api/projects/{project}/model-versions/", json={"model_version": model_version}
        )

    async def import_predictions(self, project: int, predictions: Sequence[Mapping[str, Any]]) -> None:
        for first in range(0, len(predictions), _PREDICTIONS):
            await self._call(
                "POST",
                f"/api/projects/{project}/import/predictions",
                timeout=_IMPORT_S,
                json=predictions[first : first + _PREDICTIONS],
            )

    async def webhooks(self, project: int) -> list[dict[str, Any]]:
        found = await self._call("GET", "/api/webhooks/", params={"project": str(project)})
        with self._understood("/api/webhooks/"):
            return [row for row in found if row.get("project") == project]

    async def create_webhook(
        self, project: int, url: str, actions: Sequence[str], headers: Mapping[str, str]
    ) -> bool:
        """False where the tool refuses the address."""
        body = {
            "url": url,
            "project": project,
            "send_payload": True,
            "send_for_all_actions": False,
            "actions": list(actions),
            "headers": dict(headers),
            "is_active": True,
        }
        return await self._call("POST", "/api/webhooks/", json=body, refused=(400, 403)) is not None

    async def change_webhook(self, number: int, headers: Mapping[str, str]) -> None:
        body = {"headers": dict(headers), "is_active": True}
        await self._call("PATCH", f"/api/webhooks/{number}/", json=body, missing=None)

    async def delete_webhook(self, number: int) -> None:
        await self._call("DELETE", f"/api/webhooks/{number}/", missing=None)

    async def download(self, place: str) -> bytes:
        """The bytes that a task's data names: a `data:` URI, a path at the tool, or a URL of another host.

        Raises `NotDownloaded` where that will not change, `ToolUnreachable` where it may.
        """
        if place.startswith("data:"):
            return _of_data_uri(place)
        url = urljoin(f"{self.url}/", place)
        for _ in range(_REDIRECTS + 1):
            if not url.startswith(("http://", "https://")):
                raise NotDownloaded(f"{_shown(place)} is no place that can be fetched by HTTP")
            status, moved_to, data = await self._get(url)
            if moved_to is not None:
                url = urljoin(url, moved_to)
            elif status != 401 or self._authorization is not None:  # else it ran out, and is renewed
                break
        if status == 429 or status >= 500:
            raise ToolUnreachable(url=self.url, reason=f"{_shown(place)} is answered with {status}")
        if not 200 <= status < 300:
            raise NotDownloaded(f"{_shown(place)} is answered with {status}")
        return data

    async def _get(self, url: str) -> tuple[int, str | None, bytes]:
        """Status, where it was moved to, and the bytes."""
        parsed = httpx2.URL(url)
        own = (parsed.scheme, parsed.host, parsed.port) == _origin(self.url)
        headers: dict[str, str] = {}
        extensions: dict[str, Any] = {}
        if own:
            headers["Authorization"] = await self._signed_in()
        else:
            judged = await self._judged(parsed)
            headers["Host"] = parsed.netloc.decode()
            extensions["sni_hostname"] = parsed.host
            parsed = parsed.copy_with(host=judged)
        try:
            async with self._http.stream("GET", parsed, headers=headers, extensions=extensions) as answer:
                if own and answer.status_code == 401 and self._personal:
                    self._authorization = None
                moved_to = answer.headers.get("location") if answer.is_redirect else None
                data = bytearray()
                async for piece in answer.aiter_bytes():
                    data += piece
                    if len(data) > _LARGEST:
                        raise NotDownloaded(f"{_shown(url)} has more than {_LARGEST:,} bytes")
                return answer.status_code, moved_to, bytes(data)
        except httpx2.HTTPError as error:
            raise ToolUnreachable(url=self.url, reason=f"{_shown(url)}: {_why(error)}") from None

    async def _judged(self, url: httpx2.URL) -> str:
        """An address of another host; the connection goes to it and not to the name. Raises `NotDownloaded`."""
        port = url.port or (443 if url.scheme == "https" else 80)
        try:
            found = await anyio.getaddrinfo(url.host, port, type=socket.SOCK_STREAM)
        except OSError as error:
            raise ToolUnreachable(url=self.url, reason=f"{url.host}: {error.strerror or error}") from None
        judged = [str(place[4][0]) for place in found]
        try:
            addresses.check_resolved(judged, self._private_allowed)
        except WebhookAddressRefused:
            raise NotDownloaded(f"{url.host} lies in a private network") from None
        if any(ipaddress.ip_address(address.partition("%")[0]).is_link_local for address in judged):
            raise NotDownloaded(f"{url.host} is an address of this machine's own network only")
        return judged[0]

    async def _signed_in(self) -> str:
        if self._authorization is None:
            answer = await self._send("POST", "/api/token/refresh/", json={"refresh": self._token})
            if answer.status_code in (400, 401, 403):
                raise ToolTokenRefused(field="token", reason=_said(answer))
            found = _json(self.url, answer)
            access = found.get("access") if isinstance(found, dict) else None
            if not (isinstance(access, str) and _TOKEN.fullmatch(access)):
                raise ToolUnreachable(
                    url=self.url, reason="it gives no access token, as another program would"
                )
            self._authorization = f"Bearer {access}"
        return self._authorization

    async def _call(
        self, method: str, path: str, *, missing: Any = ..., refused: Sequence[int] = (), **more: Any
    ) -> Any:
        """missing: the answer where there is nothing at this place. refused: statuses that give None."""
        for attempt in (1, 2):
            headers = {"Authorization": await self._signed_in()}
            answer = await self._send(method, path, headers=headers, **more)
            if answer.status_code == 401 and self._personal and attempt == 1:
                self._authorization = None  # it ran out
                continue
            break
        status = answer.status_code
        if status == 404 and missing is not ...:
            return missing
        if status in refused:
            return None
        if status in (401, 403):
            raise ToolTokenRefused(field="token", reason=_said(answer))
        if not 200 <= status < 300:
            raise ToolUnreachable(
                url=self.url, reason=f"{method} {path} is answered with {status}. {_said(answer)}"
            )
        if self.now is None:
            self.now = _date(answer)
        return _json(self.url, answer) if answer.content else {}

    @contextmanager
    def _understood(self, path: str) -> Iterator[None]:
        """Answers of another version may have another form. Raises `ToolUnreachable`."""
        try:
            yield
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            reason = f"{path} is answered in another form than by version {KNOWN_VERSION}"
            raise ToolUnreachable(url=self.url, reason=reason) from error

    async def _send(self, method: str, path: str, **more: Any) -> httpx2.Response:
        try:
            return await self._http.request(method, f"{self.url}{path}", **more)
        except httpx2.HTTPError as error:
            raise ToolUnreachable(url=self.url, reason=_why(error)) from None


def checked_url(url: str, private_allowed: bool) -> str:
    """Without a slash at its end. Raises `ToolAddressRefused`."""
    try:
        return addresses.checked_url(url.strip(), private_allowed, field="url").rstrip("/")
    except WebhookAddressRefused as error:
        raise ToolAddressRefused(field="url", reason=error.fields["reason"]) from None


def _origin(url: str) -> tuple[str, str, int | None]:
    parsed = httpx2.URL(url)
    return parsed.scheme, parsed.host, parsed.port


def _task(row: dict[str, Any]) -> Task:
    annotations = row.get("annotations") or []
    return Task(
        id=int(row["id"]),
        data=row["data"] if isinstance(row.get("data"), dict) else {},
        annotations=tuple(_annotation(each) for each in annotations if isinstance(each, dict)),
    )


def _annotation(row: dict[str, Any]) -> Annotation:
    by = row.get("completed_by")
    lead_time = row.get("lead_time")
    return Annotation(
        id=int(row["id"]),
        unique_id=row.get("unique_id"),
        updated_at=str(row.get("updated_at") or row.get("created_at") or ""),
        by=by.get("id") if isinstance(by, dict) else by,
        cancelled=bool(row.get("was_cancelled")),
        lead_time_s=float(lead_time) if isinstance(lead_time, int | float) else None,
        result=row.get("result"),
    )


def _of_data_uri(uri: str) -> bytes:
    head, comma, body = uri.partition(",")
    if not comma:
        raise NotDownloaded("its data: URI has no comma")
    raw = unquote_to_bytes(body)
    if not head.lower().endswith(";base64"):
        return raw
    try:
        return base64.b64decode(raw, validate=True)
    except binascii.Error as error:
        raise NotDownloaded(f"its data: URI is no base64 ({error})") from None


def _shown(place: str) -> str:
    """A place without its query, which may be signed."""
    bare = place.partition("?")[0]
    return repr(bare if len(bare) <= _EXCERPT else bare[:_EXCERPT] + "…")


def _json(url: str, answer: httpx2.Response) -> Any:
    try:
        return answer.json()
    except ValueError:
        raise ToolUnreachable(
            url=url, reason="it answers something else than JSON, as another program would"
        ) from None


def _said(answer: httpx2.Response) -> str:
    try:
        found = answer.json()
        said = found.get("detail") if isinstance(found, dict) else None
    except ValueError:
        said = None
    return str(said or answer.reason_phrase or answer.status_code)[:_EXCERPT].rstrip(".")


def _why(error: httpx2.HTTPError) -> str:
    if isinstance(error, httpx2.TimeoutException):
        return "it did not answer in time"
    return (str(error) or type(error).__name__)[:_EXCERPT].rstrip(".")


def _date(answer: httpx2.Response) -> datetime | None:
    try:
        return parsedate_to_datetime(answer.headers["date"])
    except (KeyError, ValueError):
        return None

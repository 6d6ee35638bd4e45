"""Around every request: a limit on its body, one line of log, and figures for Prometheus."""

import logging
import re
import time

import structlog
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import BodyTooLarge
from service.http.figures import Figures
from service.http.problems import of

NDJSON = "application/x-ndjson"
_STREAMED = ("/items", "/labels/import")
_UPLOAD = re.compile(r"/projects/[^/]+/(embeddings|uploads/[^/]+)")  # stored piece by piece as it comes

_log = structlog.get_logger()


class BodyLimit:
    """413 for bodies larger than `max_bytes`; streams (NDJSON, uploads) are read piece by piece and have no limit."""

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        headers = Headers(scope=scope)
        streamed = headers.get("content-type", "").startswith(NDJSON) and scope["path"].endswith(_STREAMED)
        if streamed or (scope["method"] in ("PUT", "POST") and _UPLOAD.fullmatch(scope["path"])):
            return await self._app(scope, receive, send)
        announced = headers.get("content-length", "0")
        if announced.isdigit() and int(announced) > self._max_bytes:
            return await of(BodyTooLarge(limit=self._max_bytes))(scope, receive, send)
        read = 0

        async def limited() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > self._max_bytes:  # wrapped: FastAPI lets no other exception through while it reads
                raise HTTPException(413) from BodyTooLarge(limit=self._max_bytes)
            return message

        return await self._app(scope, limited, send)


class Observed:
    """Neither keys nor signatures are logged: the query and the headers stay out."""

    def __init__(self, app: ASGIApp, figures: Figures) -> None:
        self._app = app
        self._figures = figures

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        started, status = time.perf_counter(), 500

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, noted)
        finally:
            seconds = time.perf_counter() - started
            route = getattr(scope.get("route"), "path", "none")
            self._figures.answered(scope["method"], route, status, seconds)
            polled = scope["method"] == "GET" and status < 400  # dashboards ask all day
            _log.log(
                logging.DEBUG if polled else logging.INFO,
                "request",
                method=scope["method"],
                path=scope["path"],
                status=status,
                ms=round(1000 * seconds, 1),
            )

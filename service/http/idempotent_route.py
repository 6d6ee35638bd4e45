"""`Idempotency-Key`: a POST that is sent again is answered again, not done again."""

from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from fastapi import Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.routing import APIRoute

from service.access import idempotency
from service.access.idempotency import Answer, Claim
from service.errors import Invalid
from service.http.credentials import recognise
from service.http.dependencies import Parts
from service.http.middleware import NDJSON
from service.store.session import read_session
from service.store.tables import utc_now

_HEADER = "Idempotency-Key"
_LONGEST = 255
_KEPT_HEADERS = ("content-type", "location", "etag", "retry-after")
_DESCRIPTION = {
    "name": _HEADER,
    "in": "header",
    "required": False,
    "schema": {"type": "string", "minLength": 1, "maxLength": _LONGEST, "pattern": "^[!-~]+$"},
    "description": "anything that names this request: sent again within a day, with the same body, it is answered "
    "again and not done again. A stream of items is not kept: its items are known by their keys.",
}


class OnceRoute(APIRoute):
    def __init__(self, path: str, endpoint: Callable[..., Any], **given: Any) -> None:
        if "POST" in (given.get("methods") or ()):
            extra = given.get("openapi_extra") or {}
            given["openapi_extra"] = {**extra, "parameters": [*extra.get("parameters", ()), _DESCRIPTION]}
        super().__init__(path, endpoint, **given)

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def once(request: Request) -> Response:
            sent = request.headers.get(_HEADER)
            streamed = request.headers.get("content-type", "").startswith(NDJSON)
            if request.method != "POST" or sent is None:
                return await handle(request)
            if not 0 < len(sent) <= _LONGEST or not all("!" <= character <= "~" for character in sent):
                raise Invalid(
                    field=_HEADER, message=f"send 1 to {_LONGEST} printable ASCII characters, no spaces."
                )
            if streamed:
                return await handle(request)
            parts: Parts = request.app.state.parts
            # With the query: a dry run is not what it tries.
            asked = request.url.path + (f"?{request.url.query}" if request.url.query else "")
            mark = idempotency.fingerprint(request.method, asked, await request.body())
            claim, before = await run_in_threadpool(_claimed, parts, request, sent, mark)
            if before is not None:
                return _again(before)
            response = await handle(request)
            if response.status_code < 300:
                keep = partial(idempotency.keep, claim=claim, answer=_answer(response), now=utc_now())
                if hasattr(request.state, "session"):  # the request's own transaction, not committed yet
                    await run_in_threadpool(keep, request.state.session)
                else:
                    await parts.write(keep)
            return response

        return once


def _claimed(parts: Parts, request: Request, sent: str, mark: str) -> tuple[Claim, Answer | None]:
    """A key that was revoked gets no kept answers either."""
    with read_session(parts.engine) as session:
        caller = recognise(session, parts.secret, request)
        claim = Claim(caller.key_id, sent, mark)
        before = idempotency.find(session, claim, utc_now())
    if before is not None:
        parts.rate_limits.take(caller.key_id)
    return claim, before


def _again(before: Answer) -> Response:
    return Response(before.body, before.status, {**before.headers, "Idempotency-Replayed": "true"})


def _answer(response: Response) -> Answer:
    secret = response.headers.get("cache-control") == "no-store"
    return Answer(
        status=response.status_code,
        headers={name: response.headers[name] for name in _KEPT_HEADERS if name in response.headers},
        body=None if secret else bytes(response.body).decode(),
    )

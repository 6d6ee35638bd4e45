"""Every JSON GET carries an ETag, so that dashboards may poll: what has not changed is answered with 304."""

from collections.abc import Callable, Coroutine
from hashlib import blake2b
from typing import Any

from fastapi import Request, Response
from starlette.responses import StreamingResponse

from service.http.idempotent_route import OnceRoute


class ETagRoute(OnceRoute):
    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def tagged(request: Request) -> Response:
            response = await handle(request)
            if request.method != "GET" or response.status_code != 200:
                return response
            if "etag" not in response.headers:
                if isinstance(response, StreamingResponse):
                    return response
                response.headers["ETag"] = f'"{blake2b(response.body, digest_size=12).hexdigest()}"'
            response.headers.setdefault("Cache-Control", "private, no-cache")
            if _matches(request.headers.get("if-none-match", ""), response.headers["ETag"]):
                kept = {name: response.headers[name] for name in ("ETag", "Cache-Control")}
                return Response(status_code=304, headers=kept, background=response.background)
            return response

        return tagged


def _matches(header: str, etag: str) -> bool:
    sent = [part.strip().removeprefix("W/") for part in header.split(",")]
    return etag in sent or "*" in sent

"""HEAD is answered as GET would be, without the body. A body that comes in pieces is not even begun."""

import anyio
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send


class HeadAsGet:
    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD":
            return await self._app(scope, receive, send)

        with anyio.CancelScope() as answering:

            async def headers_only(message: Message) -> None:
                if answering.cancel_called:
                    return
                if message["type"] == "http.response.body":
                    more = message.get("more_body", False)
                    message = {**message, "body": b"", "more_body": False}
                else:
                    more = "content-length" not in Headers(raw=message["headers"])
                await send(message)
                if more:  # an export of a million rows, a stream without end
                    if message["type"] == "http.response.start":
                        await send({"type": "http.response.body", "body": b""})
                    answering.cancel()

            await self._app({**scope, "method": "GET"}, receive, headers_only)

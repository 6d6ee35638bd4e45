"""Sends the deliveries of webhooks. Every service process does so, beside its requests; the rows say who sends what.

The scheme is that of Standard Webhooks (https://www.standardwebhooks.com): `webhook-id` is the same at each attempt,
`webhook-signature` is the HMAC-SHA256 of "id.timestamp.body" with the webhook's secret.
"""

import base64
import hmac
import socket
import time
from collections.abc import Sequence
from functools import partial
from typing import TypeVar

import anyio
import anyio.to_thread
import httpx2
import sqlalchemy as sa
import structlog

from service.errors import WebhookAddressRefused
from service.store.session import read_session, write_session
from service.store.tables import utc_now
from service.webhooks import addresses, deliveries, webhooks
from service.webhooks.deliveries import DELAYS_S, Attempt, Due

TICK_S = 1.0  # how often it looks for what is due
AT_ONCE = 8
SEND_S = 5.0  # for name, connection and answer together
LEASE_S = 4 * SEND_S
PURGE_INTERVAL_S = 3600.0
EXCERPT = 300  # characters of an error that are kept

T = TypeVar("T")
log = structlog.get_logger()


class Deliverer:
    def __init__(
        self,
        engine: sa.Engine,
        server_secret: bytes,
        private_allowed: bool,
        write_slots: anyio.CapacityLimiter,
        delays_s: Sequence[float] = DELAYS_S,
        lease_s: float = LEASE_S,
    ) -> None:
        """write_slots: writes of this process queue there. lease_s: longer than SEND_S."""
        self._engine, self._secret, self._private_allowed = engine, server_secret, private_allowed
        self._write_slots, self._delays_s, self._lease_s = write_slots, delays_s, lease_s
        self._tls = httpx2.create_ssl_context()
        self._busy: set[int] = set()  # webhooks that are being sent to
        self._purged_at = float("-inf")

    async def run(self) -> None:
        """Until cancelled. What is under way then is sent again later."""
        async with anyio.create_task_group() as sending:
            while True:
                self._ended = anyio.Event()  # any, since this look
                for due in await self._due():
                    self._busy.add(due.webhook_id)
                    sending.start_soon(self._deliver, due)
                with anyio.move_on_after(TICK_S):
                    await self._ended.wait()

    async def _due(self) -> list[Due]:
        try:
            return await self._take()
        except sa.exc.SQLAlchemyError as error:  # the rows are still there when it can be reached again
            log.warning("database not reached", reason=str(getattr(error, "orig", error)))
            return []

    async def _take(self) -> list[Due]:
        if time.monotonic() - self._purged_at > PURGE_INTERVAL_S:
            await self._write(partial(deliveries.purge, now=utc_now()))
            self._purged_at = time.monotonic()
        free, busy = AT_ONCE - len(self._busy), frozenset(self._busy)
        if free == 0 or not await anyio.to_thread.run_sync(self._any_due, busy):
            return []
        return await self._write(partial(deliveries.take, busy=busy, limit=free, lease_s=self._lease_s))

    def _any_due(self, busy: frozenset[int]) -> bool:
        with read_session(self._engine) as session:
            return deliveries.any_due(session, busy)

    async def _write(self, do: "partial[T]") -> T:
        def transaction() -> T:
            with write_session(self._engine) as session:
                return do(session)

        async with self._write_slots:
            return await anyio.to_thread.run_sync(transaction)

    async def _deliver(self, due: Due) -> None:
        try:
            attempt = await self._attempt(due)
            state = await self._write(
                partial(deliveries.settle, due=due, attempt=attempt, delays_s=self._delays_s)
            )
            # Not the error: it may repeat the address, and that may hold a secret of the receiver.
            log.info(
                "webhook",
                webhook=due.webhook_id,
                message=due.message_id,
                about=due.event,
                attempt=due.attempts + 1,
                state=state,
                status=attempt.status,
            )
        except sa.exc.SQLAlchemyError as error:
            log.warning(
                "delivery not noted, so it is sent again",
                message=due.message_id,
                reason=str(getattr(error, "orig", error)),
            )
        finally:
            self._busy.discard(due.webhook_id)
            self._ended.set()

    async def _attempt(self, due: Due) -> Attempt:
        try:
            with anyio.fail_after(SEND_S):
                return await self._send(due)
        except TimeoutError:
            return Attempt(None, f"No answer within {SEND_S:g} s.")
        except WebhookAddressRefused as error:
            return Attempt(None, str(error))
        except Exception as error:  # whatever it is, it is told in the delivery's row, and it is tried again
            return Attempt(None, _excerpt(f"{type(error).__name__}: {error}"))

    async def _send(self, due: Due) -> Attempt:
        """To the judged addresses themselves, until one can be reached."""
        url = httpx2.URL(due.url)
        host = url.raw_host.decode()
        port = url.port or (443 if url.scheme == "https" else 80)
        found = await anyio.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        judged = [str(place[4][0]) for place in found]
        addresses.check_resolved(judged, self._private_allowed)
        headers = signed(
            webhooks.secret_of(self._secret, due.nonce), due.message_id, int(time.time()), due.body
        )
        unreached: httpx2.TransportError = httpx2.ConnectError("The name has no address.")
        # `_attempt` watches the time as a whole; another address needs some of it.
        timeout = httpx2.Timeout(None, connect=SEND_S if len(judged) == 1 else SEND_S / 2)
        # A client of its own for each delivery: neither cookies nor connections are shared.
        async with httpx2.AsyncClient(
            verify=self._tls, trust_env=False, follow_redirects=False, timeout=timeout
        ) as client:
            for address in judged:
                try:
                    async with client.stream(
                        "POST",
                        url.copy_with(host=address),
                        content=due.body.encode(),
                        headers=headers | {"Host": url.netloc.decode()},
                        extensions={"sni_hostname": host},
                    ) as answer:
                        return Attempt(
                            answer.status_code, None if answer.is_success else await _refusal(answer)
                        )
                except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:  # nothing was sent
                    unreached = error
        raise unreached


def signed(secret: bytes, message_id: str, timestamp: int, body: str) -> dict[str, str]:
    """The headers of one attempt. timestamp: Unix seconds."""
    digest = hmac.digest(secret, f"{message_id}.{timestamp}.{body}".encode(), "sha256")
    return {
        "Content-Type": "application/json",
        "Accept-Encoding": "identity",  # people read what a receiver says
        "User-Agent": "Shortlist",
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": f"v1,{base64.b64encode(digest).decode()}",
    }


async def _refusal(answer: httpx2.Response) -> str:
    """Status and the beginning of the body, which is read no further."""
    read = b""
    async for piece in answer.aiter_raw():
        read += piece
        if len(read) >= EXCERPT:
            break
    return _excerpt(f"{answer.status_code} {answer.reason_phrase}. {read.decode(errors='replace')}")


def _excerpt(error: str) -> str:
    """The part of an error that is stored."""
    return error[:EXCERPT].replace("\0", "").strip()

"""A receiver of webhooks, as somebody else might have built it: a real HTTP server in a thread."""

import base64
import hashlib
import hmac
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass(frozen=True)
class Received:
    path: str
    headers: Message
    body: bytes

    @property
    def id(self) -> str:
        return str(self.headers["webhook-id"])

    def signed_with(self, secret: str) -> bool:
        """By the words of the specification, not by our code."""
        key = base64.b64decode(secret.removeprefix("whsec_"))
        content = f"{self.id}.{self.headers['webhook-timestamp']}.".encode() + self.body
        expected = base64.b64encode(hmac.new(key, content, hashlib.sha256).digest()).decode()
        return f"v1,{expected}" in str(self.headers["webhook-signature"]).split(" ")


@dataclass
class Receiver:
    url: str
    answer: Callable[[int], int]  # the status to answer the n-th request with, from 1
    received: list[Received] = field(default_factory=list)


@contextmanager
def receiver(answer: Callable[[int], int] = lambda _: 204, reason: str | None = None) -> Iterator[Receiver]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            found.received.append(Received(self.path, self.headers, body))
            status = found.answer(len(found.received))
            said = f"Cannot POST {self.path}".encode() if status >= 300 else b""
            self.send_response(status, reason)
            if 300 <= status < 400:
                self.send_header("Location", "/elsewhere")
            self.send_header("Content-Length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        found = Receiver(f"http://127.0.0.1:{server.server_address[1]}/hook?tool=1", answer)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield found
        finally:
            server.shutdown()
            thread.join()

"""Links to items carry a short-lived signature, so a plain `<img>` in any tool shows them without a header."""

import base64
import hmac
import time
from typing import NamedTuple

from service.access.keys import derived
from service.errors import LinkRefused
from service.store.ids import public_id

_SIGNATURE_BYTES = 18  # 144 bits
_PREVIEW_SIZE = 256  # pixels


class Links(NamedTuple):
    """Links to an item; the same signature opens all of them."""

    content: str
    preview: str
    image: str


class ItemLinks:
    def __init__(self, secret: bytes, ttl_s: int) -> None:
        self._key = derived(secret, "image links")
        self._ttl_s = ttl_s

    def of(self, project_id: int, item_id: int) -> Links:
        signed = self._signed(project_id, item_id)
        path = f"/projects/{public_id('p', project_id)}/items/{public_id('i', item_id)}"
        return Links(
            content=f"{path}/content?{signed}",
            preview=f"{path}/content?size={_PREVIEW_SIZE}&{signed}",
            image=f"{path}/image?{signed}",
        )

    def _signed(self, project_id: int, item_id: int) -> str:
        """Good for at least `ttl_s`. The same for a quarter of that time, so that browsers and ETags can cache."""
        step = max(1, self._ttl_s // 4)
        expires = (int(time.time()) // step + 1) * step + self._ttl_s
        return f"expires={expires}&signature={self._signature(project_id, item_id, expires)}"

    def check(self, project_id: int, item_id: int, expires: int, signature: str) -> None:
        """Raises `LinkRefused`."""
        expected = self._signature(project_id, item_id, expires)
        if not hmac.compare_digest(signature.encode(), expected.encode()) or expires < time.time():
            raise LinkRefused

    def _signature(self, project_id: int, item_id: int, expires: int) -> str:
        message = f"{project_id}/{item_id}/{expires}".encode()
        digest = hmac.digest(self._key, message, "sha256")[:_SIGNATURE_BYTES]
        return base64.urlsafe_b64encode(digest).decode()

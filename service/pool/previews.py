"""An item's image for the browser: as it is, or as a thumbnail."""

import io
from dataclasses import dataclass
from hashlib import blake2b

from service.content.image import open_rgb
from service.content.reader import ItemBytes
from service.errors import BadItem, NoPreview, SourceNotAllowed, SourceUnreadable
from service.store.ids import public_id
from service.store.tables import Item

# What browsers show, by how the file begins. Anything else is sent as PNG.
_SHOWN = {
    b"\xff\xd8\xff": "image/jpeg",
    b"\x89PNG\r\n\x1a\n": "image/png",
    b"GIF8": "image/gif",
    b"BM": "image/bmp",
}
_LOSSLESS_UP_TO = 256  # pixels a side: small ones stay exact, larger ones are JPEG
_JPEG_QUALITY = 88


@dataclass(frozen=True)
class Picture:
    data: bytes
    media_type: str


def etag(item: Item, size: int | None) -> str:
    """Changes with the bytes, as far as the import knows them."""
    content = f"{item.content_hash or item.uri}:{size}"
    return f'"{blake2b(content.encode(), digest_size=12).hexdigest()}"'


def picture(item_bytes: ItemBytes, item: Item, size: int | None, max_pixels: int) -> Picture:
    """The whole image, or one at most `size` pixels a side, never enlarged. Raises `NoPreview`."""
    try:
        data = item_bytes.read(item.uri)
        media_type = _media_type(data)
        if size is None and media_type is not None:
            return Picture(data, media_type)
        image = open_rgb(data, max_pixels)
    except (BadItem, SourceNotAllowed, SourceUnreadable) as error:
        raise NoPreview(id=public_id("i", item.id), reason=error) from error
    if size is not None:
        image.thumbnail((size, size))
    buffer = io.BytesIO()
    if max(image.size) <= _LOSSLESS_UP_TO:
        image.save(buffer, "PNG")
        return Picture(buffer.getvalue(), "image/png")
    image.save(buffer, "JPEG", quality=_JPEG_QUALITY)
    return Picture(buffer.getvalue(), "image/jpeg")


def _media_type(data: bytes) -> str | None:
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    return next((name for start, name in _SHOWN.items() if data.startswith(start)), None)

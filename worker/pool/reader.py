"""Items' bytes to pixels, many at a time: what the jobs give to the datasets and shards of the worker."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import blake2b
from itertools import chain

import torch
from torch import Tensor

from service.content.image import open_scaled
from service.content.reader import ItemBytes
from service.errors import BadItem, SourceNotAllowed, SourceUnreachable, SourceUnreadable
from service.settings import Settings
from worker.device import available_cores
from worker.modalities.image.jpeg import plain_jpeg
from worker.modalities.image.pixels import to_pixels

_AT_A_TIME = 32  # items a thread takes at once


@dataclass(frozen=True)
class Decoded:
    """What an item's bytes gave: pixels (3, s, s) uint8, or the reason why there are none."""

    pixels: Tensor | None
    reason: str | None
    content_hash: str | None
    width: int | None = None
    height: int | None = None
    file_size: int | None = None  # bytes
    fetched: bool = True  # else there are no bytes for a reason that is not the item's, and may pass


class ItemPixels:
    """Decodes in as many threads as torch computes in. Use it in a `with` block."""

    def __init__(self, settings: Settings) -> None:
        self._bytes = ItemBytes(settings)
        self._max_pixels = settings.max_image_pixels
        self._threads = ThreadPoolExecutor(settings.threads or available_cores())

    def __enter__(self) -> "ItemPixels":
        return self

    def __exit__(self, *_: object) -> None:
        self._threads.shutdown(cancel_futures=True)

    def decode(self, uris: Sequence[str], image_size: int) -> list[Decoded]:
        """In the order of the uris."""
        parts = [uris[start : start + _AT_A_TIME] for start in range(0, len(uris), _AT_A_TIME)]
        decoded = self._threads.map(lambda part: [self._decode(uri, image_size) for uri in part], parts)
        return list(chain.from_iterable(decoded))

    def stack(self, uris: Sequence[str], image_size: int) -> Tensor:
        """(m, 3, s, s) uint8, less those that cannot be read: scoring says what is wrong with these."""
        decoded = [one.pixels for one in self.decode(uris, image_size) if one.pixels is not None]
        return (
            torch.stack(decoded)
            if decoded
            else torch.empty((0, 3, image_size, image_size), dtype=torch.uint8)
        )

    def _decode(self, uri: str, image_size: int) -> Decoded:
        content_hash = None
        try:
            data = self._bytes.read(uri)
            content_hash = blake2b(data, digest_size=16).hexdigest()
            pixels, width, height = plain_jpeg(data, image_size), image_size, image_size
            if pixels is None:
                image, (width, height) = open_scaled(data, self._max_pixels, image_size)
                pixels = to_pixels(image, image_size)
        except (BadItem, SourceNotAllowed, SourceUnreadable) as error:
            fetched = not isinstance(error, (SourceNotAllowed, SourceUnreachable))
            return Decoded(None, str(error.fields.get("reason", error)), content_hash, fetched=fetched)
        return Decoded(pixels, None, content_hash, width, height, len(data))

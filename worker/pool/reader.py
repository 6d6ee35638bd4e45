"""Items' bytes to decoded items, many at a time."""

from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor

from service.content import limits_of
from service.content.contract import Facts
from service.content.reader import ItemBytes, content_hash_of
from service.errors import BadItem, SourceNotAllowed, SourceUnreachable, SourceUnreadable
from service.settings import Settings
from worker.arrays import Ints, Spans, no_spans
from worker.device import available_cores
from worker.modalities import Modality
from worker.pool.items import ItemRef

_AT_A_TIME = 32  # items a thread takes at once


@dataclass(frozen=True)
class Decoded:
    """An item as its modality decodes it, (*item_shape), or the reason why there is none.

    size     of its file, in bytes
    fetched  False after a transient I/O error, which is not the item's fault
    """

    item: Tensor | None
    reason: str | None
    content_hash: str | None
    facts: Facts | None = None
    size: int | None = None
    fetched: bool = True


class ItemReader:
    """Decodes in as many threads as torch computes in. Use it in a `with` block."""

    def __init__(self, settings: Settings) -> None:
        self._bytes = ItemBytes(settings)
        self._limits = limits_of(settings)
        self._threads = ThreadPoolExecutor(settings.threads or available_cores())

    def __enter__(self) -> "ItemReader":
        return self

    def __exit__(self, *_: object) -> None:
        self._threads.shutdown(cancel_futures=True)

    def decode(self, uris: Sequence[str], modality: Modality) -> list[Decoded]:
        """In the order of the uris, whatever bytes are there."""
        return self._decode_each([(uri, None) for uri in uris], modality)

    def decode_items(self, items: Sequence[ItemRef], modality: Modality) -> list[Decoded]:
        """In their order; one whose bytes are not those that were imported cannot be read."""
        return self._decode_each([(item.uri, item.content_hash) for item in items], modality)

    def _decode_each(self, wanted: Sequence[tuple[str, str | None]], modality: Modality) -> list[Decoded]:
        parts = [wanted[start : start + _AT_A_TIME] for start in range(0, len(wanted), _AT_A_TIME)]
        decoded = self._threads.map(lambda part: [self._decode(uri, of, modality) for uri, of in part], parts)
        return list(chain.from_iterable(decoded))

    def stack(self, uris: Sequence[str], modality: Modality) -> Tensor:
        """(m, *item_shape), less those that cannot be read: scoring says what is wrong with these."""
        return stacked([one.item for one in self.decode(uris, modality) if one.item is not None], modality)

    def spans(self, items: Sequence[ItemRef], modality: Modality, places: Ints) -> Spans:
        """(n, k) places in decoded items, -1 for none -> (n, k, 2): the characters of their texts that stand there, -1
        where none do. The items were readable a moment ago; of one that is not any more, nothing is marked.
        """
        found = no_spans(*places.shape)

        def of(row: int) -> None:
            try:
                data = self._bytes.read(items[row].uri, items[row].content_hash)
                found[row] = modality.spans(data, self._limits, places[row])
            except (BadItem, SourceNotAllowed, SourceUnreadable):
                return

        def of_part(start: int) -> None:
            for row in range(start, min(start + _AT_A_TIME, len(items))):
                of(row)

        deque(self._threads.map(of_part, range(0, len(items), _AT_A_TIME)), maxlen=0)
        return found

    def _decode(self, uri: str, wanted: str | None, modality: Modality) -> Decoded:
        content_hash = wanted
        try:
            data = self._bytes.read(uri, wanted)
            content_hash = wanted or content_hash_of(data)
            item, facts = modality.decode(data, self._limits)
        except (BadItem, SourceNotAllowed, SourceUnreadable) as error:
            fetched = not isinstance(error, (SourceNotAllowed, SourceUnreachable))
            reason = str(error.fields.get("reason", error)).rstrip(".")
            return Decoded(None, reason, content_hash, fetched=fetched)
        return Decoded(item, None, content_hash, facts, len(data))


def stacked(items: Sequence[Tensor], modality: Modality) -> Tensor:
    """(m, *item_shape), also of none."""
    return torch.stack(list(items)) if items else torch.empty((0, *modality.item_shape), dtype=modality.dtype)

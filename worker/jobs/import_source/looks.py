"""A look at a file or row: its bytes, compared with those of the item that is known."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from service.content.contract import Content, Facts, Limits
from service.content.listing import Candidate
from service.content.reader import ItemBytes, content_hash_of, is_settled
from service.errors import BadItem, SourceNotAllowed, SourceUnreachable, SourceUnreadable
from worker.jobs.import_source.known_items import KnownItem

_READS = 3  # of a file that changes while it is read


@dataclass(frozen=True)
class Look:
    """same: the bytes are those of the known item, and were not decoded again; stamp: of the file, where it may be
    trusted the next time; reason: why it is quarantined
    """

    content_hash: str | None = None
    facts: Facts | None = None
    reason: str | None = None
    stamp: str | None = None
    same: bool = False

    def columns(self) -> dict[str, Any]:
        return {
            "content_hash": self.content_hash,
            "facts": self.facts,
            "quarantine_reason": self.reason,
            "state": "quarantined" if self.reason else "available",
            "stamp": self.stamp,
        }


class Looker:
    """Thread-safe."""

    def __init__(self, item_bytes: ItemBytes, content: Content, limits: Limits) -> None:
        self._item_bytes, self._content, self._limits = item_bytes, content, limits

    def look(self, found: Candidate, known: KnownItem | None) -> Look:
        """By size and times first, then by hash; decoded is only what is new. Raises `SourceUnreachable`."""
        content_hash = stamp = None
        good = known is not None and not known.bad
        try:
            if found.data is not None:
                data = found.data
                self._item_bytes.check_size(found.uri, len(data))
            else:
                stamp = self._item_bytes.stamp(found.uri)
                if known and good and stamp is not None and (known.uri, known.stamp) == (found.uri, stamp):
                    return Look(known.content_hash, stamp=stamp, same=True)
                data, stamp = self._read_at_rest(found.uri, stamp)
            content_hash = content_hash_of(data)
            if known and good and known.content_hash == content_hash:
                return Look(content_hash, stamp=stamp, same=True)
            facts = self._content.inspect(data, self._limits)
        except SourceUnreachable:
            raise
        except (BadItem, SourceNotAllowed, SourceUnreadable) as error:
            return Look(content_hash, reason=str(error.fields.get("reason", error)).rstrip("."), stamp=stamp)
        return Look(content_hash, facts, stamp=stamp)

    def _read_at_rest(self, uri: str, stamp: str | None) -> tuple[bytes, str | None]:
        """The bytes of a file that did not change meanwhile, and its stamp once it has settled."""
        read: Callable[[str], bytes] = self._item_bytes.read
        for _ in range(_READS):
            data = read(uri)
            after = self._item_bytes.stamp(uri)
            if after == stamp:
                return data, stamp if stamp is not None and is_settled(stamp) else None
            stamp = after
        raise SourceUnreachable(uri=uri, reason="it changes while it is read")

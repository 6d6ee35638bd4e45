"""Keys for rows of tables that have none: by what the rows hold, never by their number alone.

So rows that are sorted anew, or that others are put before, keep their keys.
"""

from collections import Counter

from service.content.reader import content_hash_of


class ContentKeys:
    """The content hash; the second of equal rows is `<hash>-2`, the third `<hash>-3`."""

    def __init__(self) -> None:
        self._seen: set[int] = set()  # 64 bits of each hash: a table may have millions of rows
        self._again: Counter[str] = Counter()

    def key(self, data: bytes) -> str:
        found = content_hash_of(data)
        short = int(found[:16], 16)
        if short not in self._seen:
            self._seen.add(short)
            return found
        self._again[found] += 1
        return f"{found}-{self._again[found] + 1}"

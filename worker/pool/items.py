"""Items as plain data: what jobs read of rows, and hand to whatever computes."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from worker.arrays import Ints


@dataclass(frozen=True, slots=True)
class ItemRef:
    """A reference to an item's bytes; content_hash: where it is known, what is read must have it."""

    id: int
    uri: str
    content_hash: str | None = field(default=None, kw_only=True)


def ids_of(items: Sequence[ItemRef]) -> Ints:
    return np.array([item.id for item in items], np.int64)

"""Items whose class is known: what heads learn from and are measured on."""

from dataclasses import dataclass
from hashlib import blake2b

from worker.arrays import Bools, Ints


@dataclass(frozen=True)
class KnownItems:
    """Items whose class is known, by rising id: ids (m,), classes (m,) as indices, and decided_by (m,), the
    label that decided it, 0 where none did. Where items have several classes, classes is (m, c): 1 for each that an
    item has, else 0.
    """

    ids: Ints
    classes: Ints
    decided_by: Ints

    def __len__(self) -> int:
        return len(self.ids)

    def digest(self) -> str:
        """Equal where the items and their classes are."""
        return blake2b(self.ids.tobytes() + self.classes.tobytes(), digest_size=16).hexdigest()

    def keep(self, mask: Bools) -> "KnownItems":
        return KnownItems(self.ids[mask], self.classes[mask], self.decided_by[mask])

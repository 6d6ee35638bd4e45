"""The map of a score run, as it is stored: a place in two dimensions for each item, near for items that are alike.

The worker writes it (job map_items), the service reads it and needs nothing but numpy. Beside the arrays of the
score run stand, `n` being its items, or 200,000 of them where there are more:

    <artifact>/map/items.npy     (n,) int64, rising
    <artifact>/map/losses.npy    (n,) uint8, in what percentile the pretext loss is; 255 where there is none
    <artifact>/map/places.npy    (n, 2) uint16, 0 to 65535 from left to right and from bottom to top; written last

What a head thinks of all scored items is kept beside it, for the head of the newest ranking (job rank), `m` being the
items of the score run, as in <artifact>/ids.npy, whether they stand on the map or not:

    <artifact>/guesses/<version of the head>.npz    names (c,) of the classes
                                                    classes (m,) int16, -1 for an item that the head was not asked about
                                                    doubts (m,) uint8, 0 to 254, and 255 for such an item

Where an item may have several classes, `sets` (m, ⌈c / 8⌉) uint8 stand in the place of `classes`: a bit for each class
that the head takes it to have, the first one highest.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from service.store.artifacts import Artifacts

Ints = npt.NDArray[np.int64]

LARGEST = 200_000  # points
SIDE = 65_535
UNKNOWN = 255  # of losses and doubts
LOSS_STEPS = 250  # from the lowest pretext loss to the highest
DOUBT_STEPS = 254


def folder_of(artifact: str) -> str:
    """The folder of a score run's map, by the name of the run's arrays."""
    return f"{artifact}/map"


def is_there(artifacts: Artifacts, artifact: str) -> bool:
    return artifacts.exists(f"{folder_of(artifact)}/places.npy")


@dataclass(frozen=True)
class ItemMap:
    """Aligned by row: items (n,), places (n, 2), losses (n,), as above."""

    items: Ints
    places: npt.NDArray[np.uint16]
    losses: npt.NDArray[np.uint8]

    @staticmethod
    def open(artifacts: Artifacts, artifact: str) -> "ItemMap":
        """Raises `FileNotFoundError` where there is none, or none any more."""
        items, places, losses = (
            np.load(artifacts.local_path(f"{folder_of(artifact)}/{name}.npy"), allow_pickle=False)
            for name in ("items", "places", "losses")
        )
        return ItemMap(items, places, losses)

    def store(self, artifacts: Artifacts, artifact: str) -> None:
        for name in ("items", "losses", "places"):
            with artifacts.writing(f"{folder_of(artifact)}/{name}.npy") as file:
                np.save(file, getattr(self, name), allow_pickle=False)

    def inside(self, outline: npt.NDArray[np.float64]) -> Ints:
        """The items (m,) within the closed outline (k, 2), by the even-odd rule; k at least 3."""
        x, y = self.places[:, 0].astype(np.float64), self.places[:, 1].astype(np.float64)
        within = np.zeros(len(x), np.bool_)
        for (x0, y0), (x1, y1) in zip(outline, np.roll(outline, -1, axis=0), strict=True):
            if y0 != y1:
                crosses = (y0 > y) != (y1 > y)
                within ^= crosses & (x < (x1 - x0) * (y - y0) / (y1 - y0) + x0)
        return self.items[within]


@dataclass(frozen=True)
class Guesses:
    """A head's, of the items of a score run: its likeliest class and its doubt, as above; ids (m,) rising. Of several
    classes an item, classes (m, c) are those that it is taken to have.
    """

    names: Sequence[str]
    ids: Ints
    classes: npt.NDArray[np.int16 | np.bool_]
    doubts: npt.NDArray[np.uint8]

    @staticmethod
    def of(
        names: Sequence[str],
        ids: Ints,
        rows: Ints,
        probabilities: npt.NDArray[np.float32],
        several: bool = False,
    ) -> "Guesses":
        """ids (m,) of the score run; probabilities (k, c) of the items in `rows` (k,), c at least 1."""
        doubts = np.full(len(ids), UNKNOWN, np.uint8)
        if several:
            members = np.zeros((len(ids), len(names)), np.bool_)
            members[rows] = probabilities >= 0.5
            mean = (1 - np.abs(2 * probabilities - 1)).mean(axis=1)
            doubts[rows] = np.clip(np.rint(mean * DOUBT_STEPS), 0, DOUBT_STEPS)
            return Guesses(names, ids, members, doubts)
        classes = np.full(len(ids), -1, np.int16)
        classes[rows] = probabilities.argmax(axis=1)
        two = np.partition(np.pad(probabilities, ((0, 0), (1, 0))), -2, axis=1)[:, -2:]
        doubts[rows] = np.clip(np.rint((1 - (two[:, 1] - two[:, 0])) * DOUBT_STEPS), 0, DOUBT_STEPS)
        return Guesses(names, ids, classes, doubts)

    @staticmethod
    def name(artifact: str, head_version: int) -> str:
        return f"{artifact}/guesses/{head_version}.npz"

    def store(self, artifacts: Artifacts, artifact: str, head_version: int) -> None:
        several = self.classes.ndim == 2
        guessed = {"sets": np.packbits(self.classes, axis=1)} if several else {"classes": self.classes}
        with artifacts.writing(self.name(artifact, head_version)) as file:
            np.savez(file, allow_pickle=False, names=np.array(self.names), doubts=self.doubts, **guessed)

    @staticmethod
    def load(artifacts: Artifacts, artifact: str, head_version: int) -> "Guesses | None":
        """None where there are none, or none any more."""
        try:
            ids = np.load(artifacts.local_path(f"{artifact}/ids.npy"), mmap_mode="r", allow_pickle=False)
            name = Guesses.name(artifact, head_version)
            with artifacts.open(name) as file, np.load(file, allow_pickle=False) as arrays:
                names, classes = arrays["names"].tolist(), arrays.get("classes")
                if classes is None:
                    classes = np.unpackbits(arrays["sets"], axis=1, count=len(names)).astype(np.bool_)
                return Guesses(names, ids, classes, arrays["doubts"])
        except FileNotFoundError:
            return None

    def have(self, name: str) -> npt.NDArray[np.int16]:
        """(m,) 1 for an item that is taken to have the class, 0 for one that is not, -1 where the head was not asked
        about the item or did not know the class.
        """
        if name not in self.names:
            return np.full(len(self.ids), -1, np.int16)
        number = list(self.names).index(name)
        has = self.classes[:, number] if self.classes.ndim == 2 else self.classes == number
        return np.where(self.doubts == UNKNOWN, -1, has).astype(np.int16)

    def rows_of(self, items: Ints) -> Ints:
        """(k,) -> (k,) rows, -1 for an item that was not scored."""
        if not len(self.ids):
            return np.full(len(items), -1)
        found = np.minimum(np.searchsorted(self.ids, items), len(self.ids) - 1)
        return np.where(self.ids[found] == items, found, -1)

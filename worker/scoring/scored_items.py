"""The arrays of a score run, mapped from its artifact."""

from dataclasses import dataclass

import numpy as np

from service.store.artifacts import Artifacts
from worker.arrays import Bools, Bytes, Floats, Halves, Ints, Spans


@dataclass(frozen=True)
class ScoredItems:
    """Arrays aligned by row: ids (n,) int64 ascending, losses (n,) float32, embeddings (n, d) float16,
    mapped.
    """

    ids: Ints
    losses: Floats
    embeddings: Halves

    @staticmethod
    def open(artifacts: Artifacts, artifact: str) -> "ScoredItems":
        """All items of a complete score run, of both splits."""
        ids, losses, embeddings = (
            np.load(artifacts.local_path(f"{artifact}/{name}.npy"), mmap_mode="r")
            for name in ("ids", "losses", "embeddings")
        )
        return ScoredItems(np.asarray(ids), np.asarray(losses), np.asarray(embeddings))

    def where(self, ids: Ints) -> Ints:
        """(m,) item ids -> rows (m,); -1 for an item that was not scored."""
        if not len(self.ids):
            return np.full(len(ids), -1)
        rows = np.minimum(np.searchsorted(self.ids, ids), len(self.ids) - 1)
        return np.where(self.ids[rows] == ids, rows, -1)

    def embeddings_of(self, ids: Ints) -> Floats:
        """(m, d) float32 of scored items (m,)."""
        return self.embeddings[self.where(ids)].astype(np.float32)

    def among(self, ids: Ints) -> Bools:
        """(n,) True if the row's item is one of `ids` (m,)."""
        found = np.zeros(len(self.ids), np.bool_)
        rows = self.where(ids)
        found[rows[rows >= 0]] = True
        return found

    def keep(self, mask: Bools) -> "ScoredItems":
        """The rows where `mask` (n,) holds; copied only where it leaves any out."""
        if mask.all():
            return self
        return ScoredItems(self.ids[mask], self.losses[mask], self.embeddings[mask])


def open_spreads(artifacts: Artifacts, artifact: str) -> Floats:
    """(n,) float32, aligned with the other arrays of a score run: how far the losses of an item's views differ."""
    return np.asarray(np.load(artifacts.local_path(f"{artifact}/spreads.npy"), mmap_mode="r"))


def open_sketches(artifacts: Artifacts, artifact: str) -> Bytes:
    """(n, f) uint8, aligned with the other arrays of a score run, mapped."""
    name = f"{artifact}/sketches.npy"
    if not artifacts.exists(name):  # a score run of before there were items other than images
        name = f"{artifact}/thumbnails.npy"
    return np.asarray(np.load(artifacts.local_path(name), mmap_mode="r"))


def open_marks(artifacts: Artifacts, artifact: str) -> Spans | None:
    """(n, k, 2) int32, aligned with the other arrays of a score run, mapped (`service.store.marks`); None where there
    are none.
    """
    name = f"{artifact}/marks.npy"
    if not artifacts.exists(name):
        return None
    return np.asarray(np.load(artifacts.local_path(name), mmap_mode="r"))


def open_parts(artifacts: Artifacts, artifact: str) -> tuple[Halves, Halves] | None:
    """(n, d) by the pretext model alone and (n, p) by the foundation alone, float16, aligned with the other arrays of a
    score run, mapped; None where there was no foundation, and the embeddings are the pretext model's.
    """
    if not artifacts.exists(f"{artifact}/pretrained.npy"):
        return None
    trained, pretrained = (
        np.asarray(np.load(artifacts.local_path(f"{artifact}/{name}.npy"), mmap_mode="r"))
        for name in ("trained", "pretrained")
    )
    return trained, pretrained

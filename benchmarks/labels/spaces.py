"""Other spaces of a pool's embeddings than the pretext model's own: those that a project serves before and beside it.

trained     the pretext model's, as `benchmarks.labels.embeddings` makes them
raw         of the provisional score run, before there is a pretext model (job score_raw); no pretext losses. Judge
            `hog` sees nearly the same
pretrained  of EfficientNet-Lite2 alone, as `backbone: auto` sees them
joined      both, the default of `backbone: auto`

In the last two, judge `pretrained` is no foreign one: it sees what the picks were made by.
"""

import hashlib
import inspect
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from benchmarks.labels import embeddings
from benchmarks.labels.catalogue import make_pool
from benchmarks.labels.embeddings import Embedded
from benchmarks.labels.features import features
from worker.arrays import Floats, Halves
from worker.jobs import score_raw
from worker.modalities.image import Image, gradients
from worker.scoring import principal_components, space

SPACES = ("trained", "raw", "pretrained", "joined")
_PART = 1_024  # items


def in_space(name: str, pool: str, path: Path) -> Path:
    """The file of the pool's embeddings in this space, made of those in `path` if it is not there. Raises `Missing`."""
    if name == "trained":
        return path
    code = "".join(
        map(inspect.getsource, (space, principal_components, *((gradients,) if name == "raw" else ())))
    )
    found = path.with_stem(f"{path.stem}-{name}-{hashlib.sha256(code.encode()).hexdigest()[:4]}")
    made = embeddings.load(path)
    if not found.exists():
        every = _raw(pool) if name == "raw" else _of_frame(name, pool, made)
        n = len(made.classes)
        losses = np.zeros(n, np.float32) if name == "raw" else made.pretext_losses
        made = replace(made, embeddings=every[:n], test_embeddings=every[n:], pretext_losses=losses)
        embeddings.write(found, made)
    embeddings.write_beside(found, made.copies, made.thumbnails)
    return found


def _of_frame(name: str, pool: str, made: Embedded) -> Halves:
    """Embeddings (n + t, k) of the pool's items and its test items. The frame is fitted to the pool alone."""
    trained = np.concatenate([made.embeddings, made.test_embeddings])
    pretrained = np.load(features("pretrained", pool))
    n = len(made.classes)
    frame = space.Frame.fitted(trained[:n], pretrained[:n])
    return frame.embeddings("joined" if name == "joined" else "pretrained", trained, pretrained)


def _raw(pool: str) -> Halves:
    """(n + t, k) as job score_raw makes them of a pool and its test split."""
    made = make_pool(pool)
    pixels = np.concatenate([made.pixels, made.test_pixels])
    rng = np.random.default_rng(0)
    modality = Image(image_size=pixels.shape[-1]).for_raw_features()
    found: Floats = modality.raw_features(torch.split(torch.from_numpy(pixels), _PART), rng)
    return principal_components.principal_components(found, score_raw.DIMENSIONS, rng).astype(np.float16)

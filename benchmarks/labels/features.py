"""Features that foreign judges see, kept on the disk image by image: pools share images, and work may be stopped."""

import os
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.functional import normalize

from benchmarks.labels import lite
from benchmarks.labels.catalogue import make_pool
from benchmarks.labels.embeddings import CACHE
from benchmarks.labels.lite import lite2
from benchmarks.labels.photos import SIDE
from benchmarks.labels.pools import Pixels
from worker.arrays import Halves
from worker.modalities.image.gradients import edges, small, thumbnail

_AT_ONCE = 256


def hog(pixels: Pixels) -> Halves:
    """(n, 3, s, s) -> (n, d): histograms of oriented gradients and a thumbnail, each of unit length, joined to one."""
    parts = []
    for part in torch.split(torch.from_numpy(pixels), _AT_ONCE):
        images = small(part)
        parts.append(torch.cat([edges(images), normalize(thumbnail(images))], dim=1) / 2**0.5)
    found: Halves = torch.cat(parts).half().numpy()
    return found


_KEPT_AFTER = 512  # images
# By judge: the function, and the side at which photographs are read for it.
FEATURES: dict[str, tuple[Callable[[Pixels], Halves], int]] = {
    "hog": (hog, SIDE),
    "pretrained": (lite2, lite.SIDE),
}


def features(judge: str, pool: str, cache: Path = CACHE) -> Path:
    """The file of an array (n + t, f): the pool's items, then its test items. Raises `Missing`."""
    compute, side = FEATURES[judge]
    made = make_pool(pool, side)
    pixels = np.concatenate([made.pixels, made.test_pixels])
    keys = np.array([blake2b(image.tobytes(), digest_size=8).digest() for image in pixels]).view(np.uint64)
    found = blake2b(keys.tobytes(), digest_size=6).hexdigest()
    path = cache / "features" / judge / f"{pool}-{found}.npy"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        _write(path, _known(path.parent, keys, pixels, compute))
    return path


def _known(
    folder: Path, keys: npt.NDArray[np.uint64], pixels: Pixels, compute: Callable[[Pixels], Halves]
) -> Halves:
    """Features (n, f) of images with these keys; what no part in the folder holds is computed, and kept there."""
    known: dict[int, Halves] = {}
    for part in sorted(folder.glob("part-*.npz")):
        with np.load(part) as arrays:
            known.update(zip(arrays["keys"].tolist(), arrays["features"], strict=True))
    unknown = np.array([row for row, key in enumerate(keys.tolist()) if key not in known], np.int64)
    for start in range(0, len(unknown), _KEPT_AFTER):
        rows = unknown[start : start + _KEPT_AFTER]
        made = compute(pixels[rows])
        part = folder / f"part-{keys[rows[0]]:016x}.npz"
        unfinished = part.with_suffix(f".{os.getpid()}.tmp")
        with unfinished.open("wb") as file:
            np.savez(file, keys=keys[rows], features=made)
        unfinished.rename(part)
        known.update(zip(keys[rows].tolist(), made, strict=True))
    return np.stack([known[key] for key in keys.tolist()])


def _write(path: Path, array: Halves) -> None:
    unfinished = path.with_suffix(f".{os.getpid()}.tmp")
    with unfinished.open("wb") as file:
        np.save(file, array)
    unfinished.rename(path)

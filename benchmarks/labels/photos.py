"""Photo pools from `../shared/data/pools`: Parquet files with the columns key, label, image."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch

from benchmarks.labels.copies import find_copies
from benchmarks.labels.pools import Missing, Pixels, Pool
from service.content.contract import Limits
from worker.arrays import Ints
from worker.modalities.image import Image

PHOTOS = Path(__file__).parents[3] / "shared" / "data" / "pools"
SIDE = 64  # pixels, as the product reads photographs on a CPU
_LIMITS = Limits(max_pixels=100_000_000, max_text_bytes=0)


def photos(name: str, side: int = SIDE) -> Pool:
    """The pool in a random order that is the same for every `side`; turned by EXIF, read as the product reads. It has
    no test items of its own: each seed draws them. Raises `Missing`.
    """
    path = PHOTOS / f"{name}.parquet"
    if not path.exists():
        raise Missing(f"{name} is missing: {name}.parquet belongs in ../shared/data/pools.")
    table = pq.read_table(path)
    order = np.random.default_rng(0).permutation(len(table))
    table = table.take(order)
    _, classes = np.unique(table["label"].to_numpy(), return_inverse=True)
    pixels = _read(table["image"].to_pylist(), side)
    groups = _tracks(table["key"].to_pylist()) if name == "traffic_signs" else np.arange(len(pixels))
    if name == "weather":
        small = pixels if side == SIDE else _read(table["image"].to_pylist(), SIDE)
        copies = find_copies(small)  # other sizes of one photograph
        groups[copies[:, 0]] = copies[:, 1]
    return Pool(
        pixels=pixels,
        classes=classes.astype(np.int64),
        groups=groups,
        test_pixels=pixels[:0],
        test_classes=np.empty(0, np.int64),
    )


def _read(images: list[bytes], side: int) -> Pixels:
    reader = Image(image_size=side)
    found: Pixels = torch.stack([reader.decode(data, _LIMITS)[0] for data in images]).numpy()
    return found


def _tracks(keys: list[str]) -> Ints:
    """(n,) the first row of the same track: `class/TRACK_FRAME.jpg` is one of 30 frames of a drive past one sign."""
    first: dict[str, int] = {}
    return np.array([first.setdefault(key.rsplit("_", 1)[0], row) for row, key in enumerate(keys)])

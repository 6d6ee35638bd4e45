"""Near-duplicates in a pool, found as job score_pool finds them."""

import numpy as np
import torch

from benchmarks.labels.pools import Pixels
from worker.arrays import Ints
from worker.modalities.image.sketches import ImageSketcher, changed_slightly, differences, thumbnails
from worker.scoring.duplicates import representatives, threshold

_SAMPLE = 256  # items whose slightly changed views set the threshold


def find_copies(pixels: Pixels) -> Ints:
    """(n, 3, s, s) -> (m, 2) rows: a near-duplicate, and the item that stands for it."""
    everything = torch.from_numpy(pixels)
    rows = np.random.default_rng(0).choice(len(pixels), min(_SAMPLE, len(pixels)), replace=False)
    generator = torch.Generator().manual_seed(0)
    views = [thumbnails(changed_slightly(everything[torch.from_numpy(rows)], generator)) for _ in range(2)]
    own = np.arange(len(rows))
    largest = threshold(
        ImageSketcher(),
        differences(np.concatenate(views), own, own[:, None] + len(own))[:, 0],
        differences(views[0], own, np.roll(own, 1)[:, None])[:, 0],
    )
    represented = representatives(ImageSketcher(), thumbnails(everything), [None] * len(pixels), largest)
    found = np.flatnonzero(represented != np.arange(len(pixels)))
    return np.column_stack([found, represented[found]])

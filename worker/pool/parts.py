"""Some of a project's items as pixels, part by part, so that memory never holds all of them."""

from collections.abc import Iterator

import numpy as np
import sqlalchemy as sa
import torch
from torch import Tensor

from service.store.tables import Item
from worker.arrays import Ints
from worker.jobs.context import JobContext
from worker.pool.reader import ItemPixels

_AT_A_TIME = 64


def pixels_of(
    context: JobContext, item_pixels: ItemPixels, ids: Ints, side: int
) -> Iterator[tuple[Ints, Tensor]]:
    """Of items (n,): rows (m,) and their pixels (m, 3, s, s) uint8, at most 64 at a time and at least one, less those
    that cannot be read.
    """
    with context.read() as session:
        rows = session.execute(sa.select(Item.id, Item.uri).where(Item.id.in_(ids.tolist())))
        uris = {row.id: row.uri for row in rows}
    known = np.array([number for number, item_id in enumerate(ids.tolist()) if item_id in uris], np.int64)
    for start in range(0, len(known), _AT_A_TIME):
        part = known[start : start + _AT_A_TIME]
        decoded = item_pixels.decode([uris[int(item_id)] for item_id in ids[part]], side)
        pixels = [one.pixels for one in decoded if one.pixels is not None]
        if pixels:
            yield part[[one.pixels is not None for one in decoded]], torch.stack(pixels)

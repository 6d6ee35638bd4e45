"""Some items, decoded part by part, so that memory never holds all of them."""

from collections.abc import Iterator, Mapping

import numpy as np
from torch import Tensor

from worker.arrays import Ints
from worker.modalities import Modality
from worker.pool.items import ItemRef
from worker.pool.reader import ItemReader, stacked

_AT_A_TIME = 64


def decoded_parts(
    reader: ItemReader, modality: Modality, ids: Ints, refs: Mapping[int, ItemRef]
) -> Iterator[tuple[Ints, Tensor]]:
    """Parts of items (n,): rows (m,) and decoded items (m, *item_shape), at most 64 at a time and at least one, less
    those that have no reference, by id, or cannot be read.
    """
    known = np.array([number for number, item_id in enumerate(ids.tolist()) if item_id in refs], np.int64)
    for start in range(0, len(known), _AT_A_TIME):
        part = known[start : start + _AT_A_TIME]
        decoded = reader.decode_items([refs[int(item_id)] for item_id in ids[part]], modality)
        items = [one.item for one in decoded if one.item is not None]
        if items:
            yield part[[one.item is not None for one in decoded]], stacked(items, modality)

"""Names of arrays by the type of their elements; shapes stand in the docstrings of whoever uses them."""

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Halves = npt.NDArray[np.float16]
Bytes = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Spans = npt.NDArray[np.int32]


def no_spans(items: int, most: int) -> Spans:
    """(items, most, 2): first character and the one after the last, -1 where there is nothing."""
    return np.full((items, most, 2), -1, np.int32)

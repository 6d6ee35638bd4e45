"""DICOM files of one frame to 8-bit pictures, as a viewer shows them first; with the extra `medical`."""

import importlib.util
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from service.errors import BadItem

# It is imported where it is used: that takes half a second, and most services see no DICOM.
HAS_PYDICOM = importlib.util.find_spec("pydicom") is not None
_MAGIC_AT = 128

Values = np.ndarray[tuple[int, ...], np.dtype[np.float64]]


def is_dicom(data: bytes) -> bool:
    return data[_MAGIC_AT : _MAGIC_AT + 4] == b"DICM"


def open_dicom(data: bytes, max_pixels: int) -> Image.Image:
    """The picture as L or RGB: stored values through the modality LUT and the first window, or the range that the
    stored bits have where there is none; MONOCHROME1 inverted. Raises `BadItem`, and what pydicom does for broken
    files.
    """
    if not HAS_PYDICOM:
        raise BadItem(
            reason="it is a DICOM file: install `pip install 'shortlist[medical]'` and import it again, or convert it"
        )
    import pydicom
    from pydicom import pixels

    dataset = pydicom.dcmread(io.BytesIO(data))
    if "PixelData" not in dataset:
        raise BadItem(reason="it is a DICOM file without pixels")
    frames = int(dataset.get("NumberOfFrames") or 1)
    if frames > 1:
        raise BadItem(
            reason=f"it is a DICOM file of {frames} frames, of which each is an item: import the folder that it lies "
            "in, or name a frame, as `clip.dcm#frame=17`"
        )
    if dataset.Rows * dataset.Columns > max_pixels:
        raise BadItem(
            reason=f"{dataset.Columns} x {dataset.Rows} pixels are more than {max_pixels} allowed "
            "(SHORTLIST_MAX_IMAGE_PIXELS)"
        )
    stored = dataset.pixel_array
    if dataset.PhotometricInterpretation == "PALETTE COLOR":
        stored = pixels.apply_color_lut(stored, dataset)
    if stored.ndim == 3:
        return Image.fromarray((stored >> 8 if stored.dtype.itemsize > 1 else stored).astype(np.uint8))
    grey = _shown(dataset, stored)
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        grey = 1 - grey
    return Image.fromarray((np.clip(grey, 0, 1) * 255 + 0.5).astype(np.uint8))


def _shown(dataset: Any, stored: Any) -> Values:
    """0 is the darkest and 1 the brightest that a viewer shows, before a possible inversion (PS3.3 C.11.2)."""
    from pydicom import pixels

    values: Values = pixels.apply_modality_lut(stored, dataset).astype(np.float64)
    if dataset.get("VOILUTSequence"):
        bits = int(dataset.VOILUTSequence[0].LUTDescriptor[2])
        return np.asarray(pixels.apply_voi(values.astype(np.int64), dataset) / (2.0**bits - 1))
    if "WindowCenter" in dataset and "WindowWidth" in dataset:
        centre, width = _first(dataset.WindowCenter), _first(dataset.WindowWidth)
        function = dataset.get("VOILUTFunction") or "LINEAR"
        if function == "SIGMOID":
            return np.asarray(1 / (1 + np.exp(-4 * (values - centre) / width)))
        if function == "LINEAR":
            centre, width = centre - 0.5, width - 1
        return np.asarray((values - centre) / max(width, 1e-12) + 0.5)
    signed = int(dataset.PixelRepresentation) == 1
    least = -(2 ** (int(dataset.BitsStored) - 1)) if signed else 0
    ends = np.array([least, least + 2 ** int(dataset.BitsStored) - 1], stored.dtype)
    low, high = sorted(pixels.apply_modality_lut(ends, dataset).astype(np.float64).tolist())
    return np.asarray((values - low) / max(high - low, 1e-12))


def _first(value: Any) -> float:
    """The first of several windows, or the only one."""
    return float(value[0] if isinstance(value, Sequence) else value)

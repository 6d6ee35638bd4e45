"""A DICOM file looks as a viewer shows it first."""

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from service.content import dicom
from service.content.contract import Limits
from service.content.image import CONTENT, open_rgb
from service.errors import BadItem

pydicom = pytest.importorskip("pydicom", reason="the extra `medical` is not installed")
LIMITS = Limits(max_pixels=10_000, max_text_bytes=1)


def file_of(values: Any, **attributes: Any) -> bytes:
    """values: (h, w) uint16 or int16 in 12 bits, or (h, w, 3) uint8."""
    meta = pydicom.dataset.FileMetaDataset()
    meta.MediaStorageSOPClassUID = pydicom.uid.SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = "1.2.3"
    meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    data = pydicom.dataset.Dataset()
    data.file_meta = meta
    data.SOPClassUID, data.SOPInstanceUID = meta.MediaStorageSOPClassUID, "1.2.3"
    data.Rows, data.Columns = values.shape[:2]
    colour = values.ndim == 3
    data.SamplesPerPixel = 3 if colour else 1
    data.PhotometricInterpretation = "RGB" if colour else "MONOCHROME2"
    if colour:
        data.PlanarConfiguration = 0
    data.BitsAllocated, data.BitsStored = (8, 8) if colour else (16, 12)
    data.HighBit = data.BitsStored - 1
    data.PixelRepresentation = int(values.dtype == np.int16)
    data.PixelData = values.tobytes()
    for name, value in attributes.items():
        setattr(data, name, value)
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, data, enforce_file_format=True)
    return buffer.getvalue()


def grey(data: bytes) -> list[int]:
    image = np.asarray(open_rgb(data, LIMITS.max_pixels))
    assert (image == image[..., :1]).all()
    return [int(value) for value in image[0, :, 0]]


RAMP = np.array([[0, 1024, 2048, 4095]], np.uint16).repeat(2, 0)


def test_without_a_window_the_stored_bits_are_the_range() -> None:
    assert grey(file_of(RAMP)) == [0, 64, 128, 255]
    assert grey(file_of(RAMP // 2)) == [0, 32, 64, 127]  # a dim one stays dim


def test_hounsfield_units_and_a_window() -> None:
    data = file_of(
        RAMP, RescaleSlope=1, RescaleIntercept=-1024, WindowCenter=[0, 40], WindowWidth=[2049, 400]
    )
    assert grey(data) == [0, 128, 255, 255]


def test_a_window_that_is_exact_and_one_that_is_curved() -> None:
    exact = file_of(RAMP, WindowCenter=2048, WindowWidth=4096, VOILUTFunction="LINEAR_EXACT")
    assert grey(exact) == [0, 64, 128, 255]
    curved = grey(file_of(RAMP, WindowCenter=2048, WindowWidth=4096, VOILUTFunction="SIGMOID"))
    assert curved[2] == 128
    assert 0 < curved[0] < curved[1] < 128 < curved[3] < 255


def test_monochrome1_is_inverted() -> None:
    assert grey(file_of(RAMP, PhotometricInterpretation="MONOCHROME1")) == [255, 191, 127, 0]


def test_signed_values() -> None:
    assert grey(file_of(np.array([[-2048, 0, 2047]], np.int16))) == [0, 128, 255]


def test_colour() -> None:
    colours = np.array([[[255, 0, 0], [0, 128, 255]]], np.uint8)
    assert (np.asarray(open_rgb(file_of(colours), LIMITS.max_pixels)) == colours).all()


def test_it_is_an_image_like_any_other() -> None:
    data = file_of(RAMP)
    assert ".dcm" in CONTENT.suffixes
    assert CONTENT.inspect(data, LIMITS) == {"width": 4, "height": 2}
    shown = CONTENT.preview(data, LIMITS, None)
    assert (shown.media_type, Image.open(io.BytesIO(shown.data)).size) == ("image/png", (4, 2))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (file_of(np.zeros((4, 4), np.uint16), NumberOfFrames=3), "3 frames"),
        (file_of(np.zeros((101, 100), np.uint16)), r"100 x 101 pixels.*SHORTLIST_MAX_IMAGE_PIXELS"),
        (file_of(RAMP)[:300], "broken or truncated|without pixels"),
        (b"\0" * 128 + b"DICM", "broken or truncated|without pixels"),
    ],
    ids=["frames", "large", "cut", "empty"],
)
def test_what_is_not_taken_says_why(data: bytes, reason: str) -> None:
    with pytest.raises(BadItem, match=reason):
        open_rgb(data, LIMITS.max_pixels)


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    data = file_of(RAMP)
    monkeypatch.setattr(dicom, "HAS_PYDICOM", False)
    with pytest.raises(BadItem, match=r"DICOM file: install `pip install 'shortlist\[medical\]'`"):
        open_rgb(data, LIMITS.max_pixels)

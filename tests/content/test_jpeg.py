"""JPEGs past Pillow are the pixels that Pillow gives, at every scale; what is unusual is left to Pillow."""

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image, JpegImagePlugin

from service.content.jpeg import plain_jpeg
from tests.pictures import encoded, picture

MOST = 10**8
OPTIONS: list[dict[str, Any]] = [
    {},
    {"progressive": True},
    {"subsampling": 0},
    {"subsampling": 1},
    {"quality": 30},
    {"quality": 98},
    {"optimize": True, "comment": b"hello"},
    {"restart_marker_blocks": 1},
]


def smooth(width: int, height: int) -> Image.Image:
    return picture(1, 8, 8).resize((width, height), Image.Resampling.BICUBIC)


def by_pillow(data: bytes, side: int | None) -> np.ndarray[Any, Any]:
    image = JpegImagePlugin.JpegImageFile(io.BytesIO(data))
    if side is not None:
        image.draft(None, (2 * side, 2 * side))
    return np.asarray(image.convert("RGB"))


def with_orientation(number: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = number
    return exif


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("size", [(32, 32), (33, 47), (640, 480), (1023, 129), (5, 300)])
def test_the_same_pixels(options: dict[str, Any], mode: str, size: tuple[int, int]) -> None:
    if mode == "L":
        options = {name: value for name, value in options.items() if name != "subsampling"}
    data = encoded(smooth(*size).convert(mode), "JPEG", **options)
    for side in (None, 16, 32, 64, 224):
        found = plain_jpeg(data, side, MOST)
        assert found is not None
        assert found[1] == size
        assert (found[0] == by_pillow(data, side)).all()


def test_upright_photographs_of_cameras_too() -> None:
    for exif in (with_orientation(1), Image.Exif()):
        data = encoded(smooth(32, 32), "JPEG", exif=exif.tobytes() or b"Exif\0\0MM\0*\0\0\0\x08\0\0")
        found = plain_jpeg(data, None, MOST)
        assert found is not None
        assert (found[0] == by_pillow(data, None)).all()


def test_all_else_is_left_to_pillow() -> None:
    image = smooth(32, 32)
    whole = encoded(image, "JPEG")
    xmp = b"http://ns.adobe.com/xap/1.0/\0<x tiff:Orientation='6'/>"
    for data in (
        encoded(image),
        encoded(image.convert("CMYK"), "JPEG"),
        b"",
        b"\xff\xd8",
        b"\xff\xd8\xff\xc0",
        encoded(image, "JPEG", exif=with_orientation(6)),
        encoded(image, "JPEG", exif=b"Exif\0\0MM"),
        whole[:2] + b"\xff\xe1" + (len(xmp) + 2).to_bytes(2, "big") + xmp + whole[2:],
        whole[: len(whole) // 2],
    ):
        assert plain_jpeg(data, 32, MOST) is None
    assert plain_jpeg(whole, 32, 32 * 32 - 1) is None

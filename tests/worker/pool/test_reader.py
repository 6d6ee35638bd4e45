"""Bytes to pixels: the quick ways give what the thorough way gives, and what is broken says why."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from torch import Tensor

from service.content.image import open_rgb
from service.settings import Settings
from tests.pictures import encoded, picture
from worker.modalities.image import Image as Images
from worker.modalities.image.pixels import to_pixels
from worker.pool.reader import Decoded, ItemReader


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(source_roots=(str(tmp_path),), threads=1)


def smooth(width: int, height: int, number: int = 1) -> Image.Image:
    return picture(number, 8, 8).resize((width, height), Image.Resampling.BICUBIC)


def thorough(data: bytes, side: int) -> Tensor:
    return to_pixels(open_rgb(data, 10**8), side)


@pytest.fixture
def decode(settings: Settings, tmp_path: Path) -> Any:
    def one(data: bytes, side: int = 32) -> Decoded:
        path = tmp_path / "item"
        path.write_bytes(data)
        with ItemReader(settings) as reader:
            return reader.decode([str(path)], Images(image_size=side))[0]

    return one


@pytest.mark.parametrize("part", [0.05, 0.3, 0.6, 0.95, 0.999])
def test_a_jpeg_that_was_cut_off_is_refused_as_always(part: float, decode: Any) -> None:
    whole = encoded(smooth(32, 32), "JPEG")
    found = decode(whole[: int(part * len(whole))])

    assert found.item is None
    assert "broken or truncated" in found.reason or "supported format" in found.reason


@pytest.mark.parametrize("orientation", [1, 6])
def test_large_jpegs_are_decoded_at_a_fraction(orientation: int, decode: Any) -> None:
    turned = Image.Exif()
    turned[0x0112] = orientation
    data = encoded(smooth(640, 480), "JPEG", exif=turned)
    found = decode(data)

    width, height = (640, 480) if orientation == 1 else (480, 640)
    assert found.facts == {"width": width, "height": height}
    assert (found.item.int() - thorough(data, 32).int()).abs().max() <= 3


@pytest.mark.parametrize("size", [(1, 1), (3000, 1), (1, 3000)])
def test_thin_and_tiny_pictures_are_squares_too(size: tuple[int, int], decode: Any) -> None:
    assert decode(encoded(picture(1, *size)), 16).item.shape == (3, 16, 16)


def test_grey_and_transparent_pictures_mix(settings: Settings, tmp_path: Path) -> None:
    paths = []
    for number, mode in enumerate(["RGB", "L", "RGBA", "LA", "P", "1", "I;16"]):
        image = (
            Image.fromarray(np.full((9, 9), 999, np.uint16))
            if mode == "I;16"
            else picture(1, 9, 9).convert(mode)
        )
        paths.append(tmp_path / f"{number}.png")
        image.save(paths[-1])
    with ItemReader(settings) as reader:
        stacked = reader.stack([str(path) for path in paths], Images(image_size=8))

    assert stacked.shape == (7, 3, 8, 8)


def test_a_huge_picture_is_refused_before_it_is_decoded(decode: Any) -> None:
    found = decode(encoded(Image.new("1", (20_000, 20_000))))

    assert found.item is None
    assert "20000 x 20000 pixels are more than" in found.reason

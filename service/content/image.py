"""Image bytes to RGB, whatever the file holds: grey, palette, alpha, CMYK, 16 bit, rotated by EXIF."""

import io
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar

import numpy as np
from PIL import Image, UnidentifiedImageError

from service.content.contract import Facts, Limits, Preview
from service.errors import BadItem

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"})

# `open_rgb` compares with its own limit before anything is decoded; Pillow's would warn or refuse below it.
Image.MAX_IMAGE_PIXELS = None

_ORIENTATION_TAG = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_filters_lock = threading.Lock()

# Formats that browsers show, by how the file begins. Anything else is sent as PNG.
_SHOWN = {
    b"\xff\xd8\xff": "image/jpeg",
    b"\x89PNG\r\n\x1a\n": "image/png",
    b"GIF8": "image/gif",
    b"BM": "image/bmp",
}
_LOSSLESS_UP_TO = 256  # pixels a side: small ones stay exact, larger ones are JPEG
_JPEG_QUALITY = 88


class Images:
    """Pictures in any common raster format."""

    name: ClassVar[str] = "image"
    suffixes: ClassVar[frozenset[str]] = SUFFIXES
    columns: ClassVar[tuple[str, ...]] = ("image", "img")
    formats: ClassVar[tuple[str, ...]] = FORMATS
    binary: ClassVar[bool] = True
    default_task: ClassVar[str] = "rotation"

    def inspect(self, data: bytes, limits: Limits) -> Facts:
        """Decodes it whole, so that later steps can trust it."""
        width, height = open_rgb(data, limits.max_pixels).size
        return {"width": width, "height": height}

    def preview(self, data: bytes, limits: Limits, size: int | None) -> Preview:
        """The whole image, or one at most `size` pixels a side, never enlarged."""
        media_type = _media_type(data)
        if size is None and media_type is not None:
            return Preview(media_type, data)
        image = open_rgb(data, limits.max_pixels)
        if size is not None:
            image.thumbnail((size, size))
        buffer = io.BytesIO()
        if max(image.size) <= _LOSSLESS_UP_TO:
            image.save(buffer, "PNG")
            return Preview("image/png", buffer.getvalue())
        image.save(buffer, "JPEG", quality=_JPEG_QUALITY)
        return Preview("image/jpeg", buffer.getvalue())

    def text(self, data: bytes, limits: Limits) -> None:
        return None


CONTENT = Images()


def _media_type(data: bytes) -> str | None:
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    return next((name for start, name in _SHOWN.items() if data.startswith(start)), None)


def open_rgb(data: bytes, max_pixels: int) -> Image.Image:
    """The first frame, upright, in 8-bit RGB; what is transparent becomes white. Raises `BadItem`."""
    return open_scaled(data, max_pixels, None)[0]


def open_scaled(data: bytes, max_pixels: int, side: int | None) -> tuple[Image.Image, tuple[int, int]]:
    """As `open_rgb`, with the true width and height, for who needs no more than `side` pixels a side.

    A JPEG may be decoded at a half, a quarter or an eighth, which is several times as quick; it then still has
    twice as many pixels a side as asked for.
    """
    if not data:
        raise BadItem(reason="the file is empty")
    try:
        with _no_warnings():
            image: Image.Image = Image.open(io.BytesIO(data), formats=FORMATS)
        pixels = image.width * image.height
        if pixels == 0:
            raise BadItem(reason="it has no pixels")
        if pixels > max_pixels:
            raise BadItem(reason=f"{image.width} x {image.height} pixels are more than {max_pixels} allowed")
        size = image.size
        late = image.format == "PNG" and "exif" not in image.info  # the orientation may come after the pixels
        turned = image.format == "TIFF"  # by Pillow itself, and its size is that of the upright image
        orientation = None if late or turned else _orientation(image)
        if side is not None:
            image.draft(None, (2 * side, 2 * side))
        image.load()
        if late:
            orientation = _orientation(image)
        if orientation in _UPRIGHT:
            image = image.transpose(_UPRIGHT[orientation])
            size = size if orientation <= 4 else size[::-1]
        return _rgb(image), size
    except BadItem:
        raise
    except UnidentifiedImageError:
        raise BadItem(reason=f"not an image in a supported format ({', '.join(FORMATS)})") from None
    except Exception as error:  # a broken file makes Pillow raise nearly anything
        raise BadItem(reason=f"broken or truncated ({str(error) or type(error).__name__})") from error


@contextmanager
def _no_warnings() -> Iterator[None]:
    """Odd metadata makes Pillow warn; the image is good all the same.

    Warning filters belong to the process, not to the thread: hence the lock. Nothing is decoded under it.
    """
    with _filters_lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _orientation(image: Image.Image) -> int | None:
    """As far as the file has been read: `PngImageFile.getexif` would decode the pixels to read on."""
    try:
        with _no_warnings():
            orientation = Image.Image.getexif(image).get(_ORIENTATION_TAG)
    except Exception:  # unreadable metadata: the image is taken as it lies
        return None
    return orientation if isinstance(orientation, int) else None


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image, np.float32) / 257 + 0.5).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        return _stretched(np.asarray(image, np.float64))
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        if image.mode == "La":  # Pillow converts premultiplied grey only to plain grey and alpha
            image = image.convert("LA")
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _stretched(values: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> Image.Image:
    """32-bit integers and floats have no agreed white: the smallest value turns black, the largest white."""
    if not np.isfinite(values).all():
        raise BadItem(reason="it holds values that are not numbers")
    low, high = values.min(), values.max()
    grey = (values - low) * (255 / max(high - low, 1e-12)) + 0.5
    return Image.fromarray(grey.astype(np.uint8)).convert("RGB")

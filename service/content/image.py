"""Image bytes to RGB, whatever the file holds: grey, palette, alpha, CMYK, 16 bit, rotated by EXIF."""

import io
import re
import sys
import threading
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar

import numpy as np
from PIL import Image, UnidentifiedImageError, features

from service.content.contract import Facts, Limits, Preview
from service.content.dicom import is_dicom, open_dicom
from service.content.jpeg import plain_jpeg
from service.content.mistaken import archive, mistaken
from service.content.volumes import is_nifti
from service.errors import BadItem

try:  # the extra `heic`
    import pillow_heif
except ImportError:
    _HEIF: tuple[str, ...] = ()
else:
    pillow_heif.register_heif_opener()
    _HEIF = ("HEIF",)

FORMATS = (
    "JPEG",
    "PNG",
    "WEBP",
    "BMP",
    "GIF",
    "TIFF",
    "PPM",
    *(("AVIF",) if features.check("avif") else ()),
    *_HEIF,
)
SUFFIXES = frozenset(
    {
        ".jpg",
        ".jpeg",
        ".jpe",
        ".jfif",
        ".png",
        ".webp",
        ".bmp",
        ".gif",
        ".tif",
        ".tiff",
        ".avif",
        ".heic",
        ".heif",
        ".dcm",
        ".nii",
        ".nii.gz",
        ".pgm",
        ".ppm",
        ".pnm",
    }
)

# `open_rgb` compares with its own limit before anything is decoded; Pillow's would warn or refuse below it.
Image.MAX_IMAGE_PIXELS = None

_ORIENTATION_TAG, _BITS_TAG, _PLANES_TAG = 0x0112, 258, 284
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
_HEIC_BRANDS = frozenset({b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1"})
_AVIF_BRANDS = frozenset({b"avif", b"avis"})
_DEEPEST = 16  # bits of a channel
# How Pillow calls colour of 16 bits as it lies in a file. Premultiplied alpha and CMYK are not among them: it computes
# with their upper bytes while it reads them.
_DEEP_COLOUR = re.compile(r"(?P<bands>RGB|RGBX|RGBA|LA);16(?P<order>[BLN])")
_LOOKED_AT = 256  # pixels a side that tell how light an image is
_TOO_LIGHT = 224  # of 255, mean of what is not transparent: on white, people would see nothing of it

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
    shared_suffixes: ClassVar[frozenset[str]] = frozenset()
    columns: ClassVar[tuple[str, ...]] = ("image", "img")
    formats: ClassVar[tuple[str, ...]] = FORMATS
    binary: ClassVar[bool] = True
    has_text: ClassVar[bool] = False
    default_task: ClassVar[str] = "rotation"
    shown_as: ClassVar[str | None] = None

    def inspect(self, data: bytes, limits: Limits) -> Facts:
        """Decodes it whole, so that later steps can trust it."""
        image = open_rgb(data, limits.max_pixels)
        return facts_of(image, *image.size)

    def preview(
        self, data: bytes, limits: Limits, size: int | None, settings: Mapping[str, Any] | None = None
    ) -> Preview:
        """The whole image, or one at most `size` pixels a side, never enlarged. As it is sent where a browser shows it
        as people and models see it here.
        """
        bits = (settings or {}).get("bits")
        media_type = _media_type(data)
        if size is None and media_type is not None and not _is_shown_otherwise(data):
            return Preview(media_type, data)
        image = open_rgb(data, limits.max_pixels, bits)
        if size is None and media_type is not None and not image.info.keys() & {"bits", "dark"}:
            return Preview(media_type, data)
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


def _is_shown_otherwise(data: bytes) -> bool:
    """True if a browser may show something else, by the header: more bits than eight, or a transparent ground."""
    try:
        with _no_warnings():
            image = Image.open(io.BytesIO(data), formats=FORMATS)
    except Exception:  # whoever decodes it says why
        return False
    return image.mode.startswith("I;16") or _deep_colour(image) is not None or _has_alpha(image)


def facts_of(image: Image.Image, width: int, height: int) -> Facts:
    """About an image as `open_rgb` gives it. bits: that the largest value of a file with 16 a channel takes."""
    bits = image.info.get("bits")
    return {"width": width, "height": height} | ({"bits": bits} if bits else {})


def bits_of(facts: Iterable[Facts]) -> int | None:
    """The bits that the values of a pool take, by the facts of some of its images; None where none has 16 a channel.

    Microscopes and CT scanners write 10, 12 or 14 bits into files of 16.
    """
    return max((one["bits"] for one in facts if one.get("bits")), default=None)


def open_rgb(data: bytes, max_pixels: int, bits: int | None = None) -> Image.Image:
    """The first frame, upright, in 8-bit RGB; what is transparent becomes white, or black where what is not would be
    lost on white. Raises `BadItem`.

    bits: that values of files with 16 a channel take; larger ones are white. By default all 16. `info` of the image
    says `bits`: those that its own largest value takes, and `dark`: that it was laid on black.
    """
    return open_scaled(data, max_pixels, None, bits)[0]


def open_scaled(
    data: bytes, max_pixels: int, side: int | None, bits: int | None = None
) -> tuple[Image.Image, tuple[int, int]]:
    """As `open_rgb`, with the true width and height, for who needs no more than `side` pixels a side.

    A JPEG may be decoded at a half, a quarter or an eighth, which is several times as quick; it then still has
    twice as many pixels a side as asked for.
    """
    if not data:
        raise BadItem(reason="the file is empty")
    if (plain := plain_jpeg(data, side, max_pixels)) is not None:
        return Image.fromarray(plain[0]), plain[1]
    try:
        if is_dicom(data):
            picture = open_dicom(data, max_pixels)
            return _rgb(picture, None), picture.size
        with _no_warnings():
            image: Image.Image = Image.open(io.BytesIO(data), formats=FORMATS)
        pixels = image.width * image.height
        if pixels == 0:
            raise BadItem(reason="it has no pixels")
        if pixels > max_pixels:
            raise BadItem(
                reason=f"{image.width} x {image.height} pixels are more than {max_pixels} allowed "
                "(SHORTLIST_MAX_IMAGE_PIXELS)"
            )
        size = image.size
        late = image.format == "PNG" and "exif" not in image.info  # the orientation may come after the pixels
        turned = image.format == "TIFF"  # by Pillow itself, and its size is that of the upright image
        orientation = None if late or turned else _orientation(image)
        if side is not None:
            image.draft(None, (2 * side, 2 * side))
        deep = _deep_colour(image)
        if _is_deep_in_planes(image):
            raise BadItem(
                reason="it is a TIFF of 16 bits a channel, each channel by itself: save it with interleaved channels "
                "(PlanarConfiguration 1)"
            )
        image.load()
        if late:
            orientation = _orientation(image)
        if deep is not None:
            image = _of_deep_colour(image, _lower_bytes(data, deep), deep["bands"], bits or _DEEPEST)
        if orientation in _UPRIGHT:
            image = image.transpose(_UPRIGHT[orientation])
            size = size if orientation <= 4 else size[::-1]
        return _rgb(image, bits), size
    except BadItem:
        raise
    except UnidentifiedImageError:
        raise BadItem(reason=_why_not(data)) from None
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


def _why_not(data: bytes) -> str:
    """The reason why the bytes are no image that can be read."""
    if (found := mistaken(data)) is not None:
        return f"it is {found}"
    if is_nifti(data):
        return (
            "it is a NIfTI volume, of which each slice is an item: import the folder that it lies in, or name a "
            "slice, as `scan.nii.gz#frame=17`"
        )
    if data[4:8] == b"ftyp" and data[8:12] in _HEIC_BRANDS and not _HEIF:
        return (
            "it is a HEIC image: install `pip install 'shortlist[heic]'` and import it again, or convert it"
        )
    if data[4:8] == b"ftyp" and data[8:12] in _AVIF_BRANDS and "AVIF" not in FORMATS:
        return "it is an AVIF image, which this Pillow cannot read: install Pillow 11.3 or newer"
    if (found := archive(data)) is not None:
        return f"it is {found}"
    return f"not an image in a supported format ({', '.join(FORMATS)})"


def _rgb(image: Image.Image, bits: int | None) -> Image.Image:
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM"):
        return _of_deep_grey(np.asarray(image, np.uint16), bits or _DEEPEST)
    if image.mode in ("I", "F"):
        return _stretched(np.asarray(image, np.float64))
    if _has_alpha(image):
        if image.mode == "La":  # Pillow converts premultiplied grey only to plain grey and alpha
            image = image.convert("LA")
        return _laid(image.convert("RGBA"))
    return image if image.mode == "RGB" else image.convert("RGB")


def _deep_colour(image: Image.Image) -> re.Match[str] | None:
    """The match of how colour of 16 bits a channel lies in the file, before it is loaded; None for all else."""
    tiles = getattr(image, "tile", ())
    args = tiles[0].args if tiles else None
    raw = args[0] if isinstance(args, tuple) and args else args
    return _DEEP_COLOUR.fullmatch(raw) if isinstance(raw, str) else None


def _is_deep_in_planes(image: Image.Image) -> bool:
    """Pillow reads such a TIFF as something else, or only its upper bytes."""
    tags = getattr(image, "tag_v2", {})
    bits = tags.get(_BITS_TAG, ())
    return tags.get(_PLANES_TAG) == 2 and len(bits) > 1 and max(bits) > 8


def _lower_bytes(data: bytes, deep: re.Match[str]) -> Image.Image:
    """Pillow keeps the upper 8 of 16 bits a channel. Told that the bytes lie in the other order, it keeps the lower."""
    if deep["bands"] == "LA":  # there is no such order of it: four bytes a pixel, as they lie
        other = "RGBA"
    else:
        is_little = deep["order"] == "L" or (deep["order"] == "N" and sys.byteorder == "little")
        other = f"{deep['bands']};16{'B' if is_little else 'L'}"
    with _no_warnings():
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    image.tile = [
        tile._replace(args=(other, *tile.args[1:]) if isinstance(tile.args, tuple) else other)
        for tile in image.tile
    ]
    image.load()
    return image


def _of_deep_colour(upper: Image.Image, lower: Image.Image, bands: str, bits: int) -> Image.Image:
    """RGB, or RGBA where some of it is transparent; `upper` and `lower`: bytes of its channels, as Pillow reads
    them.
    """
    if bands == "LA":
        pairs = [(lower.getchannel(0), lower.getchannel(1))] * 3
    else:
        pairs = [(upper.getchannel(band), lower.getchannel(band)) for band in range(3)]
    colours = [np.asarray(high, np.uint16) << 8 | np.asarray(low) for high, low in pairs]
    image = Image.merge("RGB", [_scaled(values, bits) for values in colours])
    clear = upper.info.get("transparency")  # the one colour of a PNG that is
    if upper.mode == "RGBA":
        image.putalpha(upper.getchannel(3))
    elif isinstance(clear, tuple):
        same = [values == value for values, value in zip(colours, clear, strict=True)]
        image.putalpha(Image.fromarray(np.where(np.logical_and.reduce(same), np.uint8(0), np.uint8(255))))
    image.info["bits"] = max(int(max(values.max() for values in colours)).bit_length(), 1)
    return image


def _has_alpha(image: Image.Image) -> bool:
    return image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info


def _laid(rgba: Image.Image) -> Image.Image:
    """On white, or on black what would be lost there."""
    small = rgba.reduce(max(1, max(rgba.size) // _LOOKED_AT))
    alpha = np.asarray(small.getchannel("A"), np.float64)
    light = np.asarray(small.convert("RGB").convert("L"), np.float64)
    is_dark = alpha.min() < 255 and alpha.max() > 0 and (light * alpha).sum() >= _TOO_LIGHT * alpha.sum()
    ground = Image.new("RGBA", rgba.size, "black" if is_dark else "white")
    laid = Image.alpha_composite(ground, rgba).convert("RGB")
    laid.info |= {"bits": rgba.info["bits"]} if "bits" in rgba.info else {}
    if is_dark:
        laid.info["dark"] = True
    return laid


def _of_deep_grey(values: np.ndarray[tuple[int, ...], np.dtype[np.uint16]], bits: int) -> Image.Image:
    image = _scaled(values, bits).convert("RGB")
    image.info["bits"] = max(int(values.max()).bit_length(), 1)
    return image


def _scaled(values: np.ndarray[tuple[int, ...], np.dtype[np.uint16]], bits: int) -> Image.Image:
    scaled = np.minimum(values / np.float32((2**bits - 1) / 255) + np.float32(0.5), 255)
    return Image.fromarray(scaled.astype(np.uint8))


def _stretched(values: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> Image.Image:
    """32-bit integers and floats have no agreed white: the smallest value turns black, the largest white."""
    if not np.isfinite(values).all():
        raise BadItem(reason="it holds values that are not numbers")
    low, high = values.min(), values.max()
    grey = (values - low) * (255 / max(high - low, 1e-12)) + 0.5
    return Image.fromarray(grey.astype(np.uint8)).convert("RGB")

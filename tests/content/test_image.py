"""Every kind of image becomes the same upright RGB; what is broken says why."""

import contextlib
import struct
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFile

from service.content import image as image_module
from service.content.contract import Limits
from service.content.image import CONTENT, bits_of, open_rgb, open_scaled
from service.errors import BadItem
from tests.pictures import encoded, picture

LIMIT = 1_000_000
LIMITS = Limits(max_pixels=LIMIT, max_text_bytes=1)


def pixels(data: bytes) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    image = open_rgb(data, LIMIT)
    assert image.mode == "RGB"
    return np.asarray(image)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "WEBP"])
def test_lossless_formats_keep_every_pixel(kind: str) -> None:
    image = picture(1)
    options = {"lossless": True} if kind == "WEBP" else {}

    assert (pixels(encoded(image, kind, **options)) == np.asarray(image)).all()


def test_jpeg_is_close() -> None:
    smooth = picture(1, 4, 4).resize((32, 32), Image.Resampling.BICUBIC)

    difference = pixels(encoded(smooth, "JPEG", quality=95)).astype(int) - np.asarray(smooth)

    assert np.abs(difference).mean() < 5


@pytest.mark.parametrize("kind", ["GIF", "TIFF", "WEBP", "PNG"])
def test_the_first_frame_is_taken(kind: str) -> None:
    red, blue = Image.new("RGB", (6, 6), "red"), Image.new("RGB", (6, 6), "blue")
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(red, kind, save_all=True, append_images=[blue], **options)

    assert (pixels(data) == (255, 0, 0)).all()


def test_grey_is_grey_in_all_three_channels() -> None:
    grey = picture(2).convert("L")

    assert (pixels(encoded(grey)) == np.asarray(grey)[:, :, None]).all()


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_what_is_transparent_becomes_white(mode: str) -> None:
    clear = Image.new("RGBA", (4, 4), (0, 0, 0, 0)).convert(mode)
    clear.putpixel((1, 1), (0, 255) if mode == "LA" else (0, 0, 0, 255))

    found = pixels(encoded(clear))

    assert (found[0, 0] == 255).all()
    assert (found[1, 1] == 0).all()


@pytest.mark.parametrize("kind", ["PNG", "GIF"])
def test_a_palette_with_transparency_becomes_white_there(kind: str) -> None:
    image = Image.new("P", (4, 4), 0)
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putpixel((2, 2), 1)

    found = pixels(encoded(image, kind, transparency=0))

    assert (found[0, 0] == 255).all()
    assert (found[2, 2] == (0, 0, 255)).all()


def test_a_palette_without_transparency_keeps_its_colours() -> None:
    image = Image.new("P", (4, 4), 1)
    image.putpalette([255, 0, 0, 0, 0, 255])

    assert (pixels(encoded(image)) == (0, 0, 255)).all()


def test_cmyk_becomes_rgb() -> None:
    found = pixels(encoded(Image.new("CMYK", (8, 8), (255, 0, 0, 0)), "JPEG"))

    assert (found[..., 0] < 40).all()
    assert (found[..., 2] > 200).all()


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bits_are_scaled_not_cut(kind: str) -> None:
    values = np.array([[0, 257 * 10, 257 * 100, 65535]], np.uint16).repeat(4, 0)

    found = pixels(encoded(Image.fromarray(values), kind))

    assert found[0, :, 0].tolist() == [0, 10, 100, 255]


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_grey_of_twelve_bits_is_stretched_as_it_is_told(kind: str) -> None:
    values = np.array([[0, 2048, 4095, 5000]], np.uint16).repeat(4, 0)
    data = encoded(Image.fromarray(values), kind)

    assert pixels(data)[0, :, 0].tolist() == [0, 8, 16, 19]  # nobody said anything: as 16 bits
    assert np.asarray(open_rgb(data, LIMIT, 12))[0, :, 0].tolist() == [0, 128, 255, 255]
    assert np.asarray(open_rgb(data, LIMIT, 13))[0, :, 0].tolist() == [0, 64, 127, 156]


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize(("largest", "bits"), [(4095, 12), (1500, 11), (0, 1), (65535, 16), (255, 8)])
def test_facts_tell_the_bits_that_are_used(kind: str, largest: int, bits: int) -> None:
    data = encoded(Image.fromarray(np.full((2, 3), largest, np.uint16)), kind)

    assert CONTENT.inspect(data, LIMITS) == {"width": 3, "height": 2, "bits": bits}
    assert "bits" not in CONTENT.inspect(encoded(picture(1).convert("L"), kind), LIMITS)


def deep_png(values: np.ndarray[Any, np.dtype[np.uint16]], clear: tuple[int, ...] | None = None) -> bytes:
    """values: (h, w, c) uint16, c 2 (grey and alpha), 3 or 4; Pillow writes no such files."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width, channels = values.shape
    head = struct.pack(">IIBBBBB", width, height, 16, {2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + (chunk(b"tRNS", struct.pack(">HHH", *clear)) if clear else b"")
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def deep_tiff(values: np.ndarray[Any, np.dtype[np.uint16]], order: str, packed: bool) -> bytes:
    """values: (h, w, 3) uint16; order: `<` or `>`, of its bytes; packed: by deflate, which libtiff reads."""
    height, width, channels = values.shape
    strip = values.astype(f"{order}u2").tobytes()
    strip = zlib.compress(strip) if packed else strip
    entries = [
        (256, 4, 1, width),
        (257, 4, 1, height),
        (258, 3, 3, 8),
        (259, 3, 1, 8 if packed else 1),
        (262, 3, 1, 2),
        (273, 4, 1, 14),
        (277, 3, 1, channels),
        (278, 4, 1, height),
        (279, 4, 1, len(strip)),
    ]
    head = struct.pack(f"{order}2sHI", b"II" if order == "<" else b"MM", 42, 14 + len(strip))
    data = head + struct.pack(f"{order}3H", 16, 16, 16) + strip + struct.pack(f"{order}H", len(entries))
    for tag, kind, count, value in entries:
        form = f"{order}HHIHxx" if kind == 3 and count == 1 else f"{order}HHII"
        data += struct.pack(form, tag, kind, count, value)
    return data + b"\0\0\0\0"


DEEP = np.array([[[0, 2048, 4095], [16, 1000, 3000]]], np.uint16).repeat(2, 0)
OF_DEEP = [[0, 128, 255], [1, 62, 187]]
OPAQUE = np.full((2, 2, 1), 65535, np.uint16)


@pytest.mark.parametrize(
    "data",
    [
        deep_png(DEEP),
        deep_png(np.dstack([DEEP, OPAQUE])),
        *(deep_tiff(DEEP, order, packed) for order in "<>" for packed in (False, True)),
    ],
    ids=["png", "png-alpha", "tiff-little", "tiff-little-packed", "tiff-big", "tiff-big-packed"],
)
def test_colour_of_twelve_bits_is_stretched_too(data: bytes) -> None:
    assert CONTENT.inspect(data, LIMITS) == {"width": 2, "height": 2, "bits": 12}
    assert np.asarray(open_rgb(data, LIMIT, 12))[0].tolist() == OF_DEEP
    assert np.asarray(open_rgb(data, LIMIT))[0].tolist() == [[0, 8, 16], [0, 4, 12]]  # as 16 bits
    for size in (None, 64):
        shown = CONTENT.preview(data, LIMITS, size, {"bits": 12})
        assert pixels(shown.data)[0].tolist() == OF_DEEP


def test_deep_colour_and_grey_that_are_transparent() -> None:
    clear = np.dstack([DEEP, np.array([[65535, 0]], np.uint16).repeat(2, 0)])
    assert np.asarray(open_rgb(deep_png(clear), LIMIT, 12))[0].tolist() == [[0, 128, 255], [255] * 3]
    named = deep_png(DEEP, clear=(16, 1000, 3000))
    assert np.asarray(open_rgb(named, LIMIT, 12))[0].tolist() == [[0, 128, 255], [255] * 3]
    grey = np.array([[[4095, 65535], [2048, 65535], [2048, 0]]], np.uint16)
    image = open_rgb(deep_png(grey), LIMIT, 12)
    assert (np.asarray(image)[0, :, 0].tolist(), image.info["bits"]) == ([255, 128, 255], 12)


def test_deep_colour_in_planes_is_refused_not_misread() -> None:
    tiff = deep_tiff(DEEP, "<", False)
    planes = tiff.replace(struct.pack("<HHI", 278, 4, 1), struct.pack("<HHI", 284, 3, 1), 1)
    at = planes.index(struct.pack("<HHI", 284, 3, 1)) + 8
    planes = planes[:at] + struct.pack("<Hxx", 2) + planes[at + 4 :]
    with pytest.raises(BadItem, match="interleaved channels"):
        open_rgb(planes, LIMIT)


def test_deep_colour_is_turned_upright_like_any_other() -> None:
    tiff = deep_tiff(DEEP[:1], "<", False)
    turned = tiff.replace(struct.pack("<HHI", 278, 4, 1), struct.pack("<HHI", 274, 3, 1), 1)  # rows a strip …
    at = turned.index(struct.pack("<HHI", 274, 3, 1)) + 8
    turned = turned[:at] + struct.pack("<Hxx", 6) + turned[at + 4 :]  # … make room for the orientation
    image = open_rgb(turned, LIMIT, 12)
    assert image.size == (1, 2)
    assert np.asarray(image)[:, 0].tolist() == OF_DEEP


def test_a_pool_takes_the_bits_of_its_deepest_image() -> None:
    assert bits_of([{"width": 3, "bits": 11}, {"width": 3}, {}, {"bits": 12}]) == 12
    assert bits_of([{"width": 3}]) is None


@pytest.mark.parametrize("size", [None, 64])
def test_a_preview_shows_the_bits_of_the_pool(size: int | None) -> None:
    values = (np.arange(48 * 48).reshape(48, 48) % 4096).astype(np.uint16)
    for kind in ("PNG", "TIFF"):
        data = encoded(Image.fromarray(values), kind)
        shown = CONTENT.preview(data, LIMITS, size, {"bits": 12})
        assert shown.media_type == "image/png"
        assert (pixels(shown.data) == np.asarray(open_rgb(data, LIMIT, 12))).all()


def mask(number: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """(48, 48) uint8, 0 and 255: a shape."""
    y, x = np.mgrid[0:48, 0:48]
    inside: np.ndarray[tuple[int, ...], np.dtype[np.bool_]] = (x - 10 - 5 * number) ** 2 + (y - 24) ** 2 < 80
    return np.where(inside, np.uint8(255), np.uint8(0))


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_white_on_transparent_is_laid_on_black(kind: str) -> None:
    icons = [
        encoded(
            Image.fromarray(np.dstack([np.full((48, 48, 3), 255, np.uint8), mask(n)])), kind, lossless=True
        )
        for n in range(4)
    ]

    for number, data in enumerate(icons):
        found = np.asarray(open_rgb(data, LIMIT))
        assert (found == mask(number)[:, :, None]).all()
        for size in (None, 64):  # as annotators see it
            assert (pixels(CONTENT.preview(data, LIMITS, size).data) == found).all()
    assert len({open_rgb(data, LIMIT).tobytes() for data in icons}) == len(icons)


@pytest.mark.parametrize("grey", [0, 128, 200])
def test_what_can_be_seen_on_white_is_laid_on_white(grey: int) -> None:
    data = encoded(Image.fromarray(np.dstack([np.full((48, 48, 3), grey, np.uint8), mask(2)])))

    assert (np.asarray(open_rgb(data, LIMIT))[0, 0] == 255).all()
    assert CONTENT.preview(data, LIMITS, None).data == data


def test_a_white_image_that_hides_nothing_stays_as_it_is() -> None:
    white = Image.new("RGBA", (8, 8), "white")
    assert (pixels(encoded(white)) == 255).all()
    assert (pixels(encoded(Image.new("RGBA", (8, 8), (255, 255, 255, 0)))) == 255).all()


def test_a_format_is_told_by_the_bytes_whatever_the_suffix() -> None:
    assert {".jfif", ".jpe", ".avif", ".heic", ".heif"} <= CONTENT.suffixes
    found = pixels(encoded(Image.new("RGB", (32, 24), (200, 30, 30)), "AVIF"))
    assert found.shape == (24, 32, 3)
    assert np.abs(found.astype(int) - (200, 30, 30)).max() < 8


def test_heic_is_read_with_its_extra() -> None:
    pytest.importorskip("pillow_heif", reason="the extra `heic` is not installed")
    data = encoded(Image.new("RGB", (64, 48), (200, 30, 30)), "HEIF")

    assert CONTENT.inspect(data, LIMITS) == {"width": 64, "height": 48}
    assert CONTENT.preview(data, LIMITS, None).media_type == "image/png"


def test_heic_without_its_extra_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_module, "_HEIF", ())
    monkeypatch.setattr(image_module, "FORMATS", ("JPEG", "PNG"))
    with pytest.raises(BadItem, match=r"HEIC image: install `pip install 'shortlist\[heic\]'`"):
        open_rgb(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", LIMIT)


def test_floats_are_stretched_from_black_to_white() -> None:
    values = np.linspace(-3, 7, 16, dtype=np.float32).reshape(4, 4)

    found = pixels(encoded(Image.fromarray(values), "TIFF"))

    assert (found.min(), found.max()) == (0, 255)


def test_floats_that_are_no_numbers_are_bad() -> None:
    with pytest.raises(BadItem, match="not numbers"):
        open_rgb(encoded(Image.fromarray(np.full((4, 4), np.nan, np.float32)), "TIFF"), LIMIT)


@pytest.mark.parametrize("format", ["PNG", "TIFF"])  # Pillow turns the second by itself
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_applied(orientation: int, format: str) -> None:
    upright = picture(3, 8, 5)
    undo = {
        1: None,
        2: 0,
        3: 3,
        4: 1,
        5: 5,
        6: 2,
        7: 6,
        8: 4,
    }[orientation]
    stored = upright if undo is None else upright.transpose(Image.Transpose(undo))
    exif = Image.Exif()
    exif[0x0112] = orientation

    data = encoded(stored, format, exif=exif)
    assert (pixels(data) == np.asarray(upright)).all()
    assert open_scaled(data, LIMIT, 64)[1] == upright.size


@pytest.mark.parametrize("name", [b"eXIf", b"iTXt"])
def test_an_orientation_behind_the_pixels_of_a_png_is_applied(name: bytes) -> None:
    upright, exif = picture(3, 8, 5), Image.Exif()
    exif[0x0112] = 6
    said = {
        b"eXIf": exif.tobytes().removeprefix(b"Exif\0\0"),
        b"iTXt": b'XML:com.adobe.xmp\0\0\0\0\0<x tiff:Orientation="6"/>',
    }[name]
    png = encoded(upright.transpose(Image.Transpose.ROTATE_90))
    end = len(png) - len(chunk(b"IEND", b""))

    assert (pixels(png[:end] + chunk(name, said) + png[end:]) == np.asarray(upright)).all()


def test_odd_metadata_neither_warn_nor_harm() -> None:
    image = picture(4)
    broken_exif = encoded(image, "JPEG", exif=b"Exif\x00\x00II*\x00\x08\x00\x00\x00\xff\xff\x12\x01")

    assert open_rgb(broken_exif, LIMIT).size == image.size


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"no image at all", "supported format"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "supported format"),
        (encoded(picture(5, 64, 64))[:700], "truncated"),
        (encoded(picture(5, 64, 64), "JPEG")[:700], "truncated"),
        (encoded(picture(5))[:30], "truncated|supported"),
        (
            encoded(Image.new("L", (1001, 1000))),
            r"1001 x 1000 pixels are more than 1000000 allowed \(SHORTLIST_MAX_IMAGE_PIXELS\)",
        ),
        (b"version https://git-lfs.github.com/spec/v1\nsize 9\n", "it is a Git LFS pointer.*git lfs pull"),
        (b"\xef\xbb\xbf\n<!doctype HTML><html><title>Log in</title>", "it is a saved web page"),
    ],
    ids=["empty", "text", "svg", "cut png", "cut jpeg", "cut header", "too large", "lfs", "html"],
)
def test_bad_images_say_why(data: bytes, reason: str) -> None:
    with pytest.raises(BadItem, match=reason) as caught:
        open_rgb(data, LIMIT)
    assert str(caught.value) == f"This item cannot be used: {caught.value.reason}."


def chunk(name: bytes, data: bytes) -> bytes:
    """One chunk of a PNG."""
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def bomb(side: int) -> bytes:
    """A PNG of a few bytes that claims side x side pixels."""
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [10_000, 60_000])
def test_a_decompression_bomb_is_refused_by_its_header(side: int) -> None:
    with pytest.raises(BadItem, match=f"{side} x {side} pixels"):
        open_rgb(bomb(side), LIMIT)


def test_nothing_of_a_bomb_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[ImageFile.ImageFile] = []
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda image: decoded.append(image))

    with pytest.raises(BadItem, match="2000 x 2000 pixels"):
        open_rgb(encoded(Image.new("1", (2000, 2000))), LIMIT)
    assert not decoded


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "TIFF", "WEBP", "BMP"])
def test_images_are_decoded_side_by_side(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    both, load = threading.Barrier(2, timeout=10), ImageFile.ImageFile.load

    def load_together(image: ImageFile.ImageFile) -> object:
        both.wait()
        return load(image)

    data = encoded(picture(7), kind)
    monkeypatch.setattr(ImageFile.ImageFile, "load", load_together)
    with ThreadPoolExecutor(2) as threads:
        assert len(list(threads.map(pixels, [data, data]))) == 2


def test_no_pixels() -> None:
    with pytest.raises(BadItem):
        open_rgb(bomb(0), LIMIT)


def test_any_cut_or_flipped_byte_gives_an_image_or_a_reason() -> None:
    rng = np.random.default_rng(0)
    for kind in ("PNG", "JPEG", "GIF", "TIFF", "WEBP", "BMP"):
        whole = encoded(picture(6, 24, 24), kind)
        for _ in range(60):
            data = bytearray(whole[: rng.integers(1, len(whole) + 1)])
            data[rng.integers(len(data))] ^= 1 << rng.integers(8)
            with contextlib.suppress(BadItem):
                assert open_rgb(bytes(data), LIMIT).mode == "RGB"


def test_many_threads_at_once() -> None:
    data = [encoded(picture(number), "PNG") for number in range(40)]
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(pixels, data))

    assert all((found[number] == np.asarray(picture(number))).all() for number in range(40))

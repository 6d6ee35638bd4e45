"""Whatever content is registered: told apart by name and ending, and never run by a browser."""

import pytest

from service.content import contents, limits_of
from service.content.contract import Content
from service.errors import BadItem
from service.settings import Settings
from tests.pictures import encoded, picture

LIMITS = limits_of(Settings(max_image_pixels=10_000, max_text_bytes=10_000))
HOSTILE = (
    b"<script>alert(1)</script>",
    b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>",
    b"%PDF-1.4 /JavaScript",
    b"GIF89a/*<script>*/=alert(1)",
    b"\0" * 100,
    b"",
    b"\xff\xfe<\0s\0>\0",
)
HARMLESS = (
    "audio/",
    "video/",
    "text/plain",
    "image/png",
    "image/jpeg",
    "image/gif",
    "image/webp",
    "image/bmp",
)
each = pytest.mark.parametrize("content", contents().values(), ids=contents().keys())


def test_images_are_first_and_nothing_is_told_by_two() -> None:
    assert next(iter(contents())) == "image"
    suffixes = [suffix for content in contents().values() for suffix in content.suffixes]
    assert len(suffixes) == len(set(suffixes))
    assert all(suffix == suffix.lower() and suffix.startswith(".") for suffix in suffixes)
    others = {*suffixes, ".json"}  # mostly of something else, and of no kind
    assert all(content.shared_suffixes <= others - content.suffixes for content in contents().values())


@each
def test_all_that_is_declared_is_there(content: Content) -> None:
    assert contents()[content.name] is content
    assert content.suffixes or content.name == "pair"  # which is no file
    assert content.columns
    assert content.formats
    assert isinstance(content.binary, bool)
    assert content.default_task
    assert content.shown_as is None or content.shown_as.startswith(HARMLESS)


@each
@pytest.mark.parametrize("data", HOSTILE, ids=range(len(HOSTILE)))
def test_a_preview_is_nothing_that_a_browser_runs(content: Content, data: bytes) -> None:
    for size in (None, 64):
        try:
            shown = content.preview(data, LIMITS, size)
        except BadItem:
            continue
        assert shown.media_type.startswith(HARMLESS)


@each
def test_broken_bytes_are_bad_items(content: Content) -> None:
    for data in (b"", b"\0\1\2" * 50, bytes(range(256)) * 4):
        with pytest.raises(BadItem):
            content.inspect(data, LIMITS)


def test_images() -> None:
    data = encoded(picture(1, 40, 20))
    images = contents()["image"]
    assert images.inspect(data, LIMITS) == {"width": 40, "height": 20}
    assert images.preview(data, LIMITS, None).data == data
    assert images.text(data, LIMITS) is None

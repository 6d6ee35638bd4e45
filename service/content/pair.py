"""Pairs of an image and a text that belong together: photographs and captions, products and what is said of them.

A pair is no file. Its bytes, as both programs read and hash them, are those of its two halves, one after the other.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

from service.content.contract import Facts, Limits, Preview
from service.content.image import CONTENT as IMAGES
from service.content.text import CONTENT as TEXTS
from service.errors import BadItem

# Columns of tables, the likeliest first. An image's may hold it, or say where it is.
IMAGE_COLUMNS = (
    *IMAGES.columns,
    "image_path",
    "uri",
    "path",
    "file_name",
    "filename",
    "photo",
    "picture",
    "file",
    "filepath",
)
TEXT_COLUMNS = ("caption", *TEXTS.columns, "title", "description")

_MARK = b"shortlist pair\n"
_LENGTH = 8  # bytes that say how long the first half is


def packed(image: bytes, text: bytes) -> bytes:
    return _MARK + len(image).to_bytes(_LENGTH, "big") + image + text


def halves(data: bytes) -> tuple[bytes, bytes]:
    """Image and text. Raises `BadItem`, also where one of them is missing."""
    start = len(_MARK) + _LENGTH
    if not data.startswith(_MARK) or len(data) < start:
        raise BadItem(reason="not a pair: pairs come from the rows of a table, with an image and a text each")
    end = start + int.from_bytes(data[len(_MARK) : start], "big")
    image, text = data[start:end], data[end:]
    if not image or not text.strip():
        raise BadItem(reason=f"its {'text' if image else 'image'} is missing")
    return image, text


class Pairs:
    """Images with texts."""

    name: ClassVar[str] = "pair"
    suffixes: ClassVar[frozenset[str]] = frozenset()  # a file alone is none
    shared_suffixes: ClassVar[frozenset[str]] = frozenset()
    columns: ClassVar[tuple[str, ...]] = ("pair",)  # no table is told to be of pairs: a project says so
    formats: ClassVar[tuple[str, ...]] = ("a table with a column of images and one of texts",)
    binary: ClassVar[bool] = True
    has_text: ClassVar[bool] = True
    default_task: ClassVar[str] = "view_matching"
    shown_as: ClassVar[str | None] = None

    def inspect(self, data: bytes, limits: Limits) -> Facts:
        """The facts of both halves."""
        image, text = halves(data)
        return _of("image", IMAGES.inspect, image, limits) | _of("text", TEXTS.inspect, text, limits)

    def preview(
        self, data: bytes, limits: Limits, size: int | None, settings: Mapping[str, Any] | None = None
    ) -> Preview:
        """The image; answers carry the text beside it."""
        return IMAGES.preview(halves(data)[0], limits, size, settings)

    def text(self, data: bytes, limits: Limits) -> str:
        return TEXTS.text(halves(data)[1], limits)


CONTENT = Pairs()


def _of(part: str, look: Any, data: bytes, limits: Limits) -> Facts:
    try:
        found: Facts = look(data, limits)
    except BadItem as error:
        raise BadItem(reason=f"its {part}: {error.fields['reason']}") from error
    return found

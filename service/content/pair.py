"""Pairs of two items that belong together: photographs and captions, recordings and what is said in them, questions and
answers. A project says of which kinds; left out, of images and texts.

A pair is no file. Its bytes, as both programs read and hash them, are those of its two halves, one after the other, and
say which kinds these are.
"""

import binascii
import re
from base64 import b64decode
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, ClassVar, Literal, cast, get_args

from service.content.audio import CONTENT as AUDIOS
from service.content.contract import Content, Facts, Limits, Preview
from service.content.graph import CONTENT as GRAPHS
from service.content.image import CONTENT as IMAGES
from service.content.text import CONTENT as TEXTS
from service.content.video import CONTENT as VIDEOS
from service.errors import BadItem

Kind = Literal["image", "text", "audio", "video", "graph"]
Kinds = tuple[Kind, Kind]

_CONTENTS: Mapping[str, Content] = {
    "image": IMAGES,
    "text": TEXTS,
    "audio": AUDIOS,
    "video": VIDEOS,
    "graph": GRAPHS,
}
IMAGE_AND_TEXT: Kinds = ("image", "text")
EITHER = ("first", "second")  # columns and names of the halves of any pair
_PLACES = ("uri", "path", "file_name", "filename", "file", "filepath")
_MORE_COLUMNS: dict[str, tuple[str, ...]] = {
    "image": ("photo", "picture"),
    "text": ("title", "description"),
}
# Columns of two halves of one kind; of any, there are `text1` and `text2`, `text_a` and `text_b`, …
_BOTH_COLUMNS: dict[str, tuple[tuple[str, str], ...]] = {
    "text": (("question", "answer"), ("premise", "hypothesis"), ("query", "document"), ("source", "target")),
    "image": (("before", "after"),),
}
_ENDINGS = (("1", "2"), ("_1", "_2"), ("a", "b"), ("_a", "_b"))

_MARK = b"shortlist pair\n"  # of an image and a text, as all pairs once were
_ANY_MARK = re.compile(rb"shortlist pair of ([a-z]+) and ([a-z]+)\n")
_LENGTH = 8  # bytes that say how long the first half is
_DATA_URL = re.compile(r"data:[^,]{0,200};base64,", re.IGNORECASE)


def packed(first: bytes, second: bytes, kinds: Kinds = IMAGE_AND_TEXT) -> bytes:
    mark = _MARK if kinds == IMAGE_AND_TEXT else f"shortlist pair of {kinds[0]} and {kinds[1]}\n".encode()
    return mark + len(first).to_bytes(_LENGTH, "big") + first + second


def kinds_of(names: object) -> Kinds:
    """Two names of kinds as text. Raises `ValueError`."""
    known = get_args(Kind)
    if not isinstance(names, Sequence) or len(names) != 2 or any(name not in known for name in names):
        raise ValueError(f"a pair is of two of {', '.join(known)}")
    return cast(Kinds, tuple(names))


def halves(data: bytes) -> tuple[bytes, bytes]:
    """Raises `BadItem`, also where one of them is missing."""
    return _parsed(data)[1]


def names_of(kinds: Kinds) -> tuple[str, str]:
    """The names of both halves, for sentences and fields: their kinds, where these differ."""
    return kinds if kinds[0] != kinds[1] else ("first", "second")


def columns_of(kinds: Kinds) -> list[tuple[str, str]]:
    """Columns of tables that may hold both halves, or say where they are; the likeliest first."""
    first, second = kinds
    found = [EITHER]
    if first == second:
        found += _BOTH_COLUMNS.get(first, ())
        found += [(name + one, name + other) for name in _columns(first) for one, other in _ENDINGS]
    found += [(one, other) for one in _columns(first) for other in _columns(second) if one != other]
    return found


def is_inline(half: str) -> bool:
    """True for a `data:` URL, which holds the bytes themselves."""
    return _DATA_URL.match(half) is not None


def inline_bytes(half: str) -> bytes:
    """The bytes in a `data:` URL. Raises `BadItem`."""
    try:
        return b64decode(half.partition(",")[2], validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadItem(reason=f"its `data:` URL is not Base64 ({error})") from None


def is_place(kind: str) -> bool:
    """True where a half of this kind is given by where it is, or by a `data:` URL; else by itself, as text."""
    return _CONTENTS[kind].binary


def _columns(kind: str) -> tuple[str, ...]:
    own = _CONTENTS[kind].columns
    if not is_place(kind):
        return (*(("caption",) if kind == "text" else ()), *own, *_MORE_COLUMNS.get(kind, ()))
    return (*own, *(f"{name}_path" for name in own), *_PLACES[:4], *_MORE_COLUMNS.get(kind, ()), *_PLACES[4:])


def _parsed(data: bytes) -> tuple[Kinds, tuple[bytes, bytes]]:
    kinds, start = IMAGE_AND_TEXT, len(_MARK)
    if found := _ANY_MARK.match(data):
        kinds, start = kinds_of([name.decode() for name in found.groups()]), found.end()
    elif not data.startswith(_MARK):
        raise BadItem(reason="not a pair: pairs come from the rows of a table, with both halves each")
    if len(data) < start + _LENGTH:
        raise BadItem(reason="not a pair: it ends before its halves")
    end = start + _LENGTH + int.from_bytes(data[start : start + _LENGTH], "big")
    both = data[start + _LENGTH : end], data[end:]
    for kind, name, half in zip(kinds, names_of(kinds), both, strict=True):
        if not half or (kind == "text" and not half.strip()):
            raise BadItem(reason=f"its {_said(kind, name)} is missing")
    return kinds, both


class Pairs:
    """Two items that belong together, such as an image and a text."""

    name: ClassVar[str] = "pair"
    suffixes: ClassVar[frozenset[str]] = frozenset()  # a file alone is none
    shared_suffixes: ClassVar[frozenset[str]] = frozenset()
    columns: ClassVar[tuple[str, ...]] = ("pair",)  # no table is told to be of pairs: a project says so
    formats: ClassVar[tuple[str, ...]] = ("a table with a column of each half",)
    binary: ClassVar[bool] = True
    default_task: ClassVar[str] = "view_matching"
    shown_as: ClassVar[str | None] = None

    def __init__(self, kinds: Kinds = IMAGE_AND_TEXT) -> None:
        self.kinds = kinds

    @property
    def has_text(self) -> bool:
        return any(_CONTENTS[kind].has_text for kind in self.kinds)

    def inspect(self, data: bytes, limits: Limits) -> Facts:
        """The facts of both halves; of pairs other than of an image and a text by `first` and `second`."""
        kinds, both = _parsed(data)
        found = [
            _of(_said(kind, name), _CONTENTS[kind].inspect, half, limits)
            for kind, name, half in zip(kinds, names_of(kinds), both, strict=True)
        ]
        return found[0] | found[1] if kinds == IMAGE_AND_TEXT else dict(zip(EITHER, found, strict=True))

    def preview(
        self, data: bytes, limits: Limits, size: int | None, settings: Mapping[str, Any] | None = None
    ) -> Preview:
        """The first half that is no text; answers carry texts."""
        kinds, _ = _parsed(data)
        content, half = self.part(data, 2 if kinds[0] == "text" != kinds[1] else 1)
        return content.preview(half, limits, size, settings)

    def part(self, data: bytes, number: int) -> tuple[Content, bytes]:
        """A half, 1 or 2. Raises `BadItem`."""
        kinds, both = _parsed(data)
        return _CONTENTS[kinds[number - 1]], both[number - 1]

    def texts(self, data: bytes, limits: Limits) -> tuple[str | None, str | None]:
        """The texts of both halves, None for one that is none. Raises `BadItem`."""
        kinds, both = _parsed(data)
        first, second = (_CONTENTS[kind].text(half, limits) for kind, half in zip(kinds, both, strict=True))
        return first, second

    def text(self, data: bytes, limits: Limits) -> str | None:
        found = [text for text in self.texts(data, limits) if text is not None]
        return "\n\n".join(found) if found else None


CONTENT = Pairs()


@cache
def pairs_of(kinds: Kinds) -> Pairs:
    return Pairs(kinds)


def _said(kind: str, name: str) -> str:
    """A half in a sentence: `image`, `second text`."""
    noun = {"audio": "recording"}.get(kind, kind)
    return noun if name == kind else f"{name} {noun}"


def _of(part: str, look: Any, data: bytes, limits: Limits) -> Facts:
    try:
        found: Facts = look(data, limits)
    except BadItem as error:
        raise BadItem(reason=f"its {part}: {error.fields['reason']}") from error
    return found

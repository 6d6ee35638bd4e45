"""Texts: bytes to a string, whatever wrote them, and the pieces that a string is counted and cut by."""

import codecs
import re
import unicodedata
from collections.abc import Mapping
from typing import Any, ClassVar

from charset_normalizer import from_bytes

from service.content.contract import Facts, Limits, Preview
from service.content.mistaken import LFS_POINTER, archive, mistaken
from service.errors import BadItem

# The longer marks first: UTF-32's begins with UTF-16's.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_MAGIC = (b"%PDF-", b"{\\rtf")  # documents that begin like text
_CONTROLS = re.compile(
    rb"[\x01-\x08\x0e-\x1a\x1c-\x1f\x7f]"
)  # all but white space and the escape of terminals
_MOST_CONTROLS = 0.02  # share; random bytes have a tenth
_MOST_BROKEN = 0.1  # broken bytes of a UTF-8 text, as a share of its whole characters beyond ASCII
_LOOKED_AT = 65_536  # bytes that tell an encoding
_FEW = 24  # bytes beyond ASCII; a guess from fewer is worth less than the most common encoding
_INVISIBLE = "\ufeff\u200b\u200c\u200d\u200e\u200f\u2060\u00ad"

# Unicode's marks: vowels of Indic scripts and accents on their own. They are no word characters to `re`.
MARKS = "".join(
    chr(point) for point in range(0x300, 0x10000) if unicodedata.category(chr(point)).startswith("M")
)
# Scripts without spaces between words are cut by character: Chinese, Japanese, Thai, Lao, Burmese, Khmer.
_ALONE = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    "\U00020000-\U0003ffff"
)
# A run never gives back what it took (`*+`): to be able to, `re` would remember each of its characters, 115 bytes each.
_WORD = rf"[{_ALONE}]|(?:(?![{_ALONE}])[^\W_])(?:(?![{_ALONE}])[^\W_]|[{MARKS}])*+"
WORDS = re.compile(_WORD)
PIECES = re.compile(rf"{_WORD}|\S")  # words, and every other visible character on its own


class Text:
    """Plain text. A word is a run of letters and digits, or one character of a script that has no spaces."""

    name: ClassVar[str] = "text"
    suffixes: ClassVar[frozenset[str]] = frozenset({".txt", ".text", ".md"})
    shared_suffixes: ClassVar[frozenset[str]] = frozenset()
    columns: ClassVar[tuple[str, ...]] = (
        "text",
        "sentence",
        "content",
        "body",
        "document",
        "review",
        "comment",
        "message",
        "tweet",
        "question",
    )
    formats: ClassVar[tuple[str, ...]] = ("plain text", "Markdown")
    binary: ClassVar[bool] = False
    has_text: ClassVar[bool] = True
    default_task: ClassVar[str] = "masked_tokens"
    shown_as: ClassVar[str | None] = "text/plain; charset=utf-8"

    def inspect(self, data: bytes, limits: Limits) -> Facts:
        return facts_of(*decoded(data, limits.max_text_bytes))

    def preview(
        self, data: bytes, limits: Limits, size: int | None, settings: Mapping[str, Any] | None = None
    ) -> Preview:
        """All of the text, as text: a browser shows it and runs nothing of it."""
        return Preview(str(self.shown_as), self.text(data, limits).encode())

    def text(self, data: bytes, limits: Limits) -> str:
        return decoded(data, limits.max_text_bytes)[0]


def facts_of(text: str, encoding: str) -> Facts:
    words = sum(1 for _ in WORDS.finditer(text))
    return {"characters": len(text), "words": words, "encoding": encoding}


def decoded(data: bytes, max_bytes: int) -> tuple[str, str]:
    """The text and the name of its encoding. Raises `BadItem`."""
    if not data:
        raise BadItem(reason="it is empty")
    if len(data) > max_bytes:
        raise BadItem(
            reason=f"{len(data)} bytes are more than {max_bytes} allowed (SHORTLIST_MAX_TEXT_BYTES)"
        )
    text, encoding = _decoded(data)
    if "\0" in text:
        raise BadItem(reason="it is not text: it holds NUL characters")
    if not text.strip().strip(_INVISIBLE):
        raise BadItem(reason="it is empty: it holds white space only")
    return text, encoding


def _decoded(data: bytes) -> tuple[str, str]:
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return _marked(data, mark, encoding)
    if (found := archive(data)) is not None:
        raise BadItem(reason=f"it is not text but {found}")
    if b"\0" in data:
        raise BadItem(reason="it is not text: it holds NUL bytes")
    if data.startswith(_MAGIC):
        raise BadItem(reason="it is not text but a document: give its text alone")
    if data.startswith(LFS_POINTER):
        raise BadItem(reason=f"it is {mistaken(data)}")
    head = data[:_LOOKED_AT]
    if len(_CONTROLS.findall(head)) > max(_MOST_CONTROLS * len(head), 1):
        raise BadItem(reason="it is not text: it holds many control characters")
    try:
        return data.decode(), "utf-8"
    except UnicodeDecodeError:
        return _without_mark(data)


def _marked(data: bytes, mark: bytes, encoding: str) -> tuple[str, str]:
    try:
        return (data[len(mark) :] if encoding == "utf-8" else data).decode(encoding), encoding
    except UnicodeDecodeError as error:
        raise BadItem(
            reason=f"it is not text: its first bytes say {encoding.upper()}, but {error.reason}"
        ) from None


def _without_mark(data: bytes) -> tuple[str, str]:
    """Bytes that are not UTF-8 without flaws."""
    repaired = data.decode(errors="replace")
    broken = repaired.count("\ufffd")
    whole = sum(1 for character in repaired if character > "\x7f") - broken
    if broken <= _MOST_BROKEN * whole:  # cut in the middle of a character, or a few bytes got lost
        return repaired, "utf-8"
    encoding = _guessed(data)
    try:
        return data.decode(encoding), encoding
    except UnicodeDecodeError:
        return data.decode("cp1252", errors="replace"), "cp1252"


def _guessed(data: bytes) -> str:
    """Western where there is little to tell by: a few letters beyond ASCII among many."""
    foreign = len(data) - len(data.translate(None, bytes(range(128, 256))))
    letters = sum(1 for byte in data[:_LOOKED_AT] if chr(byte).isalpha() or byte > 127)
    if foreign < 3 or (foreign < _FEW and foreign * 2 <= letters):
        return "cp1252"
    head = data[:_LOOKED_AT]
    # A character of several bytes is not cut in two: an ASCII byte follows.
    while len(head) < len(data) and head and head[-1] > 127:
        head = head[:-1]
    best = from_bytes(head).best()
    return best.encoding if best is not None else "cp1252"


CONTENT = Text()

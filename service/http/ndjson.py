"""NDJSON bodies: one object a line, any number of them, read piece by piece; in UTF-8, or in UTF-16 with its mark."""

import codecs
from collections.abc import AsyncIterator

from fastapi import Request

from service.errors import Invalid

_LINE_BYTES = 2**20
_CHUNK_BYTES = 32 * 2**20


async def chunks(request: Request, size: int, line_bytes: int = _LINE_BYTES) -> AsyncIterator[list[bytes]]:
    """The lines of the body, `size` at a time, fewer where they are long. Raises `Invalid` for a line that does not
    end.
    """
    lines: list[bytes] = []
    rest, held = b"", 0
    async for piece in _as_utf8(request.stream()):
        *whole, rest = (rest + piece).split(b"\n")
        if len(rest) > line_bytes:
            raise Invalid(field="body", message=f"a line is longer than {line_bytes} bytes.")
        lines += whole
        held += len(piece)
        while len(lines) >= size or (lines and held > _CHUNK_BYTES):
            yield lines[:size]
            del lines[:size]
            held = 0
    if rest:
        lines.append(rest)
    if lines:
        yield lines


async def _as_utf8(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Without the mark that Windows' programs begin a text with. Raises `Invalid`."""
    decoder: codecs.IncrementalDecoder | None = None
    head, begun = b"", False
    async for piece in pieces:
        if not begun:
            head += piece
            if len(head) < len(codecs.BOM_UTF8):
                continue
            piece, begun = head.removeprefix(codecs.BOM_UTF8), True
            if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
                decoder = codecs.getincrementaldecoder("utf-16")()
        yield _decoded(decoder, piece) if decoder else piece
    if not begun:
        yield head
    if decoder:
        yield _decoded(decoder, b"", final=True)


def _decoded(decoder: codecs.IncrementalDecoder, piece: bytes, final: bool = False) -> bytes:
    try:
        return decoder.decode(piece, final).encode()
    except UnicodeDecodeError as error:
        raise Invalid(field="body", message=f"it begins like UTF-16, but {error.reason}.") from error

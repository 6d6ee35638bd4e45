"""NDJSON bodies: one object a line, any number of them, read piece by piece."""

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
    async for piece in request.stream():
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

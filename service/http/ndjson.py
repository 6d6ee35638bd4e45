"""NDJSON bodies: one object a line, any number of them, read piece by piece."""

from collections.abc import AsyncIterator

from fastapi import Request

from service.errors import Invalid

_LINE_BYTES = 2**20


async def chunks(request: Request, size: int) -> AsyncIterator[list[bytes]]:
    """The lines of the body, `size` at a time. Raises `Invalid` for a line that does not end."""
    lines: list[bytes] = []
    rest = b""
    async for piece in request.stream():
        *whole, rest = (rest + piece).split(b"\n")
        if len(rest) > _LINE_BYTES:
            raise Invalid(field="body", message=f"a line is longer than {_LINE_BYTES} bytes.")
        lines += whole
        while len(lines) >= size:
            yield lines[:size]
            del lines[:size]
    if rest:
        lines.append(rest)
    if lines:
        yield lines

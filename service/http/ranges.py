"""A part of a body, as players ask for it: RFC 9110, section 14. Of several ranges, and of none that can be satisfied,
the whole is sent, which the RFC allows.
"""

import re

from fastapi import Request, Response

_RANGE = re.compile(r"bytes=(\d{0,19})-(\d{0,19})")


def ranged(request: Request, data: bytes, media_type: str, headers: dict[str, str]) -> Response:
    """The whole, or the range that was asked for, if that is of the version in `headers["ETag"]`."""
    headers = headers | {"Accept-Ranges": "bytes"}
    part = _wanted(request, len(data), headers["ETag"])
    if part is None:
        return Response(data, media_type=media_type, headers=headers)
    headers["Content-Range"] = f"bytes {part.start}-{part.stop - 1}/{len(data)}"
    return Response(data[part.start : part.stop], status_code=206, media_type=media_type, headers=headers)


def _wanted(request: Request, size: int, etag: str) -> range | None:
    asked = _RANGE.fullmatch(request.headers.get("range", "").strip())
    if asked is None or request.headers.get("if-range", etag) != etag:
        return None
    first, last = asked.groups()
    if first:
        found = range(int(first), min(int(last) + 1 if last else size, size))
    elif last:  # the last bytes
        found = range(max(size - int(last), 0), size)
    else:
        return None
    return found if len(found) else None

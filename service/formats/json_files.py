"""JSON files as a whole, and numbers and texts out of what others wrote."""

import json
from pathlib import Path
from typing import Any

from service.formats import unreadable


def load(path: Path) -> Any:
    """Raises `SourceUnreadable`."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise unreadable(path, error.strerror) from error
    return parsed(path, data)


def parsed(path: Path, data: bytes) -> Any:
    """The value in the bytes, which are of this file or in it. Raises `SourceUnreadable`."""
    try:
        return json.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise unreadable(path, f"this is no JSON: {error}") from error


def peek(path: Path) -> Any:
    """The value in the file; None where it cannot be read as JSON."""
    try:
        return json.loads(path.read_bytes().decode("utf-8-sig"))
    except (OSError, ValueError, RecursionError):
        return None


def dumped(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, default=str).encode()

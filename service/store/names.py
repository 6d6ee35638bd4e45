"""Names that read the same are the same: macOS writes `é` as two characters, nearly all else as one."""

import unicodedata
from collections.abc import Iterable


def composed(name: str) -> str:
    """The name in Unicode's normal form NFC, by which names are compared."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def spellings(names: Iterable[str]) -> set[str]:
    """The names, each also composed and taken apart: what a database may hold of them."""
    found = set(names)
    beyond_ascii = [name for name in found if not name.isascii()]
    return found | {unicodedata.normalize(form, name) for name in beyond_ascii for form in ("NFC", "NFD")}

"""Public ids: a letter for the kind and the row number in Crockford base 32, ``i_2k7``. Opaque to clients."""

from service.errors import NotFound

_DIGITS = "0123456789abcdefghjkmnpqrstvwxyz"
_VALUES = {digit: value for value, digit in enumerate(_DIGITS)}

KINDS = {
    "p": "project",
    "o": "source",
    "i": "item",
    "m": "pretext model",
    "s": "score run",
    "r": "ranking",
    "b": "batch",
    "j": "job",
    "k": "key",
    "h": "head",
    "w": "webhook",
    "v": "class change",
}


def public_id(kind: str, number: int) -> str:
    """``public_id("i", 17) == "i_h"``."""
    digits = ""
    while True:
        number, digit = divmod(number, 32)
        digits = _DIGITS[digit] + digits
        if number == 0:
            return f"{kind}_{digits}"


def row_number(kind: str, text: str) -> int:
    """The inverse of `public_id`; anything that is not such an id raises `NotFound`, as an unknown one would."""
    prefix, _, digits = text.partition("_")
    if prefix != kind or not 0 < len(digits) <= 12 or any(digit not in _VALUES for digit in digits):
        raise NotFound(what=KINDS[kind], id=text)
    number = 0
    for digit in digits:
        number = number * 32 + _VALUES[digit]
    return number

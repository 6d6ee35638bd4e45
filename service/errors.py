"""What can go wrong, one class each: the docstring is the sentence people read, ``code`` is stable.

The sentence is a format string over the keyword arguments: ``raise UnknownClass(index=3, name="cot")``.
The service renders every error as RFC 9457 ``application/problem+json`` (one handler, in `service.main`).
"""

from typing import ClassVar


class ShortlistError(Exception):
    """Something went wrong."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal"

    def __init__(self, **fields: object) -> None:
        self.fields = fields
        sentence = " ".join((type(self).__doc__ or "").split())
        super().__init__(sentence.format(**fields))


class NotFound(ShortlistError):
    """There is no {what} {id!r} here."""

    status, code = 404, "not_found"

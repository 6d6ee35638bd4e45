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


class BadImage(ShortlistError):
    """This image cannot be used: {reason}."""

    status, code = 422, "bad_image"

    @property
    def reason(self) -> str:
        return str(self.fields["reason"])


class SourceNotAllowed(ShortlistError):
    """{uri!r} does not lie below an allowed folder. Give an absolute path or URL below one of
    SHORTLIST_SOURCE_ROOTS ({roots}), or add its folder there and start again."""

    status, code = 422, "source_not_allowed"


class SourceUnreadable(ShortlistError):
    """{uri!r} cannot be read: {reason}."""

    status, code = 422, "source_unreadable"


class ParquetWithoutImages(ShortlistError):
    """{uri!r} has no column of images: name it `image`, and store the file's bytes, or a struct with `bytes`."""

    status, code = 422, "parquet_without_images"


class NotMigrated(ShortlistError):
    """The database is at revision {current}, this program needs {newest}. Run `shortlist migrate` first."""

    status, code = 503, "not_migrated"

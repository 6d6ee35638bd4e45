"""Errors of the client: one hierarchy, each with the sentence of the service that says what to do."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, ClassVar, NamedTuple

import httpx2 as httpx


class FieldError(NamedTuple):
    """A field of the request that is wrong, as `labels[3].class`, and why."""

    field: str
    message: str


class ShortlistError(Exception):
    """Something did not work; the message is for people."""


class NotReached(ShortlistError):
    """No answer came, however often the request was sent. Whether it was done is not known; with the same
    idempotency key it is never done twice."""


class JobFailed(ShortlistError):
    """A job that was waited for failed or was cancelled."""


class TimedOut(ShortlistError):
    """The end that was waited for did not come in time. It may still."""


class ApiError(ShortlistError):
    """The service refused a request (RFC 9457, `application/problem+json`).

    status: of HTTP. code: stable, for programs. errors: the fields that are wrong.
    """

    statuses: ClassVar[frozenset[int]] = frozenset()

    def __init__(self, sentence: str, *, status: int, code: str, errors: tuple[FieldError, ...] = ()) -> None:
        super().__init__(sentence)
        self.status, self.code, self.errors = status, code, errors

    def __reduce__(self) -> tuple[object, ...]:
        """Pickled by all it holds: programs label in processes of their own."""
        return _made, (type(self), str(self), self.status, self.code, self.errors)


class Unauthorized(ApiError):
    """There is no key, or it is not good any more."""

    statuses = frozenset({401})


class Forbidden(ApiError):
    """The key may not do this."""

    statuses = frozenset({403})


class NotFound(ApiError):
    """There is no such thing, or the key may not see it."""

    statuses = frozenset({404})


class Conflict(ApiError):
    """The state of things does not allow it: an archived project, a reservation that has run out."""

    statuses = frozenset({409, 412})


class Invalid(ApiError):
    """The request is wrong; `errors` names the fields."""

    statuses = frozenset({400, 413, 415, 422})


class TooManyRequests(ApiError):
    """More requests than the key may send, also after waiting."""

    statuses = frozenset({429})


class ServerError(ApiError):
    """The service, or what stands before it, cannot answer now."""

    statuses = frozenset(range(500, 600))


_KINDS = (Unauthorized, Forbidden, NotFound, Conflict, Invalid, TooManyRequests, ServerError)


def _made(
    kind: type[ApiError], sentence: str, status: int, code: str, errors: tuple[FieldError, ...]
) -> ApiError:
    return kind(sentence, status=status, code=code, errors=errors)


def is_problem(response: httpx.Response) -> bool:
    """True where the service itself says it, and not a proxy before it."""
    return response.headers.get("content-type", "").startswith("application/problem+json")


def error_of(response: httpx.Response) -> ApiError:
    """The error of an answer that has been read."""
    kind = next((each for each in _KINDS if response.status_code in each.statuses), ApiError)
    problem: Mapping[str, Any] = {}
    if is_problem(response):
        try:
            problem = response.json()
        except ValueError:  # it broke off
            problem = {}
    told = problem.get("detail") or _without_problem(response)
    errors = tuple(FieldError(each["field"], each["message"]) for each in problem.get("errors") or ())
    return kind(told, status=response.status_code, code=problem.get("code", "unknown"), errors=errors)


def _without_problem(response: httpx.Response) -> str:
    try:
        phrase = HTTPStatus(response.status_code).phrase
    except ValueError:
        phrase = "no known status"
    asked = f"{response.request.method} {response.request.url.path}"
    return f"{asked} was answered with {response.status_code} {phrase}: {response.text[:200].strip() or 'no text'}"

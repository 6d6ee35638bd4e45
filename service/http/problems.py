"""The one error handler: whatever goes wrong is answered as RFC 9457 `application/problem+json`.

`code` is stable, `detail` says what to do, `errors` names the fields of a malformed request.
"""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import sqlalchemy as sa
import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import compile_path

from service.errors import (
    DatabaseBusy,
    GoneMeanwhile,
    IdempotencyKeyInUse,
    NotJson,
    ShortlistError,
    TooManyRequests,
)

_log = structlog.get_logger()

# What the framework refuses by itself: a code, and a sentence instead of "Not Found".
_FRAMEWORK = {
    400: ("malformed", "The body cannot be read. Send it as JSON."),
    404: ("not_found", "There is nothing at this address. /docs lists all there is."),
    405: ("method_not_allowed", "This address does not take this method. /docs lists all there is."),
}


class FieldError(BaseModel):
    field: str
    message: str


class Problem(BaseModel):
    """RFC 9457."""

    type: str = "about:blank"
    title: str
    status: int
    code: str
    detail: str
    errors: list[FieldError] | None = None


class ProblemResponse(JSONResponse):
    media_type = "application/problem+json"


_KINDS = (
    ShortlistError,
    RequestValidationError,
    HTTPException,
    ClientDisconnect,
    sa.exc.OperationalError,
    sa.exc.TimeoutError,
    sa.exc.IntegrityError,
    Exception,
)


def install(app: FastAPI) -> None:
    for kind in _KINDS:
        app.add_exception_handler(kind, _answer)


def _answer(request: Request, error: Exception) -> ProblemResponse:
    match error:
        case ShortlistError():
            return of(error)
        case RequestValidationError():
            return _malformed(request, error)
        case HTTPException(__cause__=ShortlistError() as cause):
            return of(cause)
        case HTTPException():
            code, sentence = _FRAMEWORK.get(error.status_code, ("refused", str(error.detail)))
            headers = dict(error.headers or {})
            if error.status_code == 405:  # the framework names the methods of one route only
                headers["Allow"] = ", ".join(allowed_methods(request.app, request.url.path))
            return _problem(error.status_code, code, sentence, headers=headers)
        case ClientDisconnect():
            return _problem(400, "malformed", "The body broke off.")  # nobody is left to read it
        case sa.exc.OperationalError() | sa.exc.TimeoutError():
            _log.error("database", error=str(getattr(error, "orig", error)))
            return of(DatabaseBusy())
        case sa.exc.IntegrityError():  # on PostgreSQL, a project that is deleted while items come in
            _log.warning("refused by the database", path=request.url.path, error=str(error.orig))
            return of(GoneMeanwhile())
        case _:
            _log.error("unexpected", path=request.url.path, exc_info=error)
            return _problem(500, "internal", "Something went wrong here; the service's log says more.")


def allowed_methods(app: FastAPI, path: str) -> list[str]:
    """Methods of the path template that fits the address; where several fit, of the one with the fewest parameters."""
    fitting = [template for template in app.openapi()["paths"] if compile_path(template)[0].fullmatch(path)]
    if not fitting:
        return ["GET"]  # files and pages
    return [
        method.upper() for method in app.openapi()["paths"][min(fitting, key=lambda each: each.count("{"))]
    ]


def of(error: ShortlistError) -> ProblemResponse:
    headers = {}
    if error.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if isinstance(error, DatabaseBusy | IdempotencyKeyInUse):
        headers["Retry-After"] = "1"
    if isinstance(error, TooManyRequests):
        headers["Retry-After"] = str(error.fields["retry_after_s"])
    errors = None
    if "field" in error.fields:
        errors = [FieldError(field=str(error.fields["field"]), message=str(error))]
    return _problem(error.status, error.code, str(error), errors=errors, headers=headers)


def _malformed(request: Request, error: RequestValidationError) -> ProblemResponse:
    found = error.errors()
    sent = request.headers.get("content-type", "")
    if isinstance(error.body, bytes) and "json" not in sent:  # curl -d says it sends a form
        return of(NotJson(expected="application/json"))
    errors = [explained(each) for each in found[:100]]
    detail = "; ".join(f"`{each.field}`: {each.message}" for each in errors[:5]) + "."
    return _problem(422, "malformed", detail, errors=errors)


def explained(error: Mapping[str, Any], whole: str = "body") -> FieldError:
    """One of Pydantic's errors. whole: the field's name where all of it is wrong."""
    if error["type"] == "json_invalid":  # its location is a character, not a field
        reason = error.get("ctx", {}).get("error", error["msg"])
        return FieldError(field=whole, message=f"this is no JSON: {reason}")
    message = str(error["msg"]).removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        message = "there is no such field here"
    return FieldError(field=_field(error["loc"]) or whole, message=message)


def _field(location: tuple[str | int, ...]) -> str:
    """("body", "labels", 3, "class") -> "labels[3].class" """
    field = ""
    for part in location[1:] or location:
        field += f"[{part}]" if isinstance(part, int) else f".{part}" if field else part
    return field


def _problem(
    status: int,
    code: str,
    detail: str,
    *,
    errors: list[FieldError] | None = None,
    headers: Mapping[str, str] | None = None,
) -> ProblemResponse:
    problem = Problem(title=HTTPStatus(status).phrase, status=status, code=code, detail=detail, errors=errors)
    content: dict[str, Any] = problem.model_dump(exclude_none=True)
    return ProblemResponse(content, status, headers=dict(headers or {}))

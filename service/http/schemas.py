"""Base classes and types of all request and response bodies."""

import base64
import json
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Generic, TypeVar

from fastapi import Query
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, model_validator

from service.errors import Invalid
from service.store.names import composed

T = TypeVar("T")
R = TypeVar("R")


def _storable_text(text: str) -> str:
    if "\0" in text:
        raise ValueError("must not contain the NUL character")
    return text


Text = Annotated[str, AfterValidator(_storable_text)]
Name = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=200),
    AfterValidator(_storable_text),
    AfterValidator(composed),
]
# What is told of a field `classes`, which only projects with several classes an item have.
CLASSES = "in the place of `class`, in a project whose `label_kind` is `multi`"
Limit = Annotated[int, Query(ge=1, le=1000, description="at most so many")]
Cursor = Annotated[Text | None, Query(max_length=10_000, description="`next_cursor` of the page before")]


def _check_storable(value: Any, where: str) -> None:
    """Refuse JSON values that a database or a JSON answer cannot hold: NUL, half a surrogate pair, NaN, Infinity."""
    match value:
        case str():
            if "\0" in value or (not value.isascii() and not _is_unicode(value)):
                raise ValueError(f"{where}: NUL characters and broken Unicode cannot be stored")
        case float():
            if value - value != 0:
                raise ValueError(f"{where}: NaN and Infinity are not numbers that JSON knows")
        case dict():
            for name, inner in value.items():
                _check_storable(name, where)
                _check_storable(inner, f"{where}.{name}")
        case list():
            for index, inner in enumerate(value):
                _check_storable(inner, f"{where}[{index}]")


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


class Body(BaseModel):
    """A request body: unknown fields and other types are refused, so a mistake is never silently taken for something
    else."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    @model_validator(mode="before")
    @classmethod
    def _storable(cls, value: Any) -> Any:
        try:
            _check_storable(value, "body")
        except RecursionError:
            raise ValueError("body: nested too deeply") from None
        return value


class Answer(BaseModel):
    """A response body."""

    model_config = ConfigDict(populate_by_name=True)


def is_none(value: object) -> bool:
    """For fields that most answers do not have: `Field(exclude_if=is_none)`."""
    return value is None


# Several classes of an item; the answers of other projects do not have the field.
ClassList = Annotated[list[str] | None, Field(default=None, exclude_if=is_none, description=CLASSES)]


class Page(Answer, Generic[T]):
    """Ask again with `cursor=<next_cursor>` until it is null."""

    items: list[T]
    next_cursor: str | None

    @classmethod
    def of(
        cls,
        rows: Sequence[R],
        limit: int,
        answer: Callable[[R], T],
        position: Callable[[R], tuple[Any, ...]],
    ) -> "Page[T]":
        """A page of `answer(row)`; where it is full, the next one begins after `position(last row)`."""
        following = encode_cursor(*position(rows[-1])) if len(rows) == limit else None
        return Page(items=[answer(row) for row in rows], next_cursor=following)


def with_example(example: Any) -> ConfigDict:
    """The model's configuration with an example for the API's description."""
    return ConfigDict(json_schema_extra={"example": example})


def encode_cursor(*position: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(position).encode()).decode().rstrip("=")


def decode_cursor(cursor: str | None, *types: type) -> tuple[Any, ...] | None:
    """The position `encode_cursor` was given; `Invalid` for anything else."""
    if cursor is None:
        return None
    try:
        position = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        if not isinstance(position, list) or [type(part) for part in position] != list(types):
            raise ValueError
        _check_storable(position, "cursor")
        if any(isinstance(part, int) and abs(part) >= 2**63 for part in position):
            raise ValueError
    except (ValueError, RecursionError):
        raise Invalid(
            field="cursor", message="send the `next_cursor` of the page before, unchanged."
        ) from None
    return tuple(position)

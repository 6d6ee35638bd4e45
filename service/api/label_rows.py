"""Rows that are labels, as `GET …/labels` writes them and as people and tools do; `service.formats` reads them."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError

from service.api.labels import LabelIn
from service.errors import ShortlistError
from service.formats import Row
from service.http.problems import FieldError, explained
from service.http.schemas import Name, Text
from service.labeling.labels import Arm, NewLabel, Outcome
from service.store import class_sets
from service.store.tables import utc_now

# Columns of an export that storing the labels makes anew: another installation has other numbers.
_MADE_ANEW = ("current", "used", "batch", "ranking", "round")
_CLOCKS_DIFFER = timedelta(days=1)


def _time(value: object) -> object:
    """The time that an export writes as text. One without a time zone is UTC."""
    try:
        found = datetime.fromisoformat(value) if isinstance(value, str) else value
    except ValueError:
        raise ValueError("this is no time as 2026-01-31T12:00:00Z") from None
    if isinstance(found, datetime) and found.tzinfo is None:
        return found.replace(tzinfo=UTC)
    return found


def _past(value: datetime) -> datetime:
    if value > utc_now() + _CLOCKS_DIFFER:
        raise ValueError("it lies in the future")
    return value.astimezone(UTC)


class LabelRow(LabelIn):
    """A label of `POST /labels`, or an exported one: it keeps its time, its revision and the arm that it came by."""

    created_at: Annotated[datetime, BeforeValidator(_time), AfterValidator(_past)] | None = None
    arm: Arm | None = None
    outcome: Outcome | None = None
    said: Name | list[Name] | None = Field(
        None, description="the class as the annotator named it, where it has another name since"
    )
    content_hash: Text | None = Field(
        None, max_length=100, description="of the bytes that it was given for; it is no label of others"
    )
    suggested_class: None = Field(None, description="a suggestion is no label")
    suggested_classes: None = None
    duplicate_of: None = None


_COLUMNS = (
    "key",
    "item",
    "class",
    "classes",
    "skip",
    "annotator",
    "annotation",
    "duration_ms",
    "revision",
    "created_at",
)


def label_of(row: Row, annotator_of: Callable[[str | None], str]) -> NewLabel:
    """annotator_of: the one to act for, by the one that is named. Raises `ValidationError` and what that raises."""
    if row.get("arm") is not None:  # exported
        row = {name: value for name, value in row.items() if name not in _MADE_ANEW}
    if row.get("key") is not None:  # good on every installation, which an item's number is not
        row = {name: value for name, value in row.items() if name != "item"}
    label = LabelRow.model_validate(row)
    values = label.model_dump(
        exclude={"annotator", "outcome", "suggested_class", "suggested_classes", "duplicate_of"}
    )
    if isinstance(label.said, list):
        values["said"] = class_sets.joined(label.said)
    return NewLabel(annotator=annotator_of(label.annotator), late=label.outcome == "late", **values)


def why(error: ValidationError | ShortlistError) -> FieldError:
    """The field that is wrong, and the reason."""
    if isinstance(error, ValidationError):
        found = error.errors(include_context=False)[0]
        if found["loc"][:1] in (("suggested_class",), ("suggested_classes",)):
            message = "this is a suggestion and no label: nobody has looked at the item"
            return FieldError(field=str(found["loc"][0]), message=message)
        if found["type"] == "extra_forbidden":
            columns = f"{', '.join(_COLUMNS)}; of these `key` or `item`, and `class` or `skip`, are needed"
            return FieldError(
                field=str(found["loc"][0]), message=f"labels have no such column, but {columns}. Rename it"
            )
        return explained(found, whole="line")
    return FieldError(field=str(error.fields.get("field", "line")), message=str(error))

"""Rows that are labels, as `GET …/labels` writes them and as people do: out of NDJSON, JSON, CSV and Parquet."""

import csv
import json
import tempfile
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import pyarrow as pa
from pydantic import AfterValidator, BeforeValidator, Field, ValidationError

from service.api import exports
from service.api.labels import LabelIn
from service.content.lines import Lines
from service.content.rows import open_parquet
from service.errors import Invalid, ShortlistError, SourceUnreadable
from service.http.problems import FieldError, explained
from service.labeling.labels import Arm, NewLabel, Outcome
from service.store.tables import utc_now

Row = dict[str, Any]
NumberedRow = tuple[int, Row | FieldError]  # the line, from 1, and the row, or why it is none

ENDINGS = {
    ".jsonl": exports.NDJSON, ".ndjson": exports.NDJSON, ".json": "application/json", ".csv": exports.CSV,
    ".tsv": exports.CSV, ".parquet": exports.PARQUET, ".pq": exports.PARQUET,
}  # fmt: skip
# Columns of an export that storing the labels makes anew: another installation has other numbers.
_MADE_ANEW = ("current", "used", "batch", "ranking", "round")
_NUMBERS = ("revision", "duration_ms")
_PARQUET_ROWS = 5_000
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
    suggested_class: None = Field(None, description="a suggestion is no label")
    duplicate_of: None = None


def label_of(row: Row, annotator_of: Callable[[str | None], str]) -> NewLabel:
    """annotator_of: the one to act for, by the one that is named. Raises `ValidationError` and what that raises."""
    if row.get("arm") is not None:  # exported
        row = {name: value for name, value in row.items() if name not in _MADE_ANEW}
    if row.get("key") is not None:  # good on every installation, which an item's number is not
        row = {name: value for name, value in row.items() if name != "item"}
    label = LabelRow.model_validate(row)
    values = label.model_dump(exclude={"annotator", "outcome", "suggested_class", "duplicate_of"})
    return NewLabel(annotator=annotator_of(label.annotator), late=label.outcome == "late", **values)


def why(error: ValidationError | ShortlistError) -> FieldError:
    """The field that is wrong, and the reason."""
    if isinstance(error, ValidationError):
        found = error.errors(include_context=False)[0]
        if found["loc"][:1] == ("suggested_class",):
            message = "this is a suggestion and no label: nobody has looked at the item"
            return FieldError(field="suggested_class", message=message)
        return explained(found, whole="line")
    return FieldError(field=str(error.fields.get("field", "line")), message=str(error))


def of_line(number: int, line: bytes) -> NumberedRow:
    """One line of NDJSON."""
    try:
        return of_value(number, json.loads(line))
    except (ValueError, RecursionError) as error:
        return number, FieldError(field="line", message=f"this is no JSON: {error}")


def of_value(number: int, value: object) -> NumberedRow:
    if isinstance(value, dict):
        return number, value
    return number, FieldError(field="line", message="this is no JSON object")


def in_json(body: bytes) -> Generator[NumberedRow]:
    """A JSON array of labels, or an object with `labels`, as `POST /labels` takes it. Raises `Invalid`."""
    try:
        found = json.loads(body.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise Invalid(field="body", message=f"this is no JSON: {error}.") from error
    rows = found.get("labels") if isinstance(found, dict) else found
    if not isinstance(rows, list):
        raise Invalid(field="body", message="this is neither an array of labels nor an object with `labels`.")
    for number, row in enumerate(rows, 1):
        yield of_value(number, row)


def in_table(body: bytes, media_type: str) -> Generator[NumberedRow]:
    """A body in CSV or Parquet. Raises `Invalid`."""
    suffix = next(ending for ending, kind in ENDINGS.items() if kind == media_type)
    with tempfile.NamedTemporaryFile(suffix=suffix) as file:
        file.write(body)
        file.flush()
        try:
            yield from in_file(Path(file.name))
        except SourceUnreadable as error:
            raise Invalid(field="body", message=f"{error.fields['reason']}.") from error


def in_file(path: Path) -> Generator[NumberedRow]:
    """By the file's ending. Raises `SourceUnreadable`."""
    media_type = ENDINGS[path.suffix.lower()]
    try:
        if media_type == "application/json":
            yield from in_json(path.read_bytes())
        else:
            yield from _in_parquet(path) if media_type == exports.PARQUET else _in_lines(path)
    except (UnicodeDecodeError, csv.Error, pa.ArrowException) as error:
        raise SourceUnreadable(uri=str(path), reason=str(error)) from error


def _in_lines(path: Path) -> Iterator[NumberedRow]:
    lines = Lines(str(path.absolute()))
    try:
        for _, line, row in lines.rows():
            if row and lines.header is not None:
                yield line + lines.header_lines, _of_cells(row)
            elif row is not None:
                yield of_value(line, dict(row) or None)
    finally:
        lines.close()


def _in_parquet(path: Path) -> Iterator[NumberedRow]:
    number = 0
    for batch in open_parquet(str(path.absolute())).iter_batches(_PARQUET_ROWS):
        for row in batch.to_pylist():
            number += 1
            yield number, _of_cells(row)


def _of_cells(row: Any) -> Row:
    """A table has every column in every row: an empty cell is one that is not there. An exported revision without a
    class and without a skip withdraws a label.
    """
    found = {name.strip(): cell for name, cell in row.items() if cell not in (None, "") and cell == cell}
    for name in _NUMBERS:
        if name in found:
            found[name] = _whole(found[name])
    if isinstance(annotation := found.get("annotation"), str):
        with suppress(ValueError, RecursionError):  # what is no JSON is refused as what it is
            found["annotation"] = json.loads(annotation)
    if "revision" in found and not found.keys() & {"class", "skip", "suggested_class"}:
        found["class"] = None
    return found


def _whole(cell: object) -> object:
    """The cell as a whole number where it is one: pandas writes 1.0 where another row has none."""
    try:
        number = float(cell)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return cell
    return int(number) if number.is_integer() else cell

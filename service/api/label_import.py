"""Labels that are known already, by item or by key, as people and tools have them and as `GET …/labels` writes them."""

import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Annotated

import sqlalchemy as sa
from fastapi import APIRouter, Query, Request
from fastapi.concurrency import run_in_threadpool
from pydantic import Field, ValidationError
from sqlalchemy.orm import Session

from service.api import exports, label_rows
from service.api.labels import FormatName, acting_annotator
from service.errors import AnnotatorMissing, Invalid, LabelsUnknown, ShortlistError, SourceUnreadable
from service.formats import Format, NoRow, NumberedRow, format_named, format_of, formats, of_several
from service.formats.tables import of_line
from service.http.dependencies import Annotator, PartsDep
from service.http.middleware import NDJSON
from service.http.ndjson import chunks
from service.http.problems import FieldError
from service.http.schemas import Answer, Name, with_example
from service.labeling import labels
from service.labeling.labels import NewLabel, Outcome
from service.projects import projects
from service.store.ids import public_id
from service.store.names import composed
from service.store.session import read_session, write_session
from service.store.tables import Project, utc_now

router = APIRouter(prefix="/projects/{project_id}/labels", tags=["labeling"])

_CHUNK_LABELS = 500  # in one transaction; annotators wait for it
_REFUSED_TOLD = 1_000
_LINE_BYTES = 8 * 2**20  # an annotation that is too large is refused as such, not as a line that never ends
_KINDS = (NDJSON, "application/json", exports.CSV, exports.PARQUET)
_EXAMPLES = {
    NDJSON: '{"key": "shirts/0012.png", "class": "coat", "annotator": "import 2024"}\n',
    "application/json": [{"key": "shirts/0012.png", "class": "coat", "annotator": "import 2024"}],
    exports.CSV: "key,class,annotator\nshirts/0012.png,coat,import 2024\n",
}
_BODY = {
    "required": True,
    "content": {
        kind: {"schema": {}, "example": _EXAMPLES[kind]} if kind in _EXAMPLES else {"schema": {}}
        for kind in _KINDS
    },
}


class RefusedLabel(Answer):
    line: int = Field(description="counts from 1; of an array or a Parquet file the place")
    code: str = Field(description="`malformed`, or the code that POST /labels would answer")
    field: str = Field(description="that is wrong; `line` where all of it is")
    message: str


class ImportAnswer(Answer):
    """`outcomes` counts labels by outcome. `refused` tells the first 1,000."""

    model_config = with_example(
        {
            "outcomes": {"accepted": 1200, "duplicate": 3},
            "refused": [
                {
                    "line": 4,
                    "code": "unknown_key",
                    "field": "key",
                    "message": "`key`: there is no item 'a' here.",
                }
            ],
            "refused_count": 1,
            "labels_used": 1460,
        }
    )

    outcomes: dict[str, int]
    refused: list[RefusedLabel]
    refused_count: int
    labels_used: int


@dataclass
class _Import:
    """The counts of a call; each chunk is a transaction, so a stream that breaks off can simply be sent again.

    annotator_of: the one to act for, by the one that a label names.
    """

    annotator_of: Callable[[str | None], str]
    labels_used: int
    multi: bool = False  # an item has several classes
    outcomes: Counter[str] = field(default_factory=Counter)
    refused: list[RefusedLabel] = field(default_factory=list)
    refused_count: int = 0

    def read(self, rows: Iterable[NumberedRow]) -> list[tuple[int, NewLabel]]:
        """The labels that may be stored, by line; the other lines are noted."""
        numbered: list[tuple[int, NewLabel]] = []
        for line, read in rows:
            row = of_several(read) if self.multi else read
            if isinstance(row, NoRow):
                self._refuse(line, "malformed", FieldError(field=row.field, message=row.message))
                continue
            try:
                numbered.append((line, label_rows.label_of(row, self.annotator_of)))
            except ValidationError as error:
                self._refuse(line, "malformed", label_rows.why(error))
            except ShortlistError as error:
                self._refuse(line, error.code, label_rows.why(error))
        return numbered

    def store(self, session: Session, project: str, numbered: list[tuple[int, NewLabel]]) -> list[Outcome]:
        """The outcomes of those that are stored. project: its public id; it may be gone by now."""
        found = projects.find(session, project)
        stored, refused = labels.store_good(session, found, [label for _, label in numbered], utc_now())
        self.labels_used = stored.labels_used
        self.outcomes.update(stored.outcomes)
        for index, error in refused:
            self._refuse(numbered[index][0], error.code, label_rows.why(error))
        return stored.outcomes

    def _refuse(self, line: int, code: str, why: FieldError) -> None:
        self.refused_count += 1
        if len(self.refused) < _REFUSED_TOLD:
            self.refused.append(RefusedLabel(line=line, code=code, field=why.field, message=why.message))

    def answer(self) -> ImportAnswer:
        return ImportAnswer(
            outcomes=dict(self.outcomes),
            refused=self.refused,
            refused_count=self.refused_count,
            labels_used=self.labels_used,
        )


@router.post("/import", openapi_extra={"requestBody": _BODY})
async def import_labels(
    project_id: str,
    request: Request,
    caller: Annotator,
    parts: PartsDep,
    format: FormatName | None = None,
    annotator: Annotated[Name | None, Query(description="of labels that name none")] = None,
) -> ImportAnswer:
    """Labels known already: each as in POST /labels, with `key` instead of `item` where that is what you have;
    `annotator` says where they come from. Exported ones keep their times, revisions and arms.

    Any number as NDJSON; as a JSON array, CSV or Parquet, or as a file of a tool that `format` names, as many as a
    request may hold (SHORTLIST_MAX_BODY_BYTES). A line that is wrong is refused and stops nothing. Sending the same
    again is safe.
    """

    def find() -> Project:
        with read_session(parts.engine) as session:
            return projects.find(session, project_id, caller.project_id)

    project = await run_in_threadpool(find)
    reading = _format_sent(request, format)

    def annotator_of(named: str | None) -> str:
        return acting_annotator(named or annotator, "annotator", caller)

    importing = _Import(annotator_of, project.labels_used, project.label_kind == "multi")
    public = public_id("p", project.id)
    async for rows in _chunked(request, reading):
        numbered = await run_in_threadpool(importing.read, rows)
        async with parts.turns.of(public):
            stored = await parts.write(partial(importing.store, project=public, numbered=numbered))
        parts.figures.labels_stored(stored)
    return importing.answer()


def _format_sent(request: Request, name: str | None) -> Format:
    """By its name, else by `Content-Type`. Raises `UnknownFormat`, `LabelsUnknown`."""
    if name is not None:
        return format_named(name, "format")
    sent = request.headers.get("content-type", "").split(";")[0].strip().lower()
    kind = exports.SYNONYMS.get(sent, sent) if sent != "application/json" else sent
    for each in formats().values():
        if each.table and each.media_type == kind:
            return each
    raise LabelsUnknown(expected=", ".join(_KINDS))


async def _chunked(request: Request, reading: Format) -> AsyncIterator[list[NumberedRow]]:
    """The rows of the body. Raises `Invalid` where all of it is wrong."""
    if reading.media_type == NDJSON:
        number = 0
        async for lines in chunks(request, _CHUNK_LABELS, _LINE_BYTES):
            numbered = list(enumerate(lines, number + 1))
            yield [of_line(line, text) for line, text in numbered if text.strip()]
            number += len(lines)
        return
    body = await request.body()
    with tempfile.NamedTemporaryFile(suffix=_ending(reading, body)) as file:
        file.write(body)
        file.flush()
        rows = reading.read(Path(file.name))
        try:
            while chunk := await run_in_threadpool(lambda: list(islice(rows, _CHUNK_LABELS))):
                yield chunk
        except SourceUnreadable as error:
            raise Invalid(field="body", message=f"{error.fields['reason']}.") from error
        finally:
            rows.close()


def _ending(reading: Format, body: bytes) -> str:
    """The ending of the body's file. Where a format has several, the first bytes tell an archive."""
    if body.startswith(b"PK\3\4") and ".zip" in reading.endings:
        return ".zip"
    return next((ending for ending in reading.endings if ending != ".zip"), reading.endings[0])


def import_file(
    engine: sa.Engine, project: Project, path: Path, annotator: str | None, format: str | None = None
) -> ImportAnswer:
    """As `POST …/labels/import`, of a file of any size. annotator: of labels that name none. format: its name; else
    that which the file looks like.

    Raises `LabelFileUnknown`, `UnknownFormat`, `SourceUnreadable`.
    """
    reading = format_named(format, "--format") if format is not None else format_of(path)

    def annotator_of(named: str | None) -> str:
        if named is None and annotator is None:
            raise AnnotatorMissing(field="annotator")
        return named or composed(annotator or "")

    importing = _Import(annotator_of, project.labels_used, project.label_kind == "multi")
    rows = reading.read(path)
    while chunk := list(islice(rows, _CHUNK_LABELS)):
        numbered = importing.read(chunk)
        with write_session(engine) as session:
            importing.store(session, public_id("p", project.id), numbered)
    return importing.answer()

from collections.abc import Iterator
from functools import partial
from itertools import chain
from typing import Annotated, Any, Self

import pyarrow as pa
import sqlalchemy as sa
from fastapi import APIRouter, Query, Request
from fastapi.responses import StreamingResponse
from pydantic import AfterValidator, Field, model_validator
from sqlalchemy.orm import Session

from service.access.keys import Principal
from service.api import exports
from service.content.reader import ItemBytes
from service.errors import AnnotatorMissing, SingleOnly
from service.formats import Format, format_named, formats
from service.formats import Labels as LabelsOut
from service.http.dependencies import Annotator, PartsDep, Reader, ReadSession, TurnSession, WriteSession
from service.http.figures import Figures
from service.http.idempotent_route import OnceRoute
from service.http.schemas import Answer, Body, Name, Text, with_example
from service.labeling import label_exports, labels
from service.labeling.labels import NewLabel, Outcome, Skip
from service.projects import projects
from service.store import class_sets
from service.store.ids import public_id
from service.store.tables import Project, utc_now

router = APIRouter(tags=["labeling"], route_class=OnceRoute)

_BIGGEST = 2**31 - 1
FormatName = Annotated[Text, Query(max_length=100, description=f"one of {', '.join(sorted(formats()))}")]


def _annotation(value: Any) -> Any:
    """An object or an array that is not too large."""
    if value is None:
        return None
    if not isinstance(value, dict | list):
        raise ValueError("send an object or an array, as your tool gives it")
    size = labels.annotation_bytes(value)
    if size > labels.MAX_ANNOTATION_BYTES:
        raise ValueError(
            f"this is {size:,} bytes of JSON, and an annotation may have {labels.MAX_ANNOTATION_BYTES:,} (256 KB). "
            "Keep it where you have it, and send its address"
        )
    return value


EXPORT_COLUMNS = pa.schema(
    [
        ("item", pa.string()),
        ("key", pa.string()),
        ("annotator", pa.string()),
        ("class", pa.string()),
        ("said", pa.string()),
        ("skip", pa.string()),
        ("revision", pa.int64()),
        ("current", pa.bool_()),
        ("used", pa.bool_()),
        ("outcome", pa.string()),
        ("arm", pa.string()),
        ("batch", pa.string()),
        ("ranking", pa.string()),
        ("round", pa.int64()),
        ("duration_ms", pa.int64()),
        ("annotation", pa.string()),
        ("created_at", pa.timestamp("us", "UTC")),
        ("content_hash", pa.string()),
    ]
)
_LIST = pa.list_(pa.string())


def export_columns(project: Project) -> pa.Schema:
    """The columns; where an item has several classes, `classes` and `said` are lists."""
    if project.label_kind == "single":
        return EXPORT_COLUMNS
    lists = {"class": pa.field("classes", _LIST), "said": pa.field("said", _LIST)}
    return pa.schema([lists.get(column.name, column) for column in EXPORT_COLUMNS])


SUGGESTION_COLUMNS = [pa.field("suggested_class", pa.string()), pa.field("duplicate_of", pa.string())]


class LabelIn(Body):
    """A class, or the reason why there is none; `"class": null` withdraws the annotator's label. Where an item has
    several, `classes` stands in the place of `class`: any of them, or none for "nothing here"."""

    item: Text | None = Field(None, max_length=100, description="or its `key`")
    key: Text | None = Field(None, max_length=1000)
    class_name: Text | None = Field(
        None, alias="class", max_length=200, description="null withdraws the label"
    )
    classes: list[Text] | None = Field(
        None,
        max_length=projects.MOST_CLASSES,
        description="in a project whose `label_kind` is `multi`, in any order; empty: nothing is here",
    )
    skip: Skip | None = Field(
        None, description="`unsure`: others may get it; `broken`: leaves the pool; `other`: like unsure"
    )
    annotator: Name | None = Field(None, description="a key bound to an annotator may leave it out")
    batch: Text | None = Field(None, max_length=100)
    duration_ms: int | None = Field(None, ge=0, le=_BIGGEST)
    revision: int | None = Field(
        None, ge=1, le=_BIGGEST, description="default: 1, and the next one when the content differs"
    )
    annotation: Annotated[Any, AfterValidator(_annotation)] = Field(
        None,
        description="what your tool drew or wrote beside the class: boxes, masks, spans, a transcript; an object or an "
        "array of up to 256 KB, kept and given back as it is",
        json_schema_extra={"anyOf": [{"type": "object"}, {"type": "array", "items": {}}, {"type": "null"}]},
    )

    @model_validator(mode="after")
    def _one_of_each(self) -> Self:
        if (self.item is None) == (self.key is None):
            raise ValueError("send either `item` or `key`")
        if self.class_name is not None and self.classes is not None:
            raise ValueError("send either `class` or `classes`")
        says = self.class_name is not None or self.classes is not None
        if says and self.skip is not None:
            raise ValueError("send either `class` or `skip`")
        if not {"class_name", "classes", "skip"} & self.model_fields_set:
            raise ValueError('send `class` or `skip`; `"class": null` withdraws the label')
        if self.annotation is not None and not says and self.skip is None:
            raise ValueError("`annotation` goes with a `class` or a `skip`; a withdrawn label has none")
        return self


class Labels(Body):
    model_config = with_example(
        {
            "labels": [
                {"item": "i_2k", "class": "coat", "annotator": "ann", "batch": "b_9", "duration_ms": 900},
                {"item": "i_2m", "skip": "unsure", "annotator": "ann", "batch": "b_9"},
            ]
        }
    )

    labels: list[LabelIn] = Field(min_length=1, max_length=1000)


class LabelResult(Answer):
    item: str = Field(description="as it was sent: its id or its key")
    outcome: Outcome


class Retrain(Answer):
    queued: bool
    job: str | None = None


class LabelsAnswer(Answer):
    """The outcome of each label, in the order sent. `accepted` counts those that are new and not stale."""

    model_config = with_example(
        {
            "accepted": 2,
            "results": [{"item": "i_2k", "outcome": "accepted"}, {"item": "i_2m", "outcome": "accepted"}],
            "round": 3,
            "labels_used": 260,
            "retrain": {"queued": True, "job": "j_8"},
        }
    )

    accepted: int
    results: list[LabelResult]
    round: int
    labels_used: int
    retrain: Retrain


def acting_annotator(named: str | None, field: str, caller: Principal) -> str:
    """`field`: where the annotator stands, for people. Raises `AnnotatorMissing`, `BoundToAnnotator`."""
    annotator = caller.annotator_for(named, field)
    if annotator is None:
        raise AnnotatorMissing(field=field)
    return annotator


def _entry_of(label: LabelIn, field: str, caller: Principal) -> NewLabel:
    annotator = acting_annotator(label.annotator, field, caller)
    return NewLabel(annotator=annotator, **label.model_dump(exclude={"annotator"}))


def _store(
    project: Project, body: Labels, session: Session, caller: Principal, figures: Figures
) -> LabelsAnswer:
    entries = [
        _entry_of(label, f"labels[{index}].annotator", caller) for index, label in enumerate(body.labels)
    ]
    stored = labels.store(session, project, entries, utc_now())
    figures.labels_stored_with(session, stored.outcomes)
    job = public_id("j", stored.job_id) if stored.job_id is not None else None
    return LabelsAnswer(
        accepted=sum(outcome not in ("duplicate", "stale") for outcome in stored.outcomes),
        results=[
            LabelResult(item=label.item or label.key or "", outcome=outcome)
            for label, outcome in zip(body.labels, stored.outcomes, strict=True)
        ],
        round=stored.round_number,
        labels_used=stored.labels_used,
        retrain=Retrain(queued=job is not None, job=job),
    )


@router.post("/projects/{project_id}/labels")
def send_labels(
    project_id: str, body: Labels, session: TurnSession, caller: Annotator, parts: PartsDep
) -> LabelsAnswer:
    """Store up to 1,000 labels, all or nothing; a 422 names the one that is wrong, `labels[3].class`.

    Sending the same again is safe: it is answered as `duplicate`. A label with `"class": null` withdraws the
    annotator's: the item is open again, for them too.
    """
    project = projects.find(session, project_id, caller.project_id, locked=True)
    return _store(project, body, session, caller, parts.figures)


@router.post("/labels")
def send_labels_of_only_project(
    body: Labels, session: WriteSession, caller: Annotator, parts: PartsDep
) -> LabelsAnswer:
    """The same for the key's project, or the only one there is."""
    project = projects.find_only(session, caller.project_id, "labels")
    return _store(project, body, session, caller, parts.figures)


@router.get(
    "/projects/{project_id}/labels",
    response_class=StreamingResponse,
    responses={
        200: {
            "content": {
                exports.NDJSON: {"example": '{"item": "i_2k", "key": "shirts/0012.png", "class": "coat"}\n'},
                exports.CSV: {"example": "item,key,annotator,class\ni_2k,shirts/0012.png,ann,coat\n"},
                exports.PARQUET: {},
            }
        }
    },
)
def export_labels(
    project_id: str,
    request: Request,
    session: ReadSession,
    caller: Reader,
    parts: PartsDep,
    history: Annotated[bool, Query(alias="all", description="with replaced and stale revisions")] = False,
    suggestions: Annotated[
        bool, Query(description="and unlabeled duplicates, with the class of the item that stands for them")
    ] = False,
    format: FormatName | None = None,
) -> StreamingResponse:
    """All labels in the order they came, streamed as NDJSON, CSV or Parquet by `Accept`.

    With `suggestions=true` rows of unlabeled duplicates follow, which have no `class` but a `suggested_class` and
    a `duplicate_of`: nobody has looked at these items, and no head trains on them.

    `format` names any other one, as `coco`: those that are no tables have an entry for each decided item, with what its
    label carries where that is in the format; the header `Shortlist-Left-Out` says what is not.
    """
    project = projects.find(session, project_id, caller.project_id)
    if format is not None:
        chosen = format_named(format, "format")
        labels_of = labels_out(parts.engine, session, project, chosen, parts.item_bytes, history)
        return exports.file_response(f"labels-{project_id}", chosen, labels_of)
    media_type = exports.accepted_format(request)
    tables, schema = export_pages(parts.engine, session, project, history), export_columns(project)
    if suggestions:
        columns = SUGGESTION_COLUMNS
        if project.label_kind == "multi":
            columns = [pa.field("suggested_classes", _LIST), *columns[1:]]
        schema = pa.schema([*schema, *columns])
        tables = chain(tables, exports.pages(parts.engine, partial(_suggestions_page, project)))
    return exports.streamed(f"labels-{project_id}", media_type, schema, tables)


def labels_out(
    engine: sa.Engine,
    session: Session,
    project: Project,
    chosen: Format,
    item_bytes: ItemBytes,
    history: bool,
) -> LabelsOut:
    """The labels as a format writes them: a table all, the others an entry for each decided item. Raises `SingleOnly`
    where an item has several classes, and the format no place for them.
    """
    if project.label_kind == "multi" and not chosen.several:
        able = ", ".join(sorted(name for name, each in formats().items() if each.several))
        raise SingleOnly(
            what=f"the format {chosen.name}",
            project=public_id("p", project.id),
            instead=f"Take one of {able}.",
        )
    if chosen.table:
        pages = export_pages(engine, session, project, history)
    else:
        pages = exports.pages(engine, partial(_decided_page, project))

    def read_item(row: dict[str, Any]) -> bytes:
        return item_bytes.read(row["uri"], row["content_hash"])

    return LabelsOut(project.classes, export_columns(project), pages, read_item)


def _decided_page(
    project: Project, session: Session, after: int, limit: int
) -> list[tuple[int, dict[str, Any]]]:
    found = label_exports.decided(session, project.id, after=after, limit=limit)
    return [
        (
            item.id,
            {
                "item": public_id("i", item.id),
                "key": item.key,
                **class_sets.as_fields(item.class_name, project.label_kind),
                "uri": item.uri,
                "content_hash": item.content_hash,
                "width": item.width,
                "height": item.height,
                "annotation": annotation,
            },
        )
        for item, annotation in found
    ]


def export_pages(
    engine: sa.Engine, session: Session, project: Project, history: bool
) -> Iterator[list[dict[str, Any]]]:
    """The labels there are now, whatever comes in while they are read."""
    project_id, kind = project.id, project.label_kind
    last = label_exports.newest(session, project_id)

    def fetch(session: Session, after: int, limit: int) -> list[tuple[int, dict[str, Any]]]:
        found = label_exports.page(session, project_id, history=history, last=last, after=after, limit=limit)
        # Without the others, each is the current one, also where it was replaced since.
        return [
            (each.label.id, _row(each, kind, current=not history or (each.label.current and not each.aside)))
            for each in found
        ]

    return exports.pages(engine, fetch)


def _suggestions_page(
    project: Project, session: Session, after: int, limit: int
) -> list[tuple[int, dict[str, Any]]]:
    found = label_exports.suggestions(session, project, after=after, limit=limit)
    suggested = partial(class_sets.as_fields, kind=project.label_kind)
    return [
        (
            suggestion.item_id,
            {
                "item": public_id("i", suggestion.item_id),
                "key": suggestion.key,
                **{f"suggested_{name}": value for name, value in suggested(suggestion.class_name).items()},
                "duplicate_of": public_id("i", suggestion.duplicate_of_id),
            },
        )
        for suggestion in found
    ]


def _row(exported: label_exports.ExportedLabel, kind: str, current: bool) -> dict[str, Any]:
    label = exported.label
    return {
        "item": public_id("i", label.item_id),
        "key": exported.key,
        "annotator": label.annotator,
        **class_sets.as_fields(label.class_name, kind),
        "said": class_sets.several(label.said) or label.said,
        "skip": label.skip,
        "revision": label.revision,
        "current": current,
        "used": label.used,
        "outcome": label.outcome,
        "arm": label.arm,
        "batch": public_id("b", label.batch_id) if label.batch_id is not None else None,
        "ranking": public_id("r", label.ranking_id) if label.ranking_id is not None else None,
        "round": label.round_number,
        "duration_ms": label.duration_ms,
        "annotation": label.annotation,
        "created_at": label.created_at,
        "content_hash": exported.content_hash,
    }

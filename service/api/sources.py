from datetime import datetime
from typing import Annotated, Self

from fastapi import APIRouter, Response
from pydantic import Field

from service.api.jobs import JobAnswer, accepted
from service.http.dependencies import Admin, PartsDep, Reader, ReadSession, WriteSession
from service.http.etag import ETagRoute
from service.http.schemas import Answer, Body, Cursor, Limit, Page, Text, decode_cursor, with_example
from service.pool import sources
from service.pool.items import Split
from service.projects import projects
from service.store.ids import public_id
from service.store.tables import Source

router = APIRouter(prefix="/projects/{project_id}/sources", tags=["sources"], route_class=ETagRoute)


class NewSource(Body):
    """A source to import items from."""

    model_config = with_example({"uri": "/data/shirts", "split": "pool"})

    uri: Annotated[Text, Field(min_length=1, max_length=4000)] = Field(
        description="a folder; a JSONL, CSV or Parquet file with the items or their places; a file of molecules; a "
        "graph whose nodes are the items, with `#nodes` after it; a path or fsspec URL"
    )
    split: Split = "pool"
    label_column: Annotated[Text, Field(min_length=1, max_length=200)] | None = Field(
        None,
        description="where a manifest or Parquet file of the test split says the class; of several classes a list, or "
        "a text between semicolons. With `#nodes` an attribute of the nodes, also of a pool: it is then no tag",
    )
    accept_missing: bool = Field(
        False,
        description="put items aside that are not there any more even where they are more than half of the source: "
        "else the import stops, as the place may not be mounted",
    )


class SourceAnswer(Answer):
    """One import. Each file or row is one of `added`, `known`, `changed`, `moved`, `quarantined`, `refused`, `ignored`;
    `missing` are items that earlier imports of the place found, and this one did not."""

    model_config = with_example(
        {
            "id": "o_1",
            "uri": "/data/shirts",
            "split": "pool",
            "job": "j_1",
            "added": 480,
            "known": 4478,
            "changed": 12,
            "moved": 9,
            "quarantined": 20,
            "refused": 1,
            "ignored": 0,
            "missing": 3,
        }
    )

    id: str
    uri: str
    split: Split
    label_column: str | None
    job: str | None
    added: int
    known: int = Field(description="the item of its key has these bytes")
    changed: int = Field(
        description="its key has other bytes now: a new item, without the labels of the one before"
    )
    moved: int = Field(description="its bytes had a key that is gone: the same item, under its new key")
    quarantined: int = Field(description="new, and cannot be read or decoded")
    refused: int = Field(description="see `refusals` in the job's result")
    ignored: int = Field(description="files that are no such items")
    missing: int
    created_at: datetime

    @classmethod
    def of(cls, source: Source) -> Self:
        return cls(
            id=public_id("o", source.id),
            uri=source.uri,
            split=source.split,
            label_column=source.label_column,
            job=public_id("j", source.job_id) if source.job_id is not None else None,
            added=source.added,
            known=source.known,
            changed=source.changed,
            moved=source.moved,
            quarantined=source.quarantined,
            refused=source.refused,
            ignored=source.ignored,
            missing=source.missing,
            created_at=source.created_at,
        )


@router.post("", status_code=202)
def add_source(
    project_id: str,
    body: NewSource,
    session: WriteSession,
    caller: Admin,
    parts: PartsDep,
    response: Response,
) -> JobAnswer:
    """Import a source. The same one again adds what is new, and finds out what has changed, moved or gone."""
    project = projects.find(session, project_id, caller.project_id)
    _, job = sources.add(
        session,
        project,
        parts.item_bytes,
        uri=body.uri,
        split=body.split,
        label_column=body.label_column,
        accept_missing=body.accept_missing,
    )
    return accepted(job, response)


@router.get("")
def list_sources(
    project_id: str,
    session: ReadSession,
    caller: Reader,
    cursor: Cursor = None,
    limit: Limit = 100,
) -> Page[SourceAnswer]:
    """The imported sources, newest first. Bad files are among the items, with `state=quarantined`."""
    project = projects.find(session, project_id, caller.project_id)
    (position,) = decode_cursor(cursor, int) or (None,)
    found = sources.page(session, project, position, limit)
    return Page.of(found, limit, SourceAnswer.of, lambda last: (last.id,))

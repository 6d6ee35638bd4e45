from collections.abc import AsyncIterator
from typing import Annotated

import anyio.from_thread
import anyio.to_thread
from fastapi import APIRouter, Query, Request
from fastapi.concurrency import run_in_threadpool
from pydantic import Field

from service.api.jobs import JobAnswer
from service.errors import NothingUploaded
from service.http.dependencies import Admin, Parts, PartsDep, ReadSession, WriteSession
from service.http.idempotent_route import OnceRoute
from service.http.schemas import Answer, Body, Text, with_example
from service.pool import sources, uploads
from service.pool.items import Split
from service.projects import projects
from service.store.session import read_session
from service.store.tables import Job, Project

router = APIRouter(prefix="/projects/{project_id}/uploads", tags=["sources"], route_class=OnceRoute)

_AT_ONCE = 8  # files that are received; each has a thread that writes it
_receiving = anyio.CapacityLimiter(_AT_ONCE)


class UploadAnswer(Answer):
    """A place for files, until they are imported."""

    model_config = with_example({"id": "5f0c9a7be2d14c36", "room": 52428800000})

    id: str
    room: int | None = Field(description="bytes that are free for it; null where the storage does not tell")


class UploadedFile(Answer):
    """A file that is there, whole."""

    model_config = with_example({"path": "cat/0012.png", "bytes": 48213})

    path: str
    bytes: int


class UploadImport(Body):
    model_config = with_example({"split": "pool"})

    split: Split = "pool"
    label_column: Annotated[Text, Field(min_length=1, max_length=200)] | None = Field(
        None, description="where a table of the test split says the class"
    )


class UploadImported(Answer):
    """The imports that were queued: of the folder, and of each archive and table in it."""

    model_config = with_example({"jobs": [{"id": "j_1", "kind": "import_source", "state": "queued"}]})

    jobs: list[JobAnswer]


@router.post("", status_code=201)
def begin_upload(project_id: str, session: ReadSession, caller: Admin, parts: PartsDep) -> UploadAnswer:
    """Begin an upload: a place for files from this browser or machine, which the service keeps in its data folder. What
    is not imported is deleted two days after its last file."""
    projects.refuse_archived(projects.find(session, project_id, caller.project_id))
    return UploadAnswer(id=uploads.new_id(), room=uploads.room(parts.artifacts))


_FILE_BODY = {
    "required": True,
    "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
}


@router.put("/{upload_id}", status_code=201, openapi_extra={"requestBody": _FILE_BODY})
async def upload_file(
    project_id: str,
    upload_id: str,
    request: Request,
    caller: Admin,
    parts: PartsDep,
    path: Annotated[Text, Query(max_length=2000, description="with its folders: `cat/0012.png`")],
) -> UploadedFile:
    """Upload a file of any size, as the body: an item, an archive or a table. It is there once it is whole; the same
    path again replaces it."""

    def find() -> Project:
        with read_session(parts.engine) as session:
            project = projects.find(session, project_id, caller.project_id)
            projects.refuse_archived(project)
            return project

    name = uploads.artifact_name(await run_in_threadpool(find), upload_id, path)
    announced = request.headers.get("content-length", "")
    if announced.isdigit():
        uploads.check_room(parts.artifacts, path, int(announced))
    pieces = request.stream()
    written = await anyio.to_thread.run_sync(_store, parts, name, pieces, limiter=_receiving)
    return UploadedFile(path=name.split("/", 3)[3], bytes=written)


def _store(parts: Parts, name: str, pieces: AsyncIterator[bytes]) -> int:
    """In a thread: each piece is waited for, and written before the next is taken."""

    async def following() -> bytes | None:
        return await anext(pieces, None)

    written = 0
    with parts.artifacts.writing(name) as file:
        while (piece := anyio.from_thread.run(following)) is not None:
            file.write(piece)
            written += len(piece)
    return written


@router.post("/{upload_id}/import", status_code=202)
def import_upload(
    project_id: str, upload_id: str, body: UploadImport, session: WriteSession, caller: Admin, parts: PartsDep
) -> UploadImported:
    """Import what was uploaded: the files as a folder, and each archive and table by itself."""
    project = projects.find(session, project_id, caller.project_id)
    places = uploads.sources_in(parts.artifacts, project, upload_id)
    if not places:
        raise NothingUploaded(upload=upload_id)
    queued: list[Job] = []
    for place in places:
        _, job = sources.add(
            session, project, parts.item_bytes, uri=place, split=body.split, label_column=body.label_column
        )
        queued.append(job)
    return UploadImported(jobs=[JobAnswer.of(job, {}) for job in queued])


@router.delete("/{upload_id}", status_code=204)
def delete_upload(
    project_id: str, upload_id: str, session: ReadSession, caller: Admin, parts: PartsDep
) -> None:
    """Delete an upload that was not imported."""
    project = projects.find(session, project_id, caller.project_id)
    folder = uploads.folder(project, upload_id)
    sources.check_not_imported(session, project, upload_id)
    parts.artifacts.delete(folder)

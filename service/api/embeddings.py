"""Embeddings of a user's own model, in place of those of a pretext model."""

from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool
from pydantic import Field

from service.api.jobs import JobAnswer, accepted
from service.http.dependencies import Admin, PartsDep
from service.http.received import received
from service.http.schemas import Answer, with_example
from service.models import own_embeddings
from service.projects import projects
from service.store.ids import public_id
from service.store.session import read_session
from service.store.tables import Project

router = APIRouter(prefix="/projects/{project_id}", tags=["training"])

_PARQUET, _NPZ = "application/vnd.apache.parquet", "application/octet-stream"
_BODY: dict[str, Any] = {"required": True, "content": {_PARQUET: {"schema": {}}, _NPZ: {"schema": {}}}}


class EmbeddingsAnswer(Answer):
    """Stored; a score run of them is served once `job` is done."""

    model_config = with_example({"items": 8000, "dimensions": 512, "unknown": 0, "missing": 12})

    items: int = Field(description="that have an embedding now")
    dimensions: int
    unknown: int = Field(description="keys that are no items of the project, and were left out")
    missing: int = Field(description="items of the pool without an embedding: they are served at random only")
    job: JobAnswer


@router.post("/embeddings", status_code=202, openapi_extra={"requestBody": _BODY})
async def post_embeddings(
    project_id: str,
    request: Request,
    response: Response,
    caller: Admin,
    parts: PartsDep,
    ignore_unknown: bool = False,
    partial: bool = False,
) -> EmbeddingsAnswer:
    """Rank by embeddings of your own model: Parquet with the columns `key` and `embedding` (and `pretext_loss`, if you
    have one), or a NumPy .npz with the arrays `keys` and `embeddings` (and `pretext_losses`). Of any size, up to 4,096
    dimensions; stored in 16 bits. They take the place of the pretext model's until you pretrain again.
    """

    def find() -> Project:
        with read_session(parts.engine) as session:
            return projects.find(session, project_id, caller.project_id)

    project = await run_in_threadpool(find)
    artifacts = parts.artifacts
    async with received(request, parts.settings, "embeddings") as upload:
        stored = await run_in_threadpool(
            own_embeddings.store,
            parts.engine,
            artifacts,
            project.id,
            upload,
            ignore_unknown=ignore_unknown,
            partial=partial,
        )
    public = public_id("p", project.id)
    try:
        async with parts.turns.of(public):
            job = await parts.write(
                lambda session: accepted(
                    own_embeddings.use(session, projects.find(session, public), stored), response
                )
            )
    except BaseException:
        await run_in_threadpool(artifacts.delete, stored.artifact)
        raise
    return EmbeddingsAnswer(
        items=stored.items,
        dimensions=stored.dimensions,
        unknown=stored.unknown,
        missing=stored.missing,
        job=job,
    )

"""Probabilities of a user's own model, in place of those of the head."""

from datetime import datetime
from typing import Annotated, Any, Self

from fastapi import APIRouter, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from pydantic import Field

from service.api.jobs import JobAnswer, accepted
from service.http.dependencies import Admin, PartsDep, Reader, ReadSession, WriteSession
from service.http.etag import ETagRoute
from service.http.received import received
from service.http.schemas import Answer, with_example
from service.models import own_predictions
from service.projects import projects
from service.store.ids import public_id
from service.store.session import read_session
from service.store.tables import OwnPredictions, Project

router = APIRouter(prefix="/projects/{project_id}/predictions", tags=["training"], route_class=ETagRoute)

_BODY: dict[str, Any] = {
    "required": True,
    "content": {"application/vnd.apache.parquet": {"schema": {}}, "application/octet-stream": {"schema": {}}},
}
_EXAMPLE = {"items": 8000, "classes": ["cat", "dog"], "labels": 300, "created_at": "2026-01-31T12:00:00Z"}


class PredictionsAnswer(Answer):
    """The predictions that strategies use in place of the head's."""

    model_config = with_example(_EXAMPLE)

    items: int = Field(description="that have a prediction")
    classes: list[str]
    labels: int | None = Field(description="that the model had learned from, where it was told")
    created_at: datetime

    @classmethod
    def of(cls, row: OwnPredictions, **more: Any) -> Self:
        return cls(items=row.items, classes=row.classes, labels=row.labels, created_at=row.created_at, **more)


class NewPredictionsAnswer(PredictionsAnswer):
    """Stored; the ranking goes by them once `job` is done."""

    model_config = with_example(_EXAMPLE | {"unknown": 0, "missing": 12})

    unknown: int = Field(description="keys that are no items of the project, and were left out")
    missing: int = Field(
        description="available items of the pool without a prediction: the head's counts for them, or the mean"
    )
    job: JobAnswer


@router.post("", status_code=202, openapi_extra={"requestBody": _BODY})
async def post_predictions(
    project_id: str,
    request: Request,
    response: Response,
    caller: Admin,
    parts: PartsDep,
    labels: Annotated[
        int | None, Query(ge=0, lt=2**31, description="how many the model has learned from")
    ] = None,
    ignore_unknown: bool = False,
    older: bool = False,
) -> NewPredictionsAnswer:
    """Rank by what your own model thinks of the items: Parquet with the column `key` and a column of probabilities for
    each class, by its name. Strategies use them in place of the head's until you send others or delete them.
    """

    def find() -> Project:
        with read_session(parts.engine) as session:
            return projects.find(session, project_id, caller.project_id)

    project = await run_in_threadpool(find)
    async with received(request, parts.settings, "predictions") as upload:
        stored = await run_in_threadpool(
            own_predictions.store,
            parts.engine,
            parts.artifacts,
            project,
            upload,
            ignore_unknown=ignore_unknown,
        )
    public = public_id("p", project.id)
    try:
        async with parts.turns.of(public):
            row, job = await parts.write(
                lambda session: own_predictions.use(
                    session, projects.find(session, public), stored, labels=labels, older=older
                )
            )
    except BaseException:
        await run_in_threadpool(parts.artifacts.delete, stored.artifact)
        raise
    return NewPredictionsAnswer.of(
        row, unknown=stored.unknown, missing=stored.missing, job=accepted(job, response)
    )


@router.get("")
def get_predictions(project_id: str, session: ReadSession, caller: Reader) -> PredictionsAnswer:
    """The predictions of your own model that strategies use."""
    project = projects.find(session, project_id, caller.project_id)
    return PredictionsAnswer.of(own_predictions.find(session, project))


@router.delete("", status_code=204)
def delete_predictions(project_id: str, session: WriteSession, caller: Admin) -> None:
    """Go back to the head's probabilities."""
    own_predictions.withdraw(session, projects.find(session, project_id, caller.project_id))

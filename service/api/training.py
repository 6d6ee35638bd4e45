from datetime import datetime
from typing import Any, Literal, Self

from fastapi import APIRouter, Response
from pydantic import Field

from service.api.jobs import JobAnswer, accepted
from service.api.scores import GateAnswer
from service.http.dependencies import Admin, Reader, ReadSession, WriteSession
from service.http.etag import ETagRoute
from service.http.schemas import Answer, Body, Cursor, Limit, Page, decode_cursor, with_example
from service.models import scores, training
from service.projects import projects
from service.store.ids import public_id
from service.store.tables import PretextModel

router = APIRouter(prefix="/projects/{project_id}", tags=["training"], route_class=ETagRoute)


class Nothing(Body):
    """An empty object, or no body at all."""


class PretextModelAnswer(Answer):
    """A trained backbone + pretext head, one version."""

    model_config = with_example(
        {
            "id": "m_1",
            "version": 1,
            "state": "ready",
            "task": {"name": "rotation", "params": {}},
            "backbone": "small",
            "config": {"image_size": 28, "epochs": 2, "seed": 0},
            "history": [{"epoch": 1, "loss": 0.61}],
            "diagnostics": {},
        }
    )

    id: str
    version: int
    state: Literal["training", "ready", "collapsed", "failed", "cancelled"]
    task: dict[str, Any]
    backbone: str
    config: dict[str, Any]
    history: list[Any]  # losses, one object an epoch
    diagnostics: dict[str, Any]  # before and after training; collapse, warnings, a note
    gate: GateAnswer | None = Field(description="what the labels of this project say of its embeddings")
    created_at: datetime
    finished_at: datetime | None

    @classmethod
    def of(cls, model: PretextModel, gate: dict[str, Any] | None) -> Self:
        return cls(
            id=public_id("m", model.id),
            version=model.version,
            state=model.state,
            task=model.task,
            backbone=model.backbone,
            config=model.config,
            history=model.history,
            diagnostics=model.diagnostics,
            gate=GateAnswer.of(gate),
            created_at=model.created_at,
            finished_at=model.finished_at,
        )


@router.post("/pretrain", status_code=202)
def pretrain(
    project_id: str, session: WriteSession, caller: Admin, response: Response, body: Nothing | None = None
) -> JobAnswer:
    """Train the pretext model, then score the pool. With `pretext_from` its pretext model scores at once."""
    project = projects.find(session, project_id, caller.project_id)
    return accepted(training.pretrain(session, project), response)


@router.post("/retrain", status_code=202)
def retrain(
    project_id: str, session: WriteSession, caller: Admin, response: Response, body: Nothing | None = None
) -> JobAnswer:
    """Train the head now instead of with the next labels; a new ranking follows."""
    project = projects.find(session, project_id, caller.project_id)
    return accepted(training.retrain(session, project), response)


@router.get("/pretext-models")
def list_pretext_models(
    project_id: str,
    session: ReadSession,
    caller: Reader,
    cursor: Cursor = None,
    limit: Limit = 100,
) -> Page[PretextModelAnswer]:
    """Versions, newest first, with losses and diagnostics."""
    project = projects.find(session, project_id, caller.project_id)
    (position,) = decode_cursor(cursor, int) or (None,)
    found = training.pretext_models(session, project, position, limit)
    gates = scores.gates(session, project, found)

    def answer(model: PretextModel) -> PretextModelAnswer:
        return PretextModelAnswer.of(model, gates.get(model.id))

    return Page.of(found, limit, answer, lambda last: (last.version,))

"""Find more like this: items near an example, or near several and away from others."""

from typing import Annotated, Self

from fastapi import APIRouter, Query
from pydantic import Field

from service.api.item_actions import ItemId, QueuedAnswer
from service.api.items import EXAMPLE, ItemAnswer
from service.http.dependencies import Admin, Parts, PartsDep, Reader, ReadSession, WriteSession
from service.http.etag import ETagRoute
from service.http.schemas import Answer, Body, Name, with_example
from service.pool import items, similar
from service.pool.items import Split, State
from service.pool.similar import SimilarItem
from service.projects import projects
from service.store.tables import Project

router = APIRouter(prefix="/projects/{project_id}", tags=["items"], route_class=ETagRoute)

_MOST_EXAMPLES = 50
_MOST = 200
_LIMIT = "at most so many, most similar first"
_SIMILAR_EXAMPLE = EXAMPLE | {"similarity": 0.87}


class SimilarItemAnswer(ItemAnswer):
    """An item, and how much it is like the examples."""

    model_config = with_example(_SIMILAR_EXAMPLE)

    similarity: float = Field(
        description="cosine with the nearest positive example, in the space that strategies pick from; 1 at most"
    )


class SimilarAnswer(Answer):
    """The items most like the examples, most similar first."""

    model_config = with_example({"items": [_SIMILAR_EXAMPLE]})

    items: list[SimilarItemAnswer]

    @classmethod
    def of(cls, found: list[SimilarItem], project: Project, parts: Parts) -> Self:
        return cls(
            items=[
                SimilarItemAnswer.of(one.listed, project, parts, similarity=one.similarity) for one in found
            ]
        )


class Examples(Body):
    positive: list[ItemId] = Field(min_length=1, max_length=_MOST_EXAMPLES, description="what is sought")
    negative: list[ItemId] = Field(
        [], max_length=_MOST_EXAMPLES, description="what is not: items nearer to one of these are left out"
    )


class ToFind(Examples):
    model_config = with_example({"positive": ["i_2k", "i_2m"], "negative": ["i_9"], "state": "available"})

    state: State | None = Field(None, description="of the items to find; null: any")
    split: Split = "pool"
    limit: int = Field(20, ge=1, le=_MOST, strict=True, description=_LIMIT)


class ToFindAndQueue(Examples):
    model_config = with_example({"positive": ["i_2k", "i_2m"], "count": 20, "annotator": "ann"})

    count: int = Field(20, ge=1, le=_MOST, strict=True, description="the most similar so many")
    annotator: Name | None = Field(None, description="kept for them; without one, for whoever asks next")


@router.get("/items/{item_id}/similar")
def list_similar(
    project_id: str,
    item_id: str,
    session: ReadSession,
    caller: Reader,
    parts: PartsDep,
    state: State | None = None,
    split: Split = "pool",
    limit: Annotated[int, Query(ge=1, le=_MOST, description=_LIMIT)] = 20,
) -> SimilarAnswer:
    """Items like this one, most similar first, whoever labeled them or not; `state=available` leaves out what is done.

    They are near it in the project's space: whitened embeddings, beside what items look like.
    """
    project = projects.find(session, project_id, caller.project_id)
    example = items.find(session, project, item_id)
    found = similar.find(session, project, parts.artifacts, [example], state=state, split=split, limit=limit)
    return SimilarAnswer.of(found, project, parts)


@router.post("/similar")
def find_similar(
    project_id: str, body: ToFind, session: ReadSession, caller: Reader, parts: PartsDep
) -> SimilarAnswer:
    """Items like several examples, and unlike others: as near as possible to one of the positive ones, and nearer to
    it than to any negative one. Nothing is changed; `similar/queue` has them labeled."""
    project = projects.find(session, project_id, caller.project_id)
    found = similar.find(
        session,
        project,
        parts.artifacts,
        items.find_each(session, project, body.positive, "positive"),
        items.find_each(session, project, body.negative, "negative"),
        state=body.state,
        split=body.split,
        limit=body.limit,
    )
    return SimilarAnswer.of(found, project, parts)


@router.post("/similar/queue")
def queue_similar(
    project_id: str, body: ToFindAndQueue, session: WriteSession, caller: Admin, parts: PartsDep
) -> QueuedAnswer:
    """Have the items most like the examples labeled next, before those of the ranking. Items that somebody labeled, or
    that are queued already, are passed over: sent again, the call queues the next ones."""
    project = projects.find(session, project_id, caller.project_id)
    queued = similar.queue(
        session,
        project,
        parts.artifacts,
        items.find_each(session, project, body.positive, "positive"),
        items.find_each(session, project, body.negative, "negative"),
        count=body.count,
        annotator=body.annotator,
    )
    return QueuedAnswer(added=queued.added, reopened=queued.reopened)

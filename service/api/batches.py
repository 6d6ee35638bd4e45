from datetime import datetime
from typing import Any, Literal, Self

from fastapi import APIRouter, Response
from pydantic import Field

from service.access.keys import Principal
from service.api.item_content import CONTENT_EXAMPLE, IMAGE_URL_EXAMPLE, ItemContent, image_url
from service.errors import AnnotatorMissing, Invalid
from service.http.dependencies import Annotator, Parts, PartsDep, ReadSession, TurnSession, WriteSession
from service.http.idempotent_route import OnceRoute
from service.http.schemas import Answer, Body, ClassList, Name, with_example
from service.labeling import batches, neighbours
from service.labeling.batches import NextBatch, Reason, Served
from service.labeling.class_texts import ClassTexts
from service.labeling.picks import Grid
from service.projects import projects
from service.store import class_sets
from service.store.ids import public_id
from service.store.tables import Batch, Project, utc_now

router = APIRouter(tags=["labeling"], route_class=OnceRoute)

_ITEM_EXAMPLE = {
    "id": "i_2k",
    "key": "shirts/0012.png",
    "uri": "/data/shirts/0012.png",
    "image_url": IMAGE_URL_EXAMPLE,
    "content": CONTENT_EXAMPLE,
    "rank": 1,
    "score": 0.83,
    "arm": "selected",
    "why": {
        "strategy": "shortlist",
        "ranking": 7,
        "score_run": "s_2",
        "head": 4,
        "seed": 0,
        "pretext_loss": 1.31,
        "pretext_loss_percentile": 97.2,
    },
    "prediction": {"class": "coat", "probability": 0.41, "head": 4},
}


class BatchRequest(Body):
    model_config = with_example({"annotator": "ann", "size": 10})

    annotator: Name | None = Field(
        None, description="who labels; a key bound to an annotator may leave it out"
    )
    size: int = Field(10, ge=1, le=1000, strict=True, description="items wanted")
    new: bool = Field(False, description="another batch even if the annotator has an open one")
    grid: bool = Field(
        False,
        description="of the ranking, items of one predicted class only, the surest first, to be looked at together; "
        "control items come in their share as ever, and are to be asked one by one",
    )
    predicted_class: Name | None = Field(
        None, description="of a grid; without one, what most of the ranking's next items are predicted to be"
    )
    predicted_classes: list[Name] | None = Field(
        None,
        max_length=1000,
        description="of a grid, where an item may have several classes: items that are predicted to have exactly these",
    )


class Why(Answer):
    """Provenance of a served item: everything can be traced. Control and queued items come from no ranking."""

    strategy: str
    ranking: int | None
    score_run: str | None
    head: int | None
    seed: int | None
    pretext_loss: float | None
    pretext_loss_percentile: float | None
    pretext_loss_spread: float | None = Field(
        description="standard deviation over the views that were scored; null where the task has one view"
    )


class Prediction(Answer):
    """The head's best guess when the ranking was made. Control items come without one, so that it sways nobody."""

    class_name: str | None = Field(None, alias="class")
    classes: ClassList
    probability: float
    head: int | None


class BatchItem(Answer):
    id: str
    key: str
    uri: str
    image_url: str | None = Field(description="null where items are no images")
    content: ItemContent
    rank: int | None
    score: float | None
    arm: Literal["selected", "control", "queued"] = Field(
        description="gold items are called `control`: annotators are not to know them"
    )
    why: Why
    prediction: Prediction | None

    @classmethod
    def of(cls, served: Served, project: Project, parts: Parts) -> Self:
        links = parts.links.of(project.id, served.item_id)
        return cls(
            id=public_id("i", served.item_id),
            key=served.key,
            uri=served.uri,
            image_url=image_url(links, project.modality),
            content=ItemContent.of(parts, links, project, served.item_id, served.uri, served.content_hash),
            rank=served.rank,
            score=served.score,
            arm="control" if served.arm == "gold" else served.arm,
            why=_why(served, project),
            prediction=_prediction(served),
        )


class BatchAnswer(Answer):
    """Items to label, or the reason why there are none."""

    model_config = with_example(
        {"batch": "b_9", "expires_at": "2026-01-01T12:30:00Z", "items": [_ITEM_EXAMPLE], "reason": None}
    )

    batch: str | None
    expires_at: datetime | None
    items: list[BatchItem]
    reason: Reason | None


class BatchHeld(Answer):
    model_config = with_example({"batch": "b_9", "expires_at": "2026-01-01T12:30:00Z"})

    batch: str
    expires_at: datetime

    @classmethod
    def of(cls, batch: Batch) -> Self:
        return cls(batch=public_id("b", batch.id), expires_at=batch.expires_at)


def _why(served: Served, project: Project) -> Why:
    score_run_id = project.score_run_id if served.ranking is None else served.score_run_id
    chosen_by = "queue" if served.arm == "queued" else "random"
    return Why(
        strategy=served.strategy["name"] if served.strategy else chosen_by,
        ranking=served.ranking,
        score_run=public_id("s", score_run_id) if score_run_id is not None else None,
        head=served.head,
        seed=served.seed,
        pretext_loss=served.pretext_loss,
        pretext_loss_percentile=served.percentile,
        pretext_loss_spread=served.spread,
    )


def _prediction(served: Served) -> Prediction | None:
    if served.predicted_class is None or served.predicted_probability is None:
        return None
    guess: dict[str, Any] = {"class": class_sets.alone(served.predicted_class)}
    classes = class_sets.several(served.predicted_class)
    return Prediction(**guess, classes=classes, probability=served.predicted_probability, head=served.head)


def _next_batch(
    project: Project,
    body: BatchRequest,
    session: WriteSession,
    caller: Principal,
    parts: Parts,
    response: Response,
) -> BatchAnswer:
    annotator = caller.annotator_for(body.annotator, "annotator")
    if annotator is None:
        raise AnnotatorMissing(field="annotator")
    found: NextBatch = batches.next_batch(
        session,
        project,
        annotator=annotator,
        size=body.size,
        new=body.new,
        now=utc_now(),
        grid=_grid(project, body),
    )
    if found.retry_after_s is not None:
        response.headers["Retry-After"] = str(found.retry_after_s)
    return BatchAnswer(
        batch=public_id("b", found.batch.id) if found.batch else None,
        expires_at=found.batch.expires_at if found.batch else None,
        items=[BatchItem.of(served, project, parts) for served in found.served],
        reason=found.reason,
    )


def _grid(project: Project, body: BatchRequest) -> Grid | None:
    """Raises `Invalid`, and where the classes are not of the project's kind `LabelKindDiffers`, `UnknownClass`."""
    for field in ("predicted_class", "predicted_classes"):
        if getattr(body, field) is not None and not body.grid:
            raise Invalid(field=field, message="it is of a grid: send `grid: true` with it.")
    if not body.grid:
        return None
    if project.label_kind == "single" and body.predicted_classes is None:
        return Grid(body.predicted_class)  # of a class that is gone, nothing is predicted
    text, _ = ClassTexts(project).of(body.predicted_class, body.predicted_classes, "predicted_")
    return Grid(text)


@router.post("/projects/{project_id}/next-batch")
def next_batch(
    project_id: str,
    body: BatchRequest,
    session: TurnSession,
    caller: Annotator,
    parts: PartsDep,
    response: Response,
) -> BatchAnswer:
    """The items to label next, reserved for the annotator. Asking again returns their open batch first.

    Always 200; without items there is a `reason`, and `Retry-After` where waiting helps. Items of the annotator's
    queue come first, then those of everybody's, then those of the ranking.
    """
    project = projects.find(session, project_id, caller.project_id, locked=True)
    return _next_batch(project, body, session, caller, parts, response)


@router.post("/next-batch")
def next_batch_of_only_project(
    body: BatchRequest, session: WriteSession, caller: Annotator, parts: PartsDep, response: Response
) -> BatchAnswer:
    """The same for the key's project, or the only one there is."""
    project = projects.find_only(session, caller.project_id, "next-batch")
    return _next_batch(project, body, session, caller, parts, response)


@router.post("/batches/{batch_id}/renew")
def renew_batch(batch_id: str, session: WriteSession, caller: Annotator) -> BatchHeld:
    """Keep the unlabeled rest for another `reservation_ttl_s`."""
    batch = batches.find_batch(session, batch_id, caller.project_id)
    return BatchHeld.of(batches.renew(session, batch, annotator=caller.annotator, now=utc_now()))


@router.delete("/batches/{batch_id}", status_code=204)
def give_back_batch(batch_id: str, session: WriteSession, caller: Annotator) -> None:
    """Give the unlabeled rest back to the pool."""
    batch = batches.find_batch(session, batch_id, caller.project_id)
    batches.give_back(session, batch, annotator=caller.annotator)


class Neighbour(Answer):
    """A labeled item that is like the one asked about."""

    id: str
    key: str
    content: ItemContent
    class_name: str | None = Field(alias="class")
    classes: ClassList
    similarity: float = Field(description="cosine in the space that strategies pick from; 1 at most")


class NeighboursAnswer(Answer):
    model_config = with_example(
        {
            "items": [
                {
                    "id": "i_2m",
                    "key": "shirts/0031.png",
                    "content": CONTENT_EXAMPLE,
                    "class": "coat",
                    "similarity": 0.8,
                }
            ]
        }
    )

    items: list[Neighbour]


@router.get("/batches/{batch_id}/items/{item_id}/neighbours")
def list_neighbours(
    batch_id: str, item_id: str, session: ReadSession, caller: Annotator, parts: PartsDep
) -> NeighboursAnswer:
    """The three labeled items most like an item of an open batch, to compare it with. Refused for control items: what
    accuracy is measured on is labeled without hints."""
    batch = batches.find_batch(session, batch_id, caller.project_id)
    project, found = neighbours.of_held(session, parts.artifacts, batch, item_id, annotator=caller.annotator)
    return NeighboursAnswer(
        items=[
            Neighbour(
                id=public_id("i", one.listed.item.id),
                key=one.listed.item.key,
                content=ItemContent.of(
                    parts,
                    parts.links.of(project.id, one.listed.item.id),
                    project,
                    one.listed.item.id,
                    one.listed.item.uri,
                    one.listed.item.content_hash,
                ),
                similarity=one.similarity,
                classes=class_sets.several(one.listed.item.class_name),
                **{"class": class_sets.alone(one.listed.item.class_name)},
            )
            for one in found
        ]
    )

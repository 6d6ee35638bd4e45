from typing import Annotated, Self

from fastapi import APIRouter, Response
from pydantic import Field

from service.api.item_actions import QueuedAnswer
from service.api.item_content import CONTENT_EXAMPLE, IMAGE_URL_EXAMPLE, ItemContent, image_url
from service.api.jobs import JobAnswer, accepted
from service.http.dependencies import Admin, Parts, PartsDep, Reader, ReadSession, WriteSession
from service.http.etag import ETagRoute
from service.http.schemas import (
    Answer,
    Body,
    ClassList,
    Cursor,
    Limit,
    Name,
    Page,
    decode_cursor,
    is_none,
    with_example,
)
from service.labeling import suspects
from service.labeling.suspects import ListedSuspect
from service.projects import projects
from service.store import class_sets
from service.store.ids import public_id
from service.store.tables import Project, Suspect

router = APIRouter(prefix="/projects/{project_id}/suspects", tags=["labeling"], route_class=ETagRoute)


class SuspectAnswer(Answer):
    """A labeled item whose class the head, which had not seen the label, contradicts."""

    model_config = with_example(
        {
            "item": "i_2k",
            "key": "shirts/0012.png",
            "class": "coat",
            "suggested_class": "shirt",
            "probability": 0.93,
            "quality": 0.02,
            "annotators": ["ann"],
            "image_url": IMAGE_URL_EXAMPLE,
            "content": CONTENT_EXAMPLE,
        }
    )

    item: str
    key: str
    image_url: str | None = Field(description="null where items are no images")
    content: ItemContent
    class_name: str | None = Field(alias="class", description="as labeled")
    classes: ClassList
    suggested_class: str | None
    suggested_classes: ClassList
    doubted_classes: Annotated[
        list[str] | None,
        Field(
            default=None,
            exclude_if=is_none,
            description="where an item has several classes, those that only the label has, or only the head",
        ),
    ]
    probability: float = Field(
        description="of the suggested class; of several, of the head's answer on the most doubtful one"
    )
    quality: float = Field(
        description="of the label, 0 to 1; lower is rather wrong; of several classes, the lowest of theirs"
    )
    annotators: list[str] = Field(description="who labeled it")

    @classmethod
    def of(cls, found: ListedSuspect, project: Project, parts: Parts) -> Self:
        suspect, item = found.suspect, found.item
        links = parts.links.of(project.id, item.id)
        return cls(
            item=public_id("i", item.id),
            key=item.key,
            image_url=image_url(links, project.modality),
            content=ItemContent.of(parts, links, project, item.id, item.uri, item.content_hash),
            class_name=class_sets.alone(suspect.class_name),
            classes=class_sets.several(suspect.class_name),
            suggested_class=class_sets.alone(suspect.suggested_class),
            suggested_classes=class_sets.several(suspect.suggested_class),
            doubted_classes=_doubted(suspect),
            probability=suspect.probability,
            quality=suspect.quality,
            annotators=found.annotators,
        )


def _doubted(suspect: Suspect) -> list[str] | None:
    if not class_sets.is_set(suspect.class_name):
        return None
    labeled, suggested = map(class_sets.classes_in, (suspect.class_name, suspect.suggested_class))
    return sorted(set(labeled) ^ set(suggested))


class ToAskAgain(Body):
    model_config = with_example({"count": 20, "annotator": "ann"})

    count: int = Field(20, ge=1, le=1000, strict=True, description="the most doubtful so many")
    annotator: Name | None = Field(None, description="kept for them; without one, for whoever asks next")


@router.get("")
def list_suspects(
    project_id: str,
    session: ReadSession,
    caller: Reader,
    parts: PartsDep,
    cursor: Cursor = None,
    limit: Limit = 100,
) -> Page[SuspectAnswer]:
    """Items worth labeling again, the most doubtful first: by confident learning (cleanlab), on probabilities of heads
    that did not see the label. Checked after each round."""
    project = projects.find(session, project_id, caller.project_id)
    found = suspects.page(session, project, decode_cursor(cursor, float, int), limit)
    return Page.of(
        found,
        limit,
        lambda one: SuspectAnswer.of(one, project, parts),
        lambda last: (last.suspect.quality, last.item.id),
    )


@router.post("/queue")
def ask_again(project_id: str, body: ToAskAgain, session: WriteSession, caller: Admin) -> QueuedAnswer:
    """Send the most doubtful ones out again: annotators who have not labeled them get them first, until one more
    agrees."""
    project = projects.find(session, project_id, caller.project_id)
    queued = suspects.queue(session, project, count=body.count, annotator=body.annotator)
    return QueuedAnswer(added=queued.added, reopened=queued.reopened)


@router.post("/check", status_code=202)
def check_labels(project_id: str, session: WriteSession, caller: Admin, response: Response) -> JobAnswer:
    """Check the labels now: consensus where several labeled an item, agreement, suspects."""
    project = projects.find(session, project_id, caller.project_id)
    return accepted(suspects.check(session, project), response)

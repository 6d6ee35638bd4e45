"""The items behind a round's confusion matrix, or behind what its head says of each class."""

from typing import Annotated

from fastapi import APIRouter, Path, Query
from pydantic import Field

from service.api.items import EXAMPLE, ItemAnswer
from service.http.dependencies import PartsDep, Reader, ReadSession
from service.http.etag import ETagRoute
from service.http.schemas import (
    ClassList,
    Cursor,
    Limit,
    Page,
    Text,
    decode_cursor,
    encode_cursor,
    with_example,
)
from service.models import head_answers
from service.models.head_answers import Wanted
from service.pool import items
from service.projects import projects
from service.store import class_sets

router = APIRouter(prefix="/projects/{project_id}/rounds", tags=["progress"], route_class=ETagRoute)


class AnsweredItem(ItemAnswer):
    """An item that a head was measured on, and what the head took it for without having seen its label."""

    model_config = with_example(
        EXAMPLE | {"measured_class": "coat", "answered_class": "shirt", "answered_probability": 0.83}
    )

    measured_class: str | None = Field(description="that it had when the head was measured")
    measured_classes: ClassList
    answered_class: str | None
    answered_classes: ClassList
    answered_probability: float = Field(
        description="of the answered class; of several, of the answer about the class that was asked for, else of all"
    )


@router.get("/{number}/answers")
def list_answers(
    project_id: str,
    number: Annotated[int, Path(ge=1, le=2**53)],
    session: ReadSession,
    caller: Reader,
    parts: PartsDep,
    class_name: Annotated[
        Text | None, Query(alias="class", max_length=200, description="that the items have")
    ] = None,
    answered_class: Annotated[
        Text | None, Query(max_length=200, description="that the head took them for")
    ] = None,
    not_class: Annotated[Text | None, Query(max_length=200, description="that the items do not have")] = None,
    not_answered_class: Annotated[
        Text | None, Query(max_length=200, description="that the head did not take them for")
    ] = None,
    cursor: Cursor = None,
    limit: Limit = 100,
) -> Page[AnsweredItem]:
    """The items that the round's head was measured on: with both classes those of one cell of the confusion matrix.
    Where an item has several classes, `class=cat&not_answered_class=cat` are the cats that the head missed.
    What the head was surest of comes first."""
    project = projects.find(session, project_id, caller.project_id)
    (start,) = decode_cursor(cursor, int) or (0,)
    wanted = Wanted(class_name, answered_class, not_class, not_answered_class)
    found = head_answers.of_round(session, project, parts.artifacts, number, wanted)
    end = max(0, start) + limit
    by_item = {answer.item_id: answer for answer in found[max(0, start) : end]}
    listed = items.listed_each(session, project, list(by_item))
    return Page[AnsweredItem](
        items=[
            AnsweredItem.of(
                each,
                project,
                parts,
                measured_class=class_sets.alone(by_item[each.item.id].class_name),
                measured_classes=class_sets.several(by_item[each.item.id].class_name),
                answered_class=class_sets.alone(by_item[each.item.id].predicted_class),
                answered_classes=class_sets.several(by_item[each.item.id].predicted_class),
                answered_probability=by_item[each.item.id].probability,
            )
            for each in listed
        ],
        next_cursor=encode_cursor(end) if end < len(found) else None,
    )

"""The items behind a round's confusion matrix."""

from typing import Annotated

from fastapi import APIRouter, Path, Query
from pydantic import Field

from service.api.items import EXAMPLE, ItemAnswer
from service.http.dependencies import PartsDep, Reader, ReadSession
from service.http.etag import ETagRoute
from service.http.schemas import Cursor, Limit, Page, Text, decode_cursor, encode_cursor, with_example
from service.models import head_answers
from service.pool import items
from service.projects import projects

router = APIRouter(prefix="/projects/{project_id}/rounds", tags=["progress"], route_class=ETagRoute)


class AnsweredItem(ItemAnswer):
    """An item that a head was measured on, and what the head took it for without having seen its label."""

    model_config = with_example(
        EXAMPLE | {"measured_class": "coat", "answered_class": "shirt", "answered_probability": 0.83}
    )

    measured_class: str = Field(description="that it had when the head was measured")
    answered_class: str
    answered_probability: float


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
    cursor: Cursor = None,
    limit: Limit = 100,
) -> Page[AnsweredItem]:
    """The items that the round's head was measured on: with both classes those of one cell of the confusion matrix.
    What the head was surest of comes first."""
    project = projects.find(session, project_id, caller.project_id)
    (start,) = decode_cursor(cursor, int) or (0,)
    found = head_answers.of_round(
        session, project, parts.artifacts, number, class_name=class_name, predicted_class=answered_class
    )
    end = max(0, start) + limit
    by_item = {answer.item_id: answer for answer in found[max(0, start) : end]}
    listed = items.listed_each(session, project, list(by_item))
    return Page[AnsweredItem](
        items=[
            AnsweredItem.of(
                each,
                project,
                parts,
                measured_class=by_item[each.item.id].class_name,
                answered_class=by_item[each.item.id].predicted_class,
                answered_probability=by_item[each.item.id].probability,
            )
            for each in listed
        ],
        next_cursor=encode_cursor(end) if end < len(found) else None,
    )

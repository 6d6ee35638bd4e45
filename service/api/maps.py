"""The map: items as points, near where they are alike."""

import gzip
import json
from typing import Annotated

import numpy as np
from fastapi import APIRouter, Query, Request, Response

from service.api.items import ItemAnswer
from service.api.jobs import JobAnswer, accepted
from service.errors import Invalid
from service.http.dependencies import PartsDep, Reader, ReadSession, WriteSession
from service.http.etag import ETagRoute
from service.http.schemas import Cursor, Limit, Page, Text, decode_cursor, encode_cursor
from service.pool import items, maps
from service.pool.maps import MapOfItems
from service.projects import projects
from service.store.ids import public_id

router = APIRouter(prefix="/projects/{project_id}/map", tags=["items"], route_class=ETagRoute)

MEDIA_TYPE = "application/vnd.shortlist.map"
_ALIGNED = 8  # bytes: where columns begin, so that they can be used where they lie


@router.get("", response_class=Response, responses={200: {"content": {MEDIA_TYPE: {}}}})
def get_map(
    project_id: str,
    request: Request,
    session: ReadSession,
    caller: Reader,
    parts: PartsDep,
    class_name: Annotated[
        Text | None,
        Query(
            alias="class",
            max_length=200,
            description="only whether items have this class, as is told where an item may have several",
        ),
    ] = None,
) -> Response:
    """Each item's place, its class, guess, doubt, pretext loss, arm and round, as columns of numbers.

    Up to 200,000 items. The length of a header (4 bytes, little-endian), the header as JSON, then the columns that it
    names, one after the other, each from a multiple of 8 bytes on.
    """
    project = projects.find(session, project_id, caller.project_id)
    body = _packed(maps.read(session, project, parts.artifacts, class_name))
    headers = {"Vary": "Accept-Encoding"}
    if "gzip" in request.headers.get("accept-encoding", ""):
        body, headers["Content-Encoding"] = gzip.compress(body, compresslevel=1, mtime=0), "gzip"
    return Response(body, media_type=MEDIA_TYPE, headers=headers)


def _corners(outline: str) -> list[float]:
    try:
        return [float(part) for part in outline.split(",")]
    except ValueError:
        raise Invalid(field="outline", message="give numbers x,y,x,y,…, each from 0 to 65535.") from None


def _packed(found: MapOfItems) -> bytes:
    arrays = {name: np.ascontiguousarray(array) for name, array in found.columns.items()}
    header = json.dumps(
        {
            "items": len(arrays["item"]),
            "score_run": public_id("s", found.score_run),
            "head": found.head,
            "classes": found.names,
            "arms": maps.ARMS,
            "states": maps.STATES,
            "columns": [{"name": name, "type": array.dtype.name} for name, array in arrays.items()],
        }
    ).encode()
    header += b" " * (-(4 + len(header)) % _ALIGNED)
    body = [len(header).to_bytes(4, "little"), header]
    for array in arrays.values():
        data = array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
        body += [data, b"\0" * (-len(data) % _ALIGNED)]
    return b"".join(body)


@router.get("/items")
def list_items_inside(
    project_id: str,
    session: ReadSession,
    caller: Reader,
    parts: PartsDep,
    outline: Annotated[
        Text, Query(max_length=4_000, description="x,y,x,y,… of its corners, each from 0 to 65535")
    ],
    cursor: Cursor = None,
    limit: Limit = 100,
) -> Page[ItemAnswer]:
    """The items within an outline drawn on the map, in the order they were imported."""
    project = projects.find(session, project_id, caller.project_id)
    (after,) = decode_cursor(cursor, int) or (0,)
    numbers = maps.inside(session, project, parts.artifacts, _corners(outline))
    numbers = numbers[np.searchsorted(numbers, after, side="right") :]
    found = items.listed_each(session, project, numbers[:limit].tolist())
    return Page[ItemAnswer](
        items=[ItemAnswer.of(listed, project, parts) for listed in found],
        next_cursor=None if len(numbers) <= limit else encode_cursor(int(numbers[limit - 1])),
    )


@router.post("", status_code=202)
def draw_map(
    project_id: str, session: WriteSession, caller: Reader, parts: PartsDep, response: Response
) -> JobAnswer:
    """Draw the map of the newest score run, where there is none yet. It is drawn for whoever asks and not by itself, as
    on a small machine labelers would wait for their next ranking meanwhile."""
    project = projects.find(session, project_id, caller.project_id)
    return accepted(maps.draw(session, project, parts.artifacts), response)

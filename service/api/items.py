from datetime import datetime
from typing import Annotated, Any, Self

from fastapi import APIRouter, Query, Request, Response
from pydantic import Field
from sqlalchemy.orm import Session

from service.api.item_content import CONTENT_EXAMPLE, IMAGE_URL_EXAMPLE, ItemContent, image_url
from service.errors import NoPreview
from service.http.dependencies import ItemScope, Parts, PartsDep, Reader, ReadSession
from service.http.etag import ETagRoute
from service.http.ranges import ranged
from service.http.schemas import Answer, ClassList, Cursor, Limit, Page, Text, decode_cursor, with_example
from service.pool import items, previews
from service.pool.items import Filters, ListedItem, Sort, Split, State
from service.projects import projects
from service.store import class_sets
from service.store.ids import public_id
from service.store.tables import Item, Label, Project

router = APIRouter(prefix="/projects/{project_id}/items", tags=["items"], route_class=ETagRoute)

EXAMPLE = {
    "id": "i_2k",
    "key": "shirts/0012.png",
    "uri": "/data/shirts/0012.png",
    "split": "pool",
    "state": "done",
    "class": "coat",
    "pretext_loss": 1.31,
    "pretext_loss_percentile": 97.2,
    "image_url": IMAGE_URL_EXAMPLE,
    "content": CONTENT_EXAMPLE,
    "width": 640,
    "height": 480,
    "facts": {"width": 640, "height": 480},
}


_PART: dict[int | str, dict[str, Any]] = {206: {"description": "the part that the header `Range` asks for"}}
_IMAGE: dict[int | str, dict[str, Any]] = {200: {"content": {"image/*": {}}}, **_PART}
_CONTENT: dict[int | str, dict[str, Any]] = {200: {"content": {"*/*": {}}}, **_PART}


class ItemAnswer(Answer):
    """One thing that can be labeled."""

    model_config = with_example(EXAMPLE)

    id: str
    key: str
    uri: str
    image_url: str | None = Field(description="null where items are no images")
    content: ItemContent
    split: Split
    state: State
    quarantine_reason: str | None
    replaces: str | None = Field(description="the item whose key it took, as the key has other bytes now")
    gold: bool = Field(description="its class is known for certain; mixed in to see how well annotators do")
    class_name: str | None = Field(
        alias="class", description="given with a test item, else decided by labels"
    )
    classes: ClassList
    pretext_loss: float | None
    pretext_loss_percentile: float | None
    pretext_loss_spread: float | None = Field(
        description="its standard deviation over the views that were scored; null where the task has one view"
    )
    duplicate_of: str | None = Field(
        description="the item that stands for it in rankings: a duplicate or near-duplicate"
    )
    barred_probability: float | None = Field(
        description="of being broken, judging by the annotators' rejects, where that bars it from the ranking"
    )
    rank: int | None = Field(description="in the newest ranking, where it waits there to be labeled")
    predicted_class: str | None = Field(
        description="by the head, when the ranking was made; null for items that do not stand in it"
    )
    predicted_classes: ClassList
    predicted_probability: float | None
    width: int | None = Field(description="of an image, in pixels")
    height: int | None
    facts: dict[str, Any] | None = Field(description="told by looking at the item when it was imported")
    meta: dict[str, Any] | None
    created_at: datetime

    @classmethod
    def of(cls, listed: ListedItem, project: Project, parts: Parts, **more: Any) -> Self:
        item = listed.item
        links = parts.links.of(project.id, item.id)
        return cls(
            id=public_id("i", item.id),
            key=item.key,
            uri=item.uri,
            image_url=image_url(links, project.modality),
            content=ItemContent.of(parts, links, project, item.id, item.uri, item.content_hash),
            split=item.split,
            state=item.state,
            quarantine_reason=item.quarantine_reason,
            replaces=None if item.replaces_id is None else public_id("i", item.replaces_id),
            gold=item.gold,
            class_name=class_sets.alone(item.class_name),
            classes=class_sets.several(item.class_name),
            pretext_loss=listed.pretext_loss,
            pretext_loss_percentile=listed.percentile,
            pretext_loss_spread=listed.spread,
            duplicate_of=None if listed.duplicate_of_id is None else public_id("i", listed.duplicate_of_id),
            barred_probability=listed.broken_probability,
            rank=listed.rank,
            predicted_class=class_sets.alone(listed.predicted_class),
            predicted_classes=class_sets.several(listed.predicted_class),
            predicted_probability=listed.predicted_probability,
            width=item.width,
            height=item.height,
            facts=item.facts,
            meta=item.meta,
            created_at=item.created_at,
            **more,
        )


class ItemLabel(Answer):
    annotator: str
    class_name: str | None = Field(alias="class")
    classes: ClassList
    said: str | list[str] | None = Field(
        description="the class as the annotator named it, where it has another name since"
    )
    skip: str | None
    revision: int
    current: bool
    used: bool
    outcome: str
    arm: str = Field(
        description="why it was served: selected, control, queued, gold; imported: nobody was asked"
    )
    ranking: str | None = Field(description="that it was served from")
    round: int
    annotation: dict[str, Any] | list[Any] | None = Field(description="as its tool sent it")
    created_at: datetime

    @classmethod
    def of(cls, label: Label) -> Self:
        return cls(
            annotator=label.annotator,
            class_name=class_sets.alone(label.class_name),
            classes=class_sets.several(label.class_name),
            said=class_sets.several(label.said) or label.said,
            skip=label.skip,
            revision=label.revision,
            current=label.current,
            used=label.used,
            outcome=label.outcome,
            arm=label.arm,
            ranking=public_id("r", label.ranking_id) if label.ranking_id is not None else None,
            round=label.round_number,
            annotation=label.annotation,
            created_at=label.created_at,
        )


class ItemWithLabels(ItemAnswer):
    """One item, with all its labels."""

    model_config = with_example(EXAMPLE | {"labels": [{"annotator": "ann", "class": "coat", "revision": 1}]})

    labels: list[ItemLabel]


@router.get("")
def list_items(
    project_id: str,
    session: ReadSession,
    caller: Reader,
    parts: PartsDep,
    state: State | None = None,
    split: Split | None = None,
    class_name: Annotated[Text | None, Query(alias="class", max_length=200)] = None,
    pretext_loss_percentile_min: Annotated[float | None, Query(ge=0, le=100)] = None,
    pretext_loss_percentile_max: Annotated[float | None, Query(ge=0, le=100)] = None,
    duplicate_of: Annotated[
        Text | None, Query(max_length=100, description="an item's id: its duplicates")
    ] = None,
    barred: Annotated[bool | None, Query(description="left out of the ranking as probably broken")] = None,
    gold: Annotated[bool | None, Query(description="whose class is known for certain")] = None,
    predicted_class: Annotated[
        Text | None, Query(max_length=200, description="by the head, of items in the newest ranking")
    ] = None,
    duplicates: Annotated[bool | None, Query(description="others stand for them in rankings")] = None,
    disagreed: Annotated[bool | None, Query(description="annotators gave it several classes")] = None,
    sort: Sort = "key",
    cursor: Cursor = None,
    limit: Limit = 100,
) -> Page[ItemAnswer]:
    """Items by state, split, class or pretext loss; `-` sorts down. By `rank` and by `predicted_probability`, least
    sure first, come those of the newest ranking. `quarantined` are bad files, with the reason;
    `changed` those whose key has other bytes now, `missing` those that an import did not find again.

    `duplicate_of=<item>` lists what that item stands for; `barred=true` what the reject head keeps out of the
    ranking, with the probability. Both stay in the pool: they are served at random, or when nothing else is left.
    """
    project = projects.find(session, project_id, caller.project_id)
    found = items.page(
        session,
        project,
        Filters(
            state,
            split,
            class_name,
            pretext_loss_percentile_min,
            pretext_loss_percentile_max,
            duplicate_of,
            barred,
            gold,
            predicted_class,
            duplicates,
            disagreed,
        ),
        sort=sort,
        after=decode_cursor(cursor, _SORTED_BY.get(sort, str), int),
        limit=limit,
    )
    return Page.of(
        found,
        limit,
        lambda listed: ItemAnswer.of(listed, project, parts),
        lambda last: (_value(last, sort), last.item.id),
    )


_SORTED_BY: dict[Sort, type] = {
    "pretext_loss": float,
    "-pretext_loss": float,
    "rank": int,
    "predicted_probability": float,
}


def _value(listed: ListedItem, sort: Sort) -> str | float | None:
    """The values that a list is sorted by."""
    name = sort.removeprefix("-")
    value: str | float | None = listed.item.key if name == "key" else getattr(listed, name)
    return value


@router.get("/{item_id}")
def get_item(
    project_id: str, item_id: str, session: ReadSession, caller: Reader, parts: PartsDep
) -> ItemWithLabels:
    """One item, with its labels."""
    project = projects.find(session, project_id, caller.project_id)
    listed = items.listed(session, project, item_id)
    found = [ItemLabel.of(label) for label in items.labels_of(session, listed.item)]
    return ItemWithLabels.of(listed, project, parts, labels=found)


@router.get("/{item_id}/image", response_class=Response, responses=_IMAGE)
def get_image(
    project_id: str,
    item_id: str,
    request: Request,
    session: ReadSession,
    parts: PartsDep,
    only: ItemScope,
    size: Annotated[int | None, Query(ge=16, le=4096, description="longest side, in pixels")] = None,
) -> Response:
    """The image, with a key or by a signed `image_url`; `size` makes it a thumbnail, never enlarged."""
    project = projects.find(session, project_id, only)
    item = items.find(session, project, item_id)
    if previews.content_of(project.modality).name != "image":
        raise NoPreview(id=item_id, reason=f"it is no image but a {project.modality}; see `content`.")
    return _shown(session, project, item, request, parts, size)


@router.get("/{item_id}/content", response_class=Response, responses=_CONTENT)
def get_content(
    project_id: str,
    item_id: str,
    request: Request,
    session: ReadSession,
    parts: PartsDep,
    only: ItemScope,
    size: Annotated[
        int | None, Query(ge=16, le=4096, description="longest side, in pixels, where there are such")
    ] = None,
    part: Annotated[int | None, Query(ge=1, le=2, description="one half of a pair")] = None,
) -> Response:
    """The item as a browser may show it, with a key or by a signed link (`content.url`, `content.preview_url`). It is
    never run: it is sent with `nosniff` and in a sandbox. Of a recording, `size` gives a picture of its sound; without
    it, players ask for parts of it by `Range`."""
    project = projects.find(session, project_id, only)
    return _shown(session, project, items.find(session, project, item_id), request, parts, size, part)


def _shown(
    session: Session,
    project: Project,
    item: Item,
    request: Request,
    parts: Parts,
    size: int | None,
    part: int | None = None,
) -> Response:
    settings = previews.settings_for(session, project, item)
    headers = {
        "ETag": previews.etag(parts.item_bytes, item, size, settings, part),
        "Cache-Control": f"private, max-age={parts.settings.content_link_ttl_s}",
        **previews.SAFE,
    }
    if request.headers.get("if-none-match") == headers["ETag"]:
        return Response(status_code=304, headers=headers)
    content = previews.content_of(project.modality)
    shown = previews.preview(parts.item_bytes, item, content, parts.limits, size, settings, part)
    return ranged(request, shown.data, shown.media_type, headers)

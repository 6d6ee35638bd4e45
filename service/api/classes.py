from datetime import datetime
from typing import Annotated, Literal, Self

from fastapi import APIRouter, Header, Query, Response
from pydantic import Field

from service.http.dependencies import Admin, Reader, ReadSession, TurnSession
from service.http.etag import ETagRoute
from service.http.schemas import Answer, Body, Cursor, Limit, Name, Page, decode_cursor, with_example
from service.projects import class_changes, projects
from service.projects.class_changes import Changed, Effects, Kind, Use, Wanted
from service.store.ids import public_id
from service.store.tables import ClassChange

router = APIRouter(prefix="/projects/{project_id}/classes", tags=["projects"], route_class=ETagRoute)

_EFFECTS = {
    "labels": 120,
    "earlier_labels": 4,
    "items": 118,
    "test_items": 0,
    "gold_items": 3,
    "split_items": 0,
}


class EffectsAnswer(Answer):
    """Counts of what has the classes that a change concerns."""

    model_config = with_example(_EFFECTS)

    labels: int = Field(description="current ones")
    earlier_labels: int = Field(description="replaced, withdrawn or stale ones")
    items: int = Field(description="of the pool")
    test_items: int
    gold_items: int = Field(description="of the items of the pool")
    split_items: int = Field(
        description="open items with labels of several of the classes that are merged: where these agree, they are done"
    )

    @classmethod
    def of(cls, effects: Effects) -> Self:
        return cls.model_validate(effects, from_attributes=True)


class ClassAnswer(EffectsAnswer):
    """A class, the names it had before, and what has it."""

    model_config = with_example({"name": "cat", "aliases": ["kitten"]} | _EFFECTS)

    name: str
    aliases: list[str] = Field(description="names of classes that became this one; labels may still use them")

    @classmethod
    def of_use(cls, use: Use) -> Self:
        return cls(name=use.name, aliases=use.aliases, **EffectsAnswer.of(use.effects).model_dump())


class ClassChangeIn(Body):
    """A change of the project's classes."""

    model_config = with_example({"kind": "merge", "classes": ["kitten", "tomcat"], "to": "cat"})

    kind: Kind = Field(
        description="`rename` one class; `merge` several into one, new or there already; `add` new ones; `remove` some "
        "that no current label, gold item or test item has"
    )
    classes: list[Name] = Field(min_length=1, max_length=1000)
    to: Name | None = Field(None, description="the name that what is renamed or merged gets")


class ClassChangeAnswer(Answer):
    """A change as it was made, or as a dry run says that it would be."""

    model_config = with_example(
        {
            "id": "v_3",
            "kind": "merge",
            "classes": ["kitten", "tomcat"],
            "to": "cat",
            "effects": _EFFECTS,
            "says": ["“kitten” and “tomcat” will be called “cat”, in 120 labels, 118 items of the pool. …"],
            "classes_after": ["cat", "dog"],
            "by": "lead",
            "created_at": "2026-01-01T12:00:00Z",
            "job": "j_8",
        }
    )

    id: str | None = Field(
        description="null: nothing was changed, by a dry run or as there was nothing to change"
    )
    kind: Kind
    classes: list[str]
    to: str | None
    effects: EffectsAnswer
    says: list[str] = Field(description="the effects in sentences")
    classes_after: list[str]
    job: str | None = Field(description="the training of a head that follows")
    created_at: datetime | None

    @classmethod
    def of(cls, changed: Changed) -> Self:
        record = changed.record
        return cls(
            id=public_id("v", record.id) if record is not None else None,
            kind=changed.wanted.kind,
            classes=list(changed.wanted.classes),
            to=changed.wanted.to,
            effects=EffectsAnswer.of(changed.effects),
            says=changed.says,
            classes_after=changed.after,
            job=public_id("j", changed.job_id) if changed.job_id is not None else None,
            created_at=record.created_at if record is not None else None,
        )


class PastClassChange(Answer):
    """A change that was made, and what it concerned then."""

    model_config = with_example(
        {
            "id": "v_3",
            "kind": "merge",
            "classes": ["kitten", "tomcat"],
            "to": "cat",
            "effects": _EFFECTS,
            "by": "lead",
            "created_at": "2026-01-01T12:00:00Z",
        }
    )

    id: str
    kind: Literal["rename", "merge", "add", "remove"]
    classes: list[str]
    to: str | None
    effects: EffectsAnswer
    by: str | None = Field(description="the name of the key that made it; null: the command line")
    created_at: datetime

    @classmethod
    def of(cls, row: tuple[ClassChange, str | None]) -> Self:
        record, by = row
        return cls(
            id=public_id("v", record.id),
            kind=record.kind,
            classes=record.classes,
            to=record.became,
            effects=EffectsAnswer.of(Effects(**record.effects)),
            by=by,
            created_at=record.created_at,
        )


@router.get("")
def list_classes(
    project_id: str, session: ReadSession, caller: Reader, cursor: Cursor = None, limit: Limit = 1000
) -> Page[ClassAnswer]:
    """The project's classes in their order, each with what has it."""
    project = projects.find(session, project_id, caller.project_id)
    (after,) = decode_cursor(cursor, int) or (0,)
    found = list(enumerate(class_changes.uses(session, project), 1))[max(0, after) :][:limit]
    return Page.of(found, limit, lambda one: ClassAnswer.of_use(one[1]), lambda last: (last[0],))


@router.post("/changes")
def change_classes(
    project_id: str,
    body: ClassChangeIn,
    session: TurnSession,
    caller: Admin,
    response: Response,
    dry_run: Annotated[bool, Query(description="say what it would do, and do nothing")] = False,
    if_match: Annotated[
        str | None, Header(description="the project's ETag as you read it; stale is 412")
    ] = None,
) -> ClassChangeAnswer:
    """Rename, merge, add or remove classes. Labels, items, gold items, the test split, suspects and the settings that
    name a class follow at once; old names stay good for labels and files that still use them."""
    project = projects.find(session, project_id, caller.project_id, locked=True)
    wanted = Wanted(body.kind, tuple(body.classes), body.to)
    changed = class_changes.change(
        session, project, wanted, by=caller.key_id, if_match=if_match, dry_run=dry_run
    )
    response.headers["ETag"] = projects.etag(project)
    return ClassChangeAnswer.of(changed)


@router.get("/changes")
def list_class_changes(
    project_id: str, session: ReadSession, caller: Reader, cursor: Cursor = None, limit: Limit = 100
) -> Page[PastClassChange]:
    """The changes of the project's classes, newest first: what changed, and who did it."""
    project = projects.find(session, project_id, caller.project_id)
    (before,) = decode_cursor(cursor, int) or (None,)
    found = class_changes.page(session, project, before, limit)
    return Page.of(found, limit, PastClassChange.of, lambda last: (last[0].id,))

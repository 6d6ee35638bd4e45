from datetime import datetime
from typing import Self

from fastapi import APIRouter, Response
from pydantic import Field

from service.access import keys
from service.access.keys import Role
from service.errors import BoundToProject
from service.http.dependencies import Admin, PartsDep, ReadSession, WriteSession
from service.http.etag import ETagRoute
from service.http.schemas import Answer, Body, Cursor, Limit, Name, Page, Text, decode_cursor, with_example
from service.projects import projects
from service.store.ids import public_id
from service.store.tables import Key, utc_now

router = APIRouter(prefix="/keys", tags=["keys"], route_class=ETagRoute)


class NewKey(Body):
    """Roles: `admin` may do all; `annotator` next-batch, labels and images; `reader` may GET."""

    model_config = with_example({"name": "labeling tool", "role": "annotator", "project": "p_1"})

    name: Name
    role: Role
    project: Text | None = Field(None, description="the only project it is good for")
    annotator: Name | None = Field(None, description="the only annotator it may act for")


class KeyAnswer(Answer):
    """A key without the key itself."""

    model_config = with_example({"id": "k_2", "name": "labeling tool", "role": "annotator", "project": "p_1"})

    id: str
    name: str
    role: Role
    project: str | None
    annotator: str | None
    created_at: datetime
    last_used_at: datetime | None = Field(description="to the minute")
    revoked_at: datetime | None

    @classmethod
    def of(cls, row: Key, **more: str) -> Self:
        return cls(
            id=public_id("k", row.id),
            name=row.name,
            role=row.role,
            project=public_id("p", row.project_id) if row.project_id is not None else None,
            annotator=row.annotator,
            created_at=row.created_at,
            last_used_at=row.last_used_at,
            revoked_at=row.revoked_at,
            **more,
        )


class CreatedKey(KeyAnswer):
    """`key` is shown this once; only a hash of it is stored."""

    model_config = with_example(
        {"id": "k_2", "name": "labeling tool", "role": "annotator", "project": "p_1", "key": "sl_…"}
    )

    key: str


@router.post("", status_code=201)
def create_key(
    body: NewKey, session: WriteSession, caller: Admin, parts: PartsDep, response: Response
) -> CreatedKey:
    """Make a key. A key that is bound to a project makes keys for that project only."""
    project = projects.find(session, body.project, caller.project_id) if body.project is not None else None
    if project is None and caller.project_id is not None:
        raise BoundToProject
    key, token = keys.create(
        session,
        parts.secret,
        name=body.name,
        role=body.role,
        project_id=project.id if project else None,
        annotator=body.annotator,
    )
    response.headers["Cache-Control"] = "no-store"
    return CreatedKey.of(key, key=token)


@router.get("")
def list_keys(
    session: ReadSession, caller: Admin, cursor: Cursor = None, limit: Limit = 100
) -> Page[KeyAnswer]:
    """Keys, newest first, with revoked ones; the keys themselves are not stored."""
    (before,) = decode_cursor(cursor, int) or (None,)
    found = keys.newest_first(session, caller.project_id, before, limit)
    return Page.of(found, limit, KeyAnswer.of, lambda last: (last.id,))


@router.delete("/{key_id}")
def revoke_key(key_id: str, session: WriteSession, caller: Admin) -> KeyAnswer:
    """Revoke a key, at once."""
    key = keys.find(session, key_id, caller.project_id)
    keys.revoke(session, key, utc_now())
    return KeyAnswer.of(key)

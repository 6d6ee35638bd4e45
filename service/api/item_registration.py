"""Direct registration of items: as JSON, or streamed as one object a line."""

import asyncio
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import Annotated, Any

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from pydantic import Field, ValidationError, ValidationInfo, field_validator
from sqlalchemy.orm import Session

from service.content import contents
from service.content.contract import Content
from service.content.pair import EITHER, Kinds, Pairs, inline_bytes, is_inline, is_place, names_of
from service.errors import BadItem, Invalid, NotJson
from service.http.dependencies import Admin, Parts, PartsDep
from service.http.idempotent_route import OnceRoute
from service.http.middleware import NDJSON
from service.http.ndjson import chunks
from service.http.schemas import CLASSES, Answer, Body, Text, with_example
from service.pool import arrivals, inline_texts, items
from service.pool.arrivals import Arrived
from service.pool.items import NewItem, Refusal, Split
from service.projects import projects
from service.store import modalities, planner_stats
from service.store.ids import public_id
from service.store.session import read_session
from service.store.tables import Project

router = APIRouter(prefix="/projects/{project_id}/items", tags=["items"], route_class=OnceRoute)

_MOST_ITEMS = 10_000  # in a JSON body
_CHUNK_ITEMS = 5_000  # of a stream, in one transaction
_REFUSED_TOLD = 1_000
_HALVES = ("image", "text", "audio", "video", "graph", *EITHER)
_HALF = "of a pair: where it is, or a `data:` URL with its bytes"
_WORDS = "of a pair of two of one kind, as its kind is given"


class ItemIn(Body):
    key: Annotated[Text, Field(min_length=1, max_length=1000)]
    text: str | None = Field(
        None, description="the item itself, in the place of `uri`, where items are texts; of a pair its text"
    )
    image: str | None = Field(None, min_length=1, description=_HALF)
    audio: str | None = Field(None, min_length=1, description=_HALF)
    video: str | None = Field(None, min_length=1, description=_HALF)
    graph: str | None = Field(
        None, min_length=1, description="of a pair: the graph itself, as JSON or GraphML"
    )
    first: str | None = Field(None, min_length=1, description=_WORDS)
    second: str | None = Field(None, min_length=1, description=_WORDS)
    uri: Annotated[Text, Field(min_length=1, max_length=4000)] | None = Field(
        None, description="where its bytes are: a path or URL", validate_default=True
    )
    split: Split = "pool"
    class_name: Text | None = Field(None, alias="class", max_length=200)
    classes: list[Text] | None = Field(None, max_length=projects.MOST_CLASSES, description=CLASSES)
    meta: dict[str, Any] | None = None

    @field_validator("uri")
    @classmethod
    def _one_of_both(cls, uri: str | None, info: ValidationInfo) -> str | None:
        if "text" in info.data:
            given = [name for name in _HALVES if info.data.get(name) is not None]
            if not given and uri is None:
                raise ValueError("an item needs its `uri`, or its `text`")
            if given and uri is not None:
                raise ValueError(f"an item has a `uri` or a `{given[0]}`, not both")
        return uri

    @property
    def given(self) -> dict[str, str]:
        """The halves, or the text, that came in the place of a `uri`, by field."""
        found = {name: getattr(self, name) for name in _HALVES}
        return {name: half for name, half in found.items() if half is not None}


class ItemsIn(Body):
    items: list[ItemIn] = Field(max_length=_MOST_ITEMS)


class RefusedItem(Answer):
    line: int = Field(description="counts from 1")
    code: Refusal


class ItemsAnswer(Answer):
    """`known` were there already, by their key; `changed` had other bytes under their key. `refused` tells the first
    1,000."""

    model_config = with_example(
        {
            "added": 2,
            "known": 1,
            "changed": 0,
            "refused": [{"line": 4, "code": "uri_not_allowed"}],
            "refused_count": 1,
        }
    )

    added: int
    known: int
    changed: int = Field(
        description="new items under keys that had other bytes: the items before are put aside with their labels"
    )
    refused: list[RefusedItem]
    refused_count: int


@dataclass
class _Registration:
    """A call's counts; each chunk is a transaction, so a stream that breaks off can simply be sent again."""

    parts: Parts
    project: Project
    line: int = 0
    added: int = 0
    known: int = 0
    changed: int = 0
    refused_count: int = 0
    refused: list[RefusedItem] = field(default_factory=list)

    def read(self, numbered: list[tuple[int, ItemIn | None]]) -> list[NewItem]:
        """(line, item) pairs, None for a line that is no item -> what may be stored; the others are noted."""
        good = []
        for line, entry in numbered:
            given, code = self._looked_at(entry) if entry else (None, "malformed")
            if code is not None:
                self.refused_count += 1
                if len(self.refused) < _REFUSED_TOLD:
                    self.refused.append(RefusedItem(line=line, code=code))
            elif given:
                good.append(given)
        return good

    def _looked_at(self, entry: ItemIn) -> tuple[NewItem, Refusal | None]:
        given = NewItem(
            entry.key, entry.uri or "", entry.split, entry.class_name, entry.classes, entry.meta, entry.text
        )
        content = self.content
        if isinstance(content, Pairs) and entry.uri is None:
            if self.fault_of_pair(entry, content.kinds) is not None:
                return given, "half_missing"
            first, second = (entry.given[name] for name in names_of(content.kinds))
            given = replace(given, text=None, halves=(first, second), kinds=content.kinds)
            return given, self._fault_of_halves(content, given) or items.refusal(
                self.project, self.parts.item_bytes, given
            )
        if entry.given.keys() - {"text"}:
            return given, "pair_not_taken"
        code = items.refusal(self.project, self.parts.item_bytes, given)
        if code is not None or entry.text is None:
            return given, code
        content = inline_texts.content_for(self.project)
        if content is None:
            return given, "text_not_taken"
        data = entry.text.encode()
        if len(data) > self.parts.limits.max_text_bytes:
            return given, "text_too_large"
        try:
            facts = content.inspect(data, self.parts.limits)
        except BadItem:
            return given, "text_unusable"
        return replace(given, facts=facts, content_hash=blake2b(data, digest_size=16).hexdigest()), None

    @property
    def content(self) -> Content | None:
        return modalities.content_of(self.project)

    def fault_of_pair(self, entry: ItemIn, kinds: Kinds) -> tuple[str, str] | None:
        """The field that is wrong, and what is to be done; None where both halves are there, and nothing else."""
        names = names_of(kinds)
        both = " and ".join(f"`{name}`" for name in names)
        for name in names:
            if not entry.given.get(name, "").strip():
                return name, f"half of the pair is missing: this project's items have {both} each."
        other = next((name for name in entry.given if name not in names), None)
        return (other, f"this project's items are pairs, of {both}.") if other is not None else None

    def _fault_of_halves(self, content: Pairs, given: NewItem) -> Refusal | None:
        """The fault of a half that came with the call; whoever reads the others says what is wrong with them."""
        most = self.parts.limits.max_text_bytes
        for kind, half in zip(given.kinds, given.halves or (), strict=True):
            if is_place(kind) and not is_inline(half):
                continue
            try:
                data = inline_bytes(half) if is_place(kind) else half.encode()
                if len(data) > most:
                    return "half_too_large"
                contents()[kind].inspect(data, self.parts.limits)
            except BadItem:
                return "half_unusable"
        return None

    def check_inline(self, entries: list[ItemIn]) -> None:
        """Raises `Invalid` where texts or halves come for a project that takes none, or one half of a pair."""
        content = self.content
        for index, entry in enumerate(entries):
            fault = None
            if isinstance(content, Pairs):
                fault = self.fault_of_pair(entry, content.kinds) if entry.uri is None else None
            elif others := [name for name in entry.given if name != "text"]:
                fault = others[0], 'only pairs have such: make a project with `"modality": "pair"`.'
            if fault is not None:
                raise Invalid(field=f"items[{index}].{fault[0]}", message=fault[1])
        if isinstance(content, Pairs) or inline_texts.content_for(self.project) is not None:
            return
        for index, entry in enumerate(entries):
            if entry.text is not None:
                kind = f"{self.project.modality}s"
                message = f"this project's items are {kind}: send a `uri`, or make a project whose `modality` is text."
                raise Invalid(field=f"items[{index}].text", message=message)

    def _arrived(self, good: list[NewItem]) -> Arrived:
        """Texts are on the disk before the database knows of them: what was answered 2xx is never lost."""
        with read_session(self.parts.engine) as session:
            known = arrivals.known_items(session, self.project, [entry.key for entry in good])
        arrived = arrivals.compare(self.parts.item_bytes, good, known)
        changed = [entry for entry, _, _ in arrived.changed]
        kept = iter(inline_texts.keep(self.parts.artifacts, self.project, [*arrived.new, *changed]))
        return Arrived(
            new=[next(kept) for _ in arrived.new],
            changed=[(next(kept), item, look) for _, item, look in arrived.changed],
            known=arrived.known,
        )

    async def store(self, good: list[NewItem]) -> None:
        arrived = await run_in_threadpool(self._arrived, good)

        def register(session: Session) -> tuple[int, int]:
            project = projects.find(session, public_id("p", self.project.id))  # it may be gone by now
            return arrivals.store(session, project, arrived)

        added, changed = await self.parts.write(register)
        self.added += added
        self.changed += changed
        self.known += len(good) - added - changed

    def read_lines(self, lines: list[bytes]) -> list[NewItem]:
        numbered = list(enumerate(lines, self.line + 1))
        self.line += len(lines)
        return self.read([(number, _parsed(line)) for number, line in numbered if line.strip()])

    async def finish(self) -> ItemsAnswer:
        if self.added >= planner_stats.MANY_ROWS:
            await self.parts.write(lambda session: planner_stats.refresh(session, "items"))
        return ItemsAnswer(
            added=self.added,
            known=self.known,
            changed=self.changed,
            refused=self.refused,
            refused_count=self.refused_count,
        )


_ITEM_EXAMPLE = {"key": "shirts/0012.png", "uri": "/data/shirts/0012.png"}
_BODY = {
    "required": True,
    "content": {
        "application/json": {
            "schema": {
                "type": "object",
                "required": ["items"],
                "additionalProperties": False,
                "properties": {
                    "items": {"type": "array", "maxItems": _MOST_ITEMS, "items": ItemIn.model_json_schema()}
                },
            },
            "example": {"items": [_ITEM_EXAMPLE]},
        },
        NDJSON: {
            "schema": {},
            "example": '{"key": "a", "uri": "/data/a.png"}\n{"key": "b", "text": "Well done."}\n'
            '{"key": "c", "image": "/data/c.png", "text": "A dog that sleeps"}\n',
        },
    },
}


@router.post("", openapi_extra={"requestBody": _BODY})
async def add_items(project_id: str, request: Request, caller: Admin, parts: PartsDep) -> ItemsAnswer:
    """Register items by key and place, or with their `text`: up to 10,000 as JSON, any number as NDJSON. Items of
    known keys stay as they are; where their bytes are others now, a new item gets the key. A pair has both its halves,
    each under its kind, as `image` and `text`, or as `first` and `second` where both are of one kind. Texts, and
    halves that come as `data:` URLs, are kept here for good, up to 1 MB each (SHORTLIST_MAX_TEXT_BYTES)."""

    def find() -> Project:
        with read_session(parts.engine) as session:
            project = projects.find(session, project_id, caller.project_id)
            projects.refuse_archived(project)
            return project

    registration = _Registration(parts, await run_in_threadpool(find))
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if kind == NDJSON:
        await _streamed(request, registration)
    elif kind == "application/json":
        body = _validated(await request.body())
        registration.check_inline(body.items)
        good = await run_in_threadpool(registration.read, list(enumerate(body.items, 1)))
        await registration.store(good)
    else:
        raise NotJson(expected=f"application/json` or `{NDJSON}")
    return await registration.finish()


async def _streamed(request: Request, registration: _Registration) -> None:
    """The next lines are read while the database stores those before them."""
    storing: asyncio.Task[None] | None = None
    try:
        # A character of a text may take six bytes: \u0416.
        line_bytes = 2**20 + 6 * registration.parts.limits.max_text_bytes
        async for lines in chunks(request, _CHUNK_ITEMS, line_bytes):
            good = await run_in_threadpool(registration.read_lines, lines)
            if storing is not None:
                await storing
            storing = asyncio.create_task(registration.store(good))
    finally:
        if storing is not None:
            await storing


def _validated(body: bytes) -> ItemsIn:
    try:
        return ItemsIn.model_validate_json(body)
    except ValidationError as error:
        errors = [{**each, "loc": ("body", *each["loc"])} for each in error.errors(include_context=False)]
        raise RequestValidationError(errors) from error


def _parsed(line: bytes) -> ItemIn | None:
    try:
        return ItemIn.model_validate_json(line)
    except ValidationError:
        return None

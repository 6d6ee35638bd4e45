"""An item for the browser: as it is, as a thumbnail, or as text."""

import mimetypes
from collections.abc import Mapping
from functools import lru_cache
from hashlib import blake2b
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from service.content import contents
from service.content.contract import Content, Limits, Preview
from service.content.image import bits_of
from service.content.pair import Pairs
from service.content.reader import ItemBytes
from service.errors import BadItem, NoPreview, SourceNotAllowed, SourceUnreadable
from service.store import modalities
from service.store.ids import public_id
from service.store.tables import Item, PretextModel, Project

TEXT_CHARACTERS = 20_000  # that answers carry at most
_FACTS = 512  # items of the pool whose facts decide what no model has decided yet
_SENT_AS_ANOTHER = frozenset({"image/tiff"})  # browsers do not show it
# No scripts, no forms, no plug-ins, nothing loaded: whatever the bytes are, a browser does not run them.
SAFE = {"Content-Security-Policy": "sandbox; default-src 'none'", "X-Content-Type-Options": "nosniff"}


def content_of(modality: str | None) -> Content:
    """Items of a project whose modality nobody has told were registered by place alone: they pass for images."""
    return contents()[modality or "image"]


def content_for(project: Project) -> Content:
    return modalities.content_of(project) or content_of(None)


def settings_for(session: Session, project: Project, item: Item) -> Mapping[str, Any]:
    """The settings that models of the pool see the item with: those of the newest one, else as it would choose them."""
    if not (item.facts or {}).get("bits"):
        return {}
    model = session.scalar(
        sa.select(PretextModel)
        .where(PretextModel.project_id == project.id, PretextModel.state == "ready")
        .order_by(PretextModel.version.desc())
        .limit(1)
    )
    if model is not None:
        return {"bits": (model.config.get("input") or {}).get("bits")}
    mine = sa.select(Item.facts).where(Item.project_id == project.id, Item.split == "pool")
    facts = session.scalars(mine.order_by(Item.shuffle).limit(_FACTS))
    return {"bits": bits_of(one for one in facts if one)}


def etag(
    item_bytes: ItemBytes, item: Item, size: int | None, settings: Mapping[str, Any], part: int | None = None
) -> str:
    """Changes with the bytes (by their hash, or, where nobody has read them yet, with the file's size and times), and
    with what is made of them.
    """
    made = f"{f':{settings}' if settings else ''}{f':{part}' if part else ''}"
    content = f"{item.content_hash or (item.uri, _stamp(item_bytes, item.uri))}:{size}{made}"
    return f'"{blake2b(content.encode(), digest_size=12).hexdigest()}"'


def _stamp(item_bytes: ItemBytes, uri: str) -> str | None:
    try:
        return item_bytes.stamp(uri)
    except SourceNotAllowed:  # whoever reads it says so
        return None


def preview(
    item_bytes: ItemBytes,
    item: Item,
    content: Content,
    limits: Limits,
    size: int | None,
    settings: Mapping[str, Any],
    part: int | None = None,
) -> Preview:
    """The whole item, or a smaller one; part: a half of a pair, 1 or 2. Raises `NoPreview`, also where its place holds
    other bytes by now.
    """
    if part is not None and not isinstance(content, Pairs):
        raise NoPreview(
            id=public_id("i", item.id), reason=f"`part` is for pairs, and it is of {content.name}s"
        )
    try:
        data = item_bytes.read(item.uri, item.content_hash)
        if part is not None and isinstance(content, Pairs):
            content, data = content.part(data, part)
        return content.preview(data, limits, size, settings)
    except (BadItem, SourceNotAllowed, SourceUnreadable) as error:
        raise NoPreview(id=public_id("i", item.id), reason=error) from error


def media_type(content: Content, uri: str) -> str | None:
    """The media type of the whole item, as far as its URI tells it: nothing is read."""
    if content.shown_as is not None:
        return content.shown_as
    _, dot, suffix = uri.rpartition(".")
    return _media_type_of(suffix) if dot else None


@lru_cache
def _media_type_of(suffix: str) -> str | None:
    guessed = mimetypes.guess_type(f"item.{suffix}", strict=False)[0]
    return None if guessed in _SENT_AS_ANOTHER else guessed


def texts(
    item_bytes: ItemBytes, content: Content, uri: str, content_hash: str | None, limits: Limits
) -> list[str | None]:
    """The text of an item, or of both halves of a pair; None where it is none, is too long or cannot be read. Other
    items are not read.
    """
    nothing: list[str | None] = [None, None] if isinstance(content, Pairs) else [None]
    if not content.has_text:
        return nothing
    try:
        data = item_bytes.read(uri, content_hash)
        found = content.texts(data, limits) if isinstance(content, Pairs) else (content.text(data, limits),)
    except (BadItem, SourceNotAllowed, SourceUnreadable):
        return nothing
    return [one if one is not None and len(one) <= TEXT_CHARACTERS else None for one in found]

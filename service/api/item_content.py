"""The part of an answer that shows an item: where its bytes are, and its text where it is one."""

from typing import Any, Self

from pydantic import Field
from sqlalchemy.orm import object_session

from service.access.signed_urls import Links
from service.content.pair import Pairs
from service.http.dependencies import Parts
from service.http.schemas import Answer, with_example
from service.pool import previews
from service.store.tables import Project, ScoreRun

_AT, _SIGNED = "/projects/p_1/items/i_2k/", "expires=1764000000&signature=kU9…"
CONTENT_EXAMPLE: dict[str, Any] = {
    "kind": "image",
    "url": f"{_AT}content?{_SIGNED}",
    "preview_url": f"{_AT}content?size=256&{_SIGNED}",
    "media_type": "image/png",
    "text": None,
    "marks": [],
    "parts": None,
}
IMAGE_URL_EXAMPLE = f"{_AT}image?{_SIGNED}"


class ItemPart(Answer):
    """Half of a pair, as it is shown."""

    kind: str
    url: str
    preview_url: str
    media_type: str | None
    text: str | None

    @classmethod
    def of(cls, number: int, kind: str, links: Links, text: str | None) -> Self:
        return cls(
            kind=kind,
            url=f"{links.content}&part={number}",
            preview_url=f"{links.preview}&part={number}",
            media_type=previews.content_of(kind).shown_as,
            text=text,
        )


class ItemContent(Answer):
    """An item as it is shown, by links that need no key and are good for an hour or so."""

    model_config = with_example(CONTENT_EXAMPLE)

    kind: str | None = Field(description="the project's modality")
    url: str
    preview_url: str = Field(description="a smaller one, where there is such a thing")
    media_type: str | None = Field(description="of `url`; null where only the bytes tell")
    text: str | None = Field(description="of texts with at most 20,000 characters; longer ones are at `url`")
    marks: list[tuple[int, int]] = Field(
        description="of a text, the words that its pretext model found hardest to guess: the first character of each "
        "and the one after its last, counted in Unicode code points from 0; none before there is a pretext model, or "
        "by one whose task does not guess words"
    )
    parts: list[ItemPart] | None = Field(description="both halves of a pair; null for all else")

    @classmethod
    def of(
        cls,
        parts: Parts,
        links: Links,
        project: Project,
        item_id: int,
        uri: str,
        content_hash: str | None,
    ) -> Self:
        content = previews.content_for(project)
        texts = previews.texts(parts.item_bytes, content, uri, content_hash, parts.limits)
        there = [text for text in texts if text is not None]
        return cls(
            kind=project.modality,
            url=links.content,
            preview_url=links.preview,
            media_type=previews.media_type(content, uri),
            text="\n\n".join(there) if there else None,
            marks=_marks(parts, project, item_id) if content.has_text else [],
            parts=[
                ItemPart.of(number, kind, links, text)
                for number, (kind, text) in enumerate(zip(content.kinds, texts, strict=True), 1)
            ]
            if isinstance(content, Pairs)
            else None,
        )


def _marks(parts: Parts, project: Project, item_id: int) -> list[tuple[int, int]]:
    """Items of the control arm have them, too: they say nothing of classes, and their absence would tell the arm."""
    session = object_session(project)
    if session is None or project.score_run_id is None:
        return []
    return parts.marks.of(session.get_one(ScoreRun, project.score_run_id).artifact, item_id)


def image_url(links: Links, modality: str | None) -> str | None:
    """None for what is no image."""
    return links.image if previews.content_of(modality).name == "image" else None

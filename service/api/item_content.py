"""The part of an answer that shows an item: where its bytes are, and its text where it is one."""

from typing import Self

from pydantic import Field

from service.access.signed_urls import Links
from service.content.pair import Pairs
from service.http.dependencies import Parts
from service.http.schemas import Answer, with_example
from service.pool import previews
from service.store.tables import Project

_AT, _SIGNED = "/projects/p_1/items/i_2k/", "expires=1764000000&signature=kU9…"
CONTENT_EXAMPLE = {
    "kind": "image",
    "url": f"{_AT}content?{_SIGNED}",
    "preview_url": f"{_AT}content?size=256&{_SIGNED}",
    "media_type": "image/png",
    "text": None,
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
    parts: list[ItemPart] | None = Field(description="both halves of a pair; null for all else")

    @classmethod
    def of(
        cls,
        parts: Parts,
        links: Links,
        project: Project,
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
            parts=[
                ItemPart.of(number, kind, links, text)
                for number, (kind, text) in enumerate(zip(content.kinds, texts, strict=True), 1)
            ]
            if isinstance(content, Pairs)
            else None,
        )


def image_url(links: Links, modality: str | None) -> str | None:
    """None for what is no image."""
    return links.image if previews.content_of(modality).name == "image" else None

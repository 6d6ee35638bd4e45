"""The contract of contents, which know a modality's bytes: one file a modality, without torch; both programs ask it.

A content is registered by being there: a module of this package with an instance named `CONTENT`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

Facts = dict[str, Any]  # what looking at the bytes told: {"width": 640, "height": 480}, {"tokens": 41}, …


@dataclass(frozen=True)
class Limits:
    """Upper limits on the size of an item; from the settings."""

    max_pixels: int
    max_text_bytes: int
    max_graph_bytes: int = 16 * 2**20
    max_video_pixels: int = 4096 * 2304


@dataclass(frozen=True)
class Preview:
    """Bytes that a browser may show: never something that it would run."""

    media_type: str
    data: bytes


class Content(Protocol):
    """The content of one modality: its formats, and the inspection of its bytes.

    name             of the modality
    suffixes         of files that hold such an item, in lower case; they tell which content a source is of
    shared_suffixes  that tell another content, or none: taken where the project is known to be of this one
    columns          of tables and manifests that hold such items themselves, the likeliest first
    formats          as people call them, for sentences
    binary           whether a cell of a table holds bytes; else it holds a string
    has_text         whether answers carry a text of it
    default_task     the pretext task of a project that names none, as the worker's side of the modality has it
    shown_as         the media type of all previews; None where only an item's name or bytes tell
    """

    name: ClassVar[str]
    suffixes: ClassVar[frozenset[str]]
    shared_suffixes: ClassVar[frozenset[str]]
    columns: ClassVar[tuple[str, ...]]
    formats: ClassVar[tuple[str, ...]]
    binary: ClassVar[bool]
    default_task: ClassVar[str]
    shown_as: ClassVar[str | None]

    @property
    def has_text(self) -> bool: ...

    def inspect(self, data: bytes, limits: Limits) -> Facts:
        """Raises `BadItem` with the reason why the item is quarantined."""
        ...

    def preview(
        self, data: bytes, limits: Limits, size: int | None, settings: Mapping[str, Any] | None = None
    ) -> Preview:
        """size: of the longer side in pixels, where that means something. settings: those of the modality that models
        of the pool see it with, as {"bits": 12}. Raises `BadItem`.
        """
        ...

    def text(self, data: bytes, limits: Limits) -> str | None:
        """The item as text where it is one, so that a batch can carry it; None for all else. Raises `BadItem`."""
        ...

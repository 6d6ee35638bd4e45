"""A source as imports see it: its candidates, one at a time, and what was left out."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from service.content.contract import Content

_REFUSALS_TOLD = 20


@dataclass(frozen=True)
class Candidate:
    """A file or row that may become an item. `data` is at hand where the listing had to read it anyway."""

    key: str
    uri: str
    class_name: str | None
    data: bytes | None = None
    has_own_key: bool = False  # the source gave it; else it is made of the path


class Listing(ABC):
    """Iterating streams the candidates in a fixed order; the counts are complete when it has ended. Raises
    `SourceUnreadable`, and `SourceUnreachable`, one of these, for a transient I/O error.

    content: of the items that are listed; None until `tell` was asked for it.
    by_folders: an item's class is the folder it lies in, whatever `label_column` is
    """

    by_folders: ClassVar[bool] = False

    def __init__(self, uri: str, label_column: str | None, content: Content | None) -> None:
        self.uri = uri
        self.label_column = label_column
        self.content = content
        self.told = False  # by the source itself
        self.complete = True  # False: some folders could not be listed, and nobody knows what is in them
        self.ignored = 0  # files that are no such items
        self.refused = 0  # rows, files and folders that could not be taken …
        self.refusals: list[str] = []  # … and a sentence for the first of them

    def tell(self) -> Content | None:
        """Fix the content by what most of the source is; None where nothing in it is an item of any kind."""
        self.content, self.told = self._told(), True
        return self.content

    def refuse(self, sentence: str) -> None:
        self.refused += 1
        if len(self.refusals) < _REFUSALS_TOLD:
            self.refusals.append(sentence)

    @abstractmethod
    def __iter__(self) -> Iterator[Candidate]: ...

    @abstractmethod
    def _told(self) -> Content | None: ...

    def total(self) -> int | None:
        """The number of candidates, where it is cheap to know."""
        return None

    def columns(self) -> list[str]:
        """The columns of a table, as people are told, with their types where it has some; none of other sources."""
        return []

    def _wanted(self) -> Content:
        if self.content is None:
            raise ValueError("nothing says which items are wanted: ask `tell`")
        return self.content

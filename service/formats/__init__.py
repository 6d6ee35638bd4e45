"""Formats of files with labels: one file each; being there, with an instance `FORMAT`, is registering.

A row is a label as `POST …/labels` takes it, by `key`: `{"key": "shirts/0012.png", "class": "coat"}`. What a tool drew
stands in its `annotation` under the name of the format, `{"coco": [{"bbox": […], "category": "coat"}]}`: a format
writes what is in its own, untouched, and nothing that it would have to convert.
"""

import importlib
import pkgutil
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple

import pyarrow as pa

from service.errors import LabelFileUnknown, SourceUnreadable, UnknownFormat

Row = dict[str, Any]


class NoRow(NamedTuple):
    """The reason why a part of the file is no label, and the field that is wrong. instead: the label that it is where
    an item may have several classes."""

    field: str
    message: str
    instead: Row | None = None


class RowOfImage(Row):
    """The row of an image with one class. classes: all that are said of it, as where an item may have several."""

    classes: list[str]


NumberedRow = tuple[int, Row | NoRow]  # its number in the file, from 1


@dataclass
class Labels:
    """Labels on their way out.

    classes     of the project, in its order
    schema      columns of the rows, for tables
    pages       the rows, some at a time; of formats that are no tables one for each decided item, with `width` and
                `height` where they are known
    read_item   the bytes of a row's item. Raises `ShortlistError`
    left_out    sentences about what the format has no place for, and of how many items they are true
    """

    classes: Sequence[str]
    schema: pa.Schema
    pages: Iterator[list[Row]]
    read_item: Callable[[Row], bytes]
    left_out: Counter[str] = field(default_factory=Counter)

    def rows(self) -> Iterator[Row]:
        for page in self.pages:
            yield from page

    def regions(self, row: Row, format: str) -> list[Row]:
        """The regions drawn on the item in this format; noted where they are in another."""
        annotation = row.get("annotation")
        if annotation is None:
            return []
        own = annotation.get(format) if isinstance(annotation, dict) else None
        if isinstance(own, list) and all(isinstance(region, dict) for region in own):
            return own
        self.left_out[f"the annotation is in another format than {format}, and stays here"] += 1
        return []

    @property
    def notes(self) -> list[str]:
        return [f"{count:,} items: {sentence}." for sentence, count in sorted(self.left_out.items())]


class Format(ABC):
    """A format of files with labels; the docstring of each says what it is good for, and what it has no place for.

    name         as `--format` and `?format=` take it
    endings      of files that may be in it, the first one of those it writes
    media_type   of what it writes
    table        it has all columns of every label; else an entry is an item and its decided class
    streams      it is sent while it is written, though it is no table, as it may be as large as the pool
    generic      a file is taken for it only where it fits no other one
    several      it has a place for several classes of an item
    """

    name: ClassVar[str]
    endings: ClassVar[tuple[str, ...]]
    media_type: ClassVar[str]
    table: ClassVar[bool] = False
    streams: ClassVar[bool] = False
    generic: ClassVar[bool] = False
    several: ClassVar[bool] = True

    def fits(self, path: Path) -> bool:
        """True where the file looks like it, by its ending and a look into it; it need not be there, nor readable."""
        return path.suffix.lower() in self.endings

    @abstractmethod
    def read(self, path: Path) -> Generator[NumberedRow]:
        """The labels of a file. Raises `SourceUnreadable` where all of it is wrong."""

    @abstractmethod
    def write(self, labels: Labels) -> Iterator[bytes]:
        """A file, piece by piece."""


@cache
def formats() -> Mapping[str, Format]:
    """By name; those that only a look into the file tells come first."""
    modules = (
        importlib.import_module(f"{__name__}.{found.name}") for found in pkgutil.iter_modules(__path__)
    )
    found: list[Format] = [module.FORMAT for module in modules if hasattr(module, "FORMAT")]
    found.sort(key=lambda each: (each.generic, each.name))
    return MappingProxyType({each.name: each for each in found})


def format_named(name: str, field: str) -> Format:
    """field: where the name stands, for people. Raises `UnknownFormat`."""
    found = formats().get(name)
    if found is None:
        raise UnknownFormat(field=field, name=name, known=", ".join(sorted(formats())))
    return found


def format_of(path: Path) -> Format:
    """The one that the file looks like. Raises `LabelFileUnknown`."""
    for each in formats().values():
        if each.fits(path):
            return each
    endings = dict.fromkeys(ending for each in formats().values() for ending in each.endings)
    raise LabelFileUnknown(path=str(path), endings=", ".join(sorted(endings)))


def unreadable(path: Path, reason: object) -> SourceUnreadable:
    return SourceUnreadable(uri=str(path), reason=reason)


def class_of(found: Sequence[object], described: str) -> str | NoRow:
    """The one class of an image, of all that its regions say; a label of most projects has one."""
    names = list(dict.fromkeys(found))
    if len(names) == 1 and isinstance(names[0], str):
        return names[0]
    told = ", ".join(repr(name) for name in names[:5]) + (", …" if len(names) > 5 else "")
    return NoRow("class", f"{described} is of several classes ({told}), and a label here has one")


def row_of(
    given: Row,
    found: Sequence[object],
    described: str,
    everything: Sequence[object] | None = None,
    **more: Any,
) -> Row | NoRow:
    """The label of an image of the one class found. everything: all that is said of it, where that is more; an item
    may have several classes.
    """
    names = list(dict.fromkeys(found if everything is None else everything))
    name = class_of(found, described)
    if isinstance(name, NoRow):
        clear = bool(names) and all(isinstance(each, str) for each in names)
        return name._replace(instead={**given, "classes": names, **more}) if clear else name
    row = RowOfImage({**given, "class": name, **more})
    row.classes = [str(each) for each in names]
    return row


def of_several(row: Row | NoRow) -> Row | NoRow:
    """The row as it is where an item may have several classes."""
    if isinstance(row, NoRow):
        return row if row.instead is None else row.instead
    if isinstance(row, RowOfImage):
        return {**{name: value for name, value in row.items() if name != "class"}, "classes": row.classes}
    return row


def classes_of(labels: Labels, row: Row) -> list[str]:
    """The class or the classes of a row on its way out; noted where it is none."""
    classes: list[str] = row["classes"] if "classes" in row else [row["class"]]
    if not classes:
        labels.left_out[
            "nothing is here, which the format cannot tell from an item that nobody has looked at"
        ] += 1
    return classes

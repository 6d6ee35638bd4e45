"""Several classes an item, as one text: what a project's labels and items carry where its `label_kind` is `multi`.

The text stands where the class of others stands (`labels.class`, `items.class`), each set in exactly one way, so that
two sets are the same where their texts are: agreement, revisions and gold compare them as they compare classes, and
null still means that there is no label. A text says by itself whether it is a set. Why so:
docs/decisions/0030-several-classes-an-item.md.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import sqlalchemy as sa

LabelKind = Literal["single", "multi"]
SEPARATOR = "\x1f"  # ASCII's unit separator, which no class is called with
NOTHING = SEPARATOR  # the set of no class: somebody looked, and nothing is here


def joined(classes: Iterable[str]) -> str:
    """The text of a set, whatever order it comes in."""
    return SEPARATOR + "".join(f"{name}{SEPARATOR}" for name in sorted(set(classes)))


def in_cell(cell: str) -> list[str]:
    """The names in a cell of a table: of a JSON list, or between semicolons or bars; without these, one."""
    if cell.startswith("["):
        try:
            names = json.loads(cell)
        except ValueError:
            return [cell]
        return names if all(isinstance(name, str) for name in names) else [cell]
    names = [name.strip() for name in cell.replace("|", ";").split(";")]
    return [name for name in names if name] or [cell]


def is_set(text: str | None) -> bool:
    return text is not None and text.startswith(SEPARATOR)


def classes_in(text: str) -> list[str]:
    """The classes of a set, or the one class that the text is."""
    return text[1:-1].split(SEPARATOR) if len(text) > 1 and is_set(text) else [] if is_set(text) else [text]


def with_names(text: str, became: Mapping[str, str]) -> str:
    """The set, or the class, once some classes have other names."""
    if not is_set(text):
        return became.get(text, text)
    return joined(became.get(name, name) for name in classes_in(text))


def alone(text: str | None) -> str | None:
    """The text where it is one class; None where it is a set."""
    return None if is_set(text) else text


def several(text: str | None) -> list[str] | None:
    """The classes of a set; None where the text is none."""
    return classes_in(text) if text is not None and is_set(text) else None


def as_fields(text: str | None, kind: str = "single") -> dict[str, Any]:
    """As exports have it: `class`, or in a project of this kind `classes`."""
    return {"classes": several(text)} if kind == "multi" else {"class": text}


def shown(text: str) -> str:
    """For sentences: "cat, dog", or "nothing"."""
    return ", ".join(classes_in(text)) or "nothing"


def holds(column: sa.ColumnElement[Any] | Any, name: str) -> sa.ColumnElement[bool]:
    """True where the column is a set with this class; letters' case counts on both databases."""
    return sa.func.replace(column, f"{SEPARATOR}{name}{SEPARATOR}", "") != column


def decided_by(votes: Sequence[str], agreeing: int) -> str | None:
    """The set that labels of one item, oldest first, decide: each class is a question of its own, answered at
    `agreeing` equal answers, or by the majority of two more, ties by the earliest. None while one is open.
    """
    sets = [frozenset(classes_in(vote)) for vote in votes]
    if not sets:
        return None
    found: set[str] = set()
    for name in frozenset().union(*sets):
        yes = sum(name in one for one in sets)
        no = len(sets) - yes
        if max(yes, no) < agreeing and len(sets) < agreeing + 2:
            return None
        if yes > no or (yes == no and name in sets[0]):
            found.add(name)
    return joined(found) if len(sets) >= agreeing else None


def most_agreeing(votes: Sequence[str]) -> int:
    """So many annotators agree on every class: the largest `agreeing` at which `decided_by` finds all answered."""
    sets = [frozenset(classes_in(vote)) for vote in votes]
    counts = [sum(name in one for one in sets) for name in frozenset[str]().union(*sets)]
    return min((max(yes, len(sets) - yes) for yes in counts), default=len(sets))

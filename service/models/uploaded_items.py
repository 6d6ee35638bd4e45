"""The items that rows of an upload are about, by their keys."""

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import sqlalchemy as sa

from service.errors import Invalid
from service.store.ids import public_id
from service.store.session import read_session
from service.store.tables import Item

SCORED = ("available", "done", "broken")  # states
_KEYS = 500  # looked up in one statement
_NAMED = 3  # keys in a sentence


def ids_of(engine: sa.Engine, project_id: int, keys: list[str]) -> dict[str, int]:
    found: dict[str, int] = {}
    with read_session(engine) as session:
        for start in range(0, len(keys), _KEYS):
            rows = session.execute(
                sa.select(Item.key, Item.id).where(
                    Item.project_id == project_id,
                    Item.key.in_(keys[start : start + _KEYS]),
                    Item.state.in_(SCORED),
                )
            )
            found |= dict(rows.all())
    return found


def refuse_twice(ids: npt.NDArray[np.int64]) -> None:
    if not len(ids):
        raise Invalid(
            field="key", message="none of the keys is an item of this project. Import the items first."
        )
    found, counts = np.unique(ids, return_counts=True)
    if len(found) < len(ids):
        item = public_id("i", int(found[counts > 1][0]))
        raise Invalid(field="key", message=f"item {item} stands there more than once.")


def not_here(keys: list[str]) -> str:
    named = ", ".join(repr(key) for key in keys[:_NAMED])
    more = f" and {len(keys) - _NAMED:,} more" if len(keys) > _NAMED else ""
    return f"this project has no items of the keys {named}{more}."


def is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))

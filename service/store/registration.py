"""Bulk insert of items: arrays on PostgreSQL, executemany on SQLite."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from service.store.tables import Item

_ITEMS = cast(sa.Table, Item.__table__)
_KNOWN = ("project_id", "key")
_COUNTED = {"preserve_rowcount": True}


@dataclass(frozen=True)
class ItemRow:
    key: str
    uri: str
    split: str
    shuffle: int
    class_name: str | None
    meta: dict[str, Any] | None


def insert_items(session: Session, project_id: int, rows: Sequence[ItemRow]) -> int:
    """How many are new by key; what is known stays as it is."""
    if not rows:
        return 0
    connection = session.connection()
    insert = _with_arrays if connection.dialect.name == "postgresql" else _one_by_one
    return insert(connection, project_id, rows)


def _one_by_one(connection: sa.Connection, project_id: int, rows: Sequence[ItemRow]) -> int:
    insert = sqlite.insert(_ITEMS).on_conflict_do_nothing(index_elements=_KNOWN)
    values = [
        {
            "project_id": project_id, "key": row.key, "uri": row.uri, "split": row.split,
            "shuffle": row.shuffle, "class": row.class_name, "meta": row.meta,
        }
        for row in rows
    ]  # fmt: skip
    return connection.execute(insert, values, execution_options=_COUNTED).rowcount


def _array(name: str, of: sa.types.TypeEngine[Any]) -> sa.BindParameter[Any]:
    return sa.bindparam(name, type_=postgresql.ARRAY(of))


def _arrays_statement() -> sa.Insert:
    """One statement with an array a column: a tenth of the time of so many rows of parameters."""
    new = sa.func.unnest(
        _array("keys", sa.Text()), _array("uris", sa.Text()), _array("splits", sa.Text()),
        _array("shuffles", sa.BigInteger()), _array("class_names", sa.Text()), _array("metas", sa.Text()),
    ).table_valued("key", "uri", "split", "shuffle", "class", "meta").render_derived()  # fmt: skip
    columns = new.c
    rows = sa.select(
        sa.bindparam("project", type_=sa.BigInteger), columns.key, columns.uri, columns.split, columns.shuffle,
        columns["class"], sa.cast(columns.meta, postgresql.JSON),
    )  # fmt: skip
    names = ["project_id", "key", "uri", "split", "shuffle", "class", "meta"]
    return postgresql.insert(_ITEMS).from_select(names, rows).on_conflict_do_nothing(index_elements=_KNOWN)


_ARRAYS = _arrays_statement()


def _with_arrays(connection: sa.Connection, project_id: int, rows: Sequence[ItemRow]) -> int:
    given = {
        "project": project_id,
        "keys": [row.key for row in rows],
        "uris": [row.uri for row in rows],
        "splits": [row.split for row in rows],
        "shuffles": [row.shuffle for row in rows],
        "class_names": [row.class_name for row in rows],
        "metas": [None if row.meta is None else json.dumps(row.meta) for row in rows],
    }
    return connection.execute(_ARRAYS, given, execution_options=_COUNTED).rowcount

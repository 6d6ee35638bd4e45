"""Bulk insert of items, all in one statement: from arrays on PostgreSQL, from JSON on SQLite.

Row by row takes several times as long, and SQLite's driver would hand the interpreter to other threads at each.
"""

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
_NAMES = ("project_id", "key", "uri", "split", "shuffle", "class", "meta", "content_hash", "facts")
_PROJECT = sa.bindparam("project", type_=sa.BigInteger)
_COUNTED = {"preserve_rowcount": True}


@dataclass(frozen=True)
class ItemRow:
    key: str
    uri: str
    split: str
    shuffle: int
    class_name: str | None
    meta: dict[str, Any] | None
    content_hash: str | None = None
    facts: dict[str, Any] | None = None


def insert_items(session: Session, project_id: int, rows: Sequence[ItemRow]) -> int:
    """The number of items that are new by key; known ones stay as they are."""
    if not rows:
        return 0
    connection = session.connection()
    if connection.dialect.name == "postgresql":
        statement, given = _FROM_ARRAYS, _arrays(rows)
    else:
        statement, given = _FROM_JSON, _json(rows)
    given["project"] = project_id
    return connection.execute(statement, given, execution_options=_COUNTED).rowcount


def _text(value: dict[str, Any] | None) -> str | None:
    return None if value is None else json.dumps(value)


def _array(name: str, of: sa.types.TypeEngine[Any]) -> sa.BindParameter[Any]:
    return sa.bindparam(name, type_=postgresql.ARRAY(of))


def _from_arrays() -> sa.Insert:
    new = (
        sa.func.unnest(
            _array("keys", sa.Text()),
            _array("uris", sa.Text()),
            _array("splits", sa.Text()),
            _array("shuffles", sa.BigInteger()),
            _array("class_names", sa.Text()),
            _array("metas", sa.Text()),
            _array("hashes", sa.Text()),
            _array("facts", sa.Text()),
        )
        .table_valued(*_NAMES[1:])
        .render_derived()
    )
    columns = new.c
    rows = sa.select(
        _PROJECT,
        columns.key,
        columns.uri,
        columns.split,
        columns.shuffle,
        columns["class"],
        sa.cast(columns.meta, postgresql.JSON),
        columns.content_hash,
        sa.cast(columns.facts, postgresql.JSON),
    )
    return postgresql.insert(_ITEMS).from_select(_NAMES, rows).on_conflict_do_nothing(index_elements=_KNOWN)


def _arrays(rows: Sequence[ItemRow]) -> dict[str, Any]:
    return {
        "keys": [row.key for row in rows],
        "uris": [row.uri for row in rows],
        "splits": [row.split for row in rows],
        "shuffles": [row.shuffle for row in rows],
        "class_names": [row.class_name for row in rows],
        "metas": [_text(row.meta) for row in rows],
        "hashes": [row.content_hash for row in rows],
        "facts": [_text(row.facts) for row in rows],
    }


def _from_json() -> sa.Insert:
    new = sa.func.json_each(sa.bindparam("rows", type_=sa.Text)).table_valued("value")
    columns = [sa.func.json_extract(new.c.value, f"$[{place}]") for place in range(len(_NAMES) - 1)]
    # With a WHERE, as SQLite would else read ON CONFLICT as the condition of a join.
    rows = sa.select(_PROJECT, *columns).where(sa.true())
    return sqlite.insert(_ITEMS).from_select(_NAMES, rows).on_conflict_do_nothing(index_elements=_KNOWN)


def _json(rows: Sequence[ItemRow]) -> dict[str, Any]:
    values = [
        (
            row.key,
            row.uri,
            row.split,
            row.shuffle,
            row.class_name,
            _text(row.meta),
            row.content_hash,
            _text(row.facts),
        )
        for row in rows
    ]
    return {"rows": json.dumps(values, ensure_ascii=False)}


_FROM_ARRAYS, _FROM_JSON = _from_arrays(), _from_json()

"""New rows in one statement whose text is always the same, whatever their number.

With a parameter for each value, the driver and the database would read and plan a long text anew at each call. The
values come as an array a column on PostgreSQL, as one JSON text on SQLite.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.orm import Session

from service.store.tables import Table


class NewRows:
    """An insert into a table with a key `id`. same: what has one value for all rows of a call."""

    def __init__(self, table: type[Table], own: Sequence[str], same: Sequence[str]) -> None:
        into = table.__table__
        assert isinstance(into, sa.Table)
        column = sa.inspect(table).columns  # by attribute
        columns = [column[name] for name in (*own, *same)]
        of_all = [sa.bindparam(name, type_=column[name].type) for name in same]

        def insert(values: Sequence[sa.ColumnElement[Any]], order: sa.ColumnElement[Any]) -> sa.Insert:
            rows = sa.select(*values, *of_all).order_by(order)  # numbers are given in this order
            from_rows = sa.insert(into).from_select(columns, rows, include_defaults=False)
            return from_rows.returning(column["id"])

        self._own = own
        self._json = {name for name in own if isinstance(column[name].type, sa.JSON)}
        self._from_arrays = insert(*_arrays({name: column[name].type for name in own}))
        self._from_json = insert(*_json(len(own)))

    def insert(self, session: Session, rows: Sequence[Mapping[str, Any]], **same: Any) -> list[int]:
        """Their numbers, which rise in the order of the rows."""
        connection = session.connection()
        sent = [self._with_texts(row) for row in rows] if self._json else rows
        if connection.dialect.name == "postgresql":
            given = {name: [row[name] for row in sent] for name in self._own}
            numbers = connection.execute(self._from_arrays, given | same)
        else:
            text = json.dumps([[row[name] for name in self._own] for row in sent])
            numbers = connection.execute(self._from_json, {"rows": text, **same})
        return sorted(numbers.scalars())  # in which order they are returned is not promised

    def _with_texts(self, row: Mapping[str, Any]) -> Mapping[str, Any]:
        """JSON goes as text on both databases: an array of JSON has no type that the driver knows by itself."""
        texts = {name: json.dumps(row[name]) for name in self._json if row[name] is not None}
        return {**row, **texts} if texts else row


def _arrays(types: Mapping[str, sa.types.TypeEngine[Any]]) -> tuple[list[Any], Any]:
    sent = {name: sa.Text() if isinstance(of, sa.JSON) else of for name, of in types.items()}
    arrays = [sa.bindparam(name, type_=postgresql.ARRAY(of)) for name, of in sent.items()]
    given = sa.func.unnest(*arrays).table_valued(*types, with_ordinality="place").render_derived()
    columns = [
        sa.cast(given.c[name], postgresql.JSON) if isinstance(of, sa.JSON) else given.c[name]
        for name, of in types.items()
    ]
    return columns, given.c.place


def _json(count: int) -> tuple[list[Any], Any]:
    given = sa.func.json_each(sa.bindparam("rows", type_=sa.Text)).table_valued("key", "value")
    return [sa.func.json_extract(given.c.value, f"$[{place}]") for place in range(count)], given.c.key

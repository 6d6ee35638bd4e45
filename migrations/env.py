"""Run by alembic: the migrations on the connection that `service.store.migrate` opened."""

from typing import Literal

import sqlalchemy as sa
from alembic import context
from alembic.autogenerate.api import AutogenContext

from service.store.tables import Needs, Table, UtcDateTime


def _render_item(kind: str, item: object, _autogen_context: AutogenContext) -> str | Literal[False]:
    """Revisions must not change when tables.py does, so its own types are written out."""
    if kind == "type" and isinstance(item, UtcDateTime):
        return "sa.DateTime(timezone=True)"
    if kind == "type" and isinstance(item, Needs):
        return "sa.Text()"
    return False


def _migrate(connection: sa.Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=Table.metadata,
        render_as_batch=True,  # SQLite alters a table by copying it
        render_item=_render_item,
    )
    with context.begin_transaction():
        if connection.dialect.name == "postgresql":  # two services that start at once
            connection.exec_driver_sql("SELECT pg_advisory_xact_lock(7301)")
        context.run_migrations()


_migrate(context.config.attributes["connection"])

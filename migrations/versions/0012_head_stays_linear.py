"""The default of the setting `head` becomes `propagate`: projects that left it to the default stay with `linear`."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

_PROJECTS = sa.table("projects", sa.column("id", sa.BigInteger), sa.column("settings", sa.JSON))
_BEFORE = {"name": "linear", "params": {}}
_NOW = {"name": "propagate", "params": {}}


def upgrade() -> None:
    for number, settings in _settings():
        if "head" not in settings:
            _set(number, settings | {"head": _BEFORE})


def downgrade() -> None:
    for number, settings in _settings():
        if settings.get("head") == _BEFORE:  # the default of before
            _set(number, {name: value for name, value in settings.items() if name != "head"})
        elif "head" not in settings:
            _set(number, settings | {"head": _NOW})


def _settings() -> list[tuple[int, dict[str, object]]]:
    rows = op.get_bind().execute(sa.select(_PROJECTS.c.id, _PROJECTS.c.settings)).all()
    return [(row.id, row.settings) for row in rows]


def _set(number: int, settings: dict[str, object]) -> None:
    op.execute(sa.update(_PROJECTS).where(_PROJECTS.c.id == number).values(settings=settings))

"""The default of the setting `backbone` becomes `auto`: projects that left it to the default stay with `small`."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_PROJECTS = sa.table("projects", sa.column("id", sa.BigInteger), sa.column("settings", sa.JSON))


def upgrade() -> None:
    for number, settings in _settings():
        if "backbone" not in settings:
            _set(number, settings | {"backbone": "small"})


def downgrade() -> None:
    for number, settings in _settings():
        if settings.get("backbone") == "small":  # the default of before
            _set(number, {name: value for name, value in settings.items() if name != "backbone"})
        elif settings.get("backbone") == "auto":
            _set(number, settings | {"backbone": "small"})


def _settings() -> list[tuple[int, dict[str, object]]]:
    rows = op.get_bind().execute(sa.select(_PROJECTS.c.id, _PROJECTS.c.settings)).all()
    return [(row.id, row.settings) for row in rows]


def _set(number: int, settings: dict[str, object]) -> None:
    op.execute(sa.update(_PROJECTS).where(_PROJECTS.c.id == number).values(settings=settings))

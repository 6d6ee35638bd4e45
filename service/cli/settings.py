"""The command `shortlist settings`."""

import sqlalchemy as sa
from pydantic import SecretStr

from service.cli.common import listed
from service.settings import Settings, read_settings


def show_settings() -> None:
    """Every setting: its environment variable, the value in force (secrets masked) and what it means."""
    settings = read_settings()
    for name, field in Settings.model_fields.items():
        print(f"SHORTLIST_{name.upper()}={_shown(name, getattr(settings, name))}")
        print(f"    {field.description or ''}".rstrip())


def _shown(name: str, value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, SecretStr):
        return "********"
    if name == "database_url":
        return sa.make_url(str(value)).render_as_string(hide_password=True)
    return listed(value) if isinstance(value, tuple) else str(value)

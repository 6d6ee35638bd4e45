"""Parts that the commands share: their options, the settings in force, and the project that is meant."""

import json
from pathlib import Path
from typing import Annotated, Any

import sqlalchemy as sa
import typer

from service.errors import WhichExport, WhichProject
from service.projects import projects
from service.settings import Settings, read_settings
from service.store.tables import Project

DataDir = Annotated[
    Path | None, typer.Option(help="folder of database and artifacts; default: SHORTLIST_DATA_DIR")
]
Port = Annotated[int | None, typer.Option(help="default: SHORTLIST_PORT, else 8000")]


def project_of(
    session: sa.orm.Session, name_or_id: str | None, command: str = "shortlist export NAME"
) -> Project:
    """By name, else by id; without either the only one there is. command: that says which."""
    if name_or_id is None:
        try:
            return projects.find_only(session, None, "export")
        except WhichProject:
            raise WhichExport(command=command) from None
    named = session.scalar(sa.select(Project).where(Project.name == name_or_id))
    return named or projects.find(session, name_or_id)


def settings_of(
    port: int | None = None,
    data_dir: Path | None = None,
    devices: int | None = None,
    roots: tuple[str, ...] = (),
) -> Settings:
    """Settings, in which the command line takes precedence over the environment."""
    wished = {"port": port, "data_dir": data_dir, "devices": devices}
    given: dict[str, Any] = {name: value for name, value in wished.items() if value is not None}
    if roots:
        given["source_roots"] = (*read_settings(**given).source_roots, *roots)
    return read_settings(**given)


def listed(places: tuple[str, ...]) -> str:
    return json.dumps(places) if any("," in place for place in places) else ",".join(places)


def say(sentence: str) -> None:
    print(sentence, flush=True)

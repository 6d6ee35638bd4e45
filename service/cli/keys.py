"""Commands `shortlist keys …`."""

from typing import Annotated, Literal

import sqlalchemy as sa
import typer

from service.access import keys as key_rules
from service.cli.common import DataDir, project_of, settings_of
from service.operations import serving
from service.store import migrate as migrations
from service.store.ids import public_id
from service.store.session import read_session, write_session
from service.store.tables import Key, utc_now

app = typer.Typer(help="API keys.", no_args_is_help=True)


@app.command("add")
def add_key(
    name: str,
    role: Annotated[Literal["admin", "annotator", "reader"], typer.Option()] = "annotator",
    project: Annotated[str | None, typer.Option(help="the only project it may see, by name or id")] = None,
    annotator: Annotated[str | None, typer.Option(help="the only annotator it may act for")] = None,
    data_dir: DataDir = None,
) -> None:
    """Make a key and show it, once."""
    settings = settings_of(data_dir=data_dir)
    with serving.database(settings) as engine:
        migrations.check(engine)
        with write_session(engine) as session:
            project_id = project_of(session, project).id if project else None
            _, token = key_rules.create(
                session,
                key_rules.server_secret(settings),
                name=name,
                role=role,
                project_id=project_id,
                annotator=annotator,
            )
    print(token)


@app.command("list")
def list_keys(data_dir: DataDir = None) -> None:
    """All keys, also revoked ones; never the keys themselves."""
    with serving.database(settings_of(data_dir=data_dir)) as engine:
        migrations.check(engine)
        with read_session(engine) as session:
            for key in session.scalars(sa.select(Key).order_by(Key.id)):
                bound = public_id("p", key.project_id) if key.project_id else "all projects"
                state = "revoked" if key.revoked_at else "good"
                row = (key_rules.public(key), key.role, bound, key.annotator or "", state, key.name)
                print("\t".join(row))


@app.command("revoke")
def revoke_key(id: str, data_dir: DataDir = None) -> None:
    """At once: the next request with it is refused."""
    with serving.database(settings_of(data_dir=data_dir)) as engine:
        migrations.check(engine)
        with write_session(engine) as session:
            key_rules.revoke(session, key_rules.find(session, id, None), utc_now())
    print(f"{id} is revoked.")

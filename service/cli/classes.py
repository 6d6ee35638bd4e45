"""Commands `shortlist classes …`."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from service.cli.common import DataDir, project_of, settings_of
from service.operations import serving
from service.projects import class_changes
from service.projects.class_changes import Wanted
from service.store import migrate as migrations
from service.store.names import composed
from service.store.session import read_session, write_session

app = typer.Typer(help="The classes of a project.", no_args_is_help=True)

OfProject = Annotated[str | None, typer.Option("--project", help="by name or id; default: the only one")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="say what it would do, and do nothing")]


@app.command("list")
def list_classes(project: OfProject = None, data_dir: DataDir = None) -> None:
    """Each class, its current labels, its items in the pool and in the test split, and the names it had before."""
    with serving.database(settings_of(data_dir=data_dir)) as engine:
        migrations.check(engine)
        with read_session(engine) as session:
            for use in class_changes.uses(
                session, project_of(session, project, "shortlist classes list --project NAME")
            ):
                before = f"was {', '.join(use.aliases)}" if use.aliases else ""
                effects = use.effects
                row = (
                    use.name,
                    f"{effects.labels:,} labels",
                    f"{effects.items:,} items",
                    f"{effects.test_items:,} test items",
                    before,
                )
                print("\t".join(row).rstrip())


@app.command("rename")
def rename_class(
    name: str, to: str, project: OfProject = None, dry_run: DryRun = False, data_dir: DataDir = None
) -> None:
    """Give a class another name, wherever it stands."""
    _change_classes(Wanted("rename", (name,), to), project, dry_run, data_dir)


@app.command("merge")
def merge_classes(
    names: list[str],
    into: Annotated[
        str, typer.Option(help="the name of what they become; a class that is there, or a new one")
    ],
    project: OfProject = None,
    dry_run: DryRun = False,
    data_dir: DataDir = None,
) -> None:
    """Make one class of several."""
    _change_classes(Wanted("merge", tuple(names), into), project, dry_run, data_dir)


@app.command("add")
def add_classes(
    names: list[str], project: OfProject = None, dry_run: DryRun = False, data_dir: DataDir = None
) -> None:
    """Add classes."""
    _change_classes(Wanted("add", tuple(names)), project, dry_run, data_dir)


@app.command("remove")
def remove_classes(
    names: list[str], project: OfProject = None, dry_run: DryRun = False, data_dir: DataDir = None
) -> None:
    """Remove classes that no current label, gold item or test item has."""
    _change_classes(Wanted("remove", tuple(names)), project, dry_run, data_dir)


def _change_classes(wanted: Wanted, project: str | None, dry_run: bool, data_dir: Path | None) -> None:
    names = tuple(composed(name.strip()) for name in wanted.classes)
    to = composed(wanted.to.strip()) if wanted.to is not None else None
    for name in (*names, *([to] if to is not None else [])):
        if not 0 < len(name) <= 200:
            sys.exit("A class has a name of 1 to 200 characters.")
    wanted = Wanted(wanted.kind, names, to)
    with serving.database(settings_of(data_dir=data_dir)) as engine:
        migrations.check(engine)
        with write_session(engine) as session:
            found = project_of(session, project, f"shortlist classes {wanted.kind} … --project NAME")
            changed = class_changes.change(session, found, wanted, by=None, dry_run=dry_run)
    for sentence in changed.says:
        print(sentence)
    if dry_run:
        print("Nothing was changed: this was a dry run.")

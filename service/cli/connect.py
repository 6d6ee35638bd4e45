"""Commands `shortlist connect …`."""

from typing import Annotated

import typer

from service.cli.common import DataDir, settings_of
from service.operations import serving
from service.store import migrate as migrations

app = typer.Typer(help="Work with an annotation tool.", no_args_is_help=True)


@app.command("label-studio")
def connect_label_studio(
    url: Annotated[str, typer.Option(help="at which people open Label Studio")],
    token: Annotated[
        str, typer.Option(envvar="LABEL_STUDIO_TOKEN", help="a personal access token, or a legacy one")
    ],
    tool_project: Annotated[int, typer.Option("--project", help="the number of the project there")],
    into: Annotated[
        str | None,
        typer.Option(help="the project here, by name or id; default: one of the same title, made new"),
    ] = None,
    callback: Annotated[
        str | None,
        typer.Option(help="the URL at which Label Studio reaches this service, so that it says at once"),
    ] = None,
    top: Annotated[
        int, typer.Option(min=1, max=10_000, help="tasks of a ranking that it is told of")
    ] = 1_000,
    batch_push: Annotated[
        bool,
        typer.Option(
            "--batch-push",
            help="make the next items of the project here tasks there, a few at a time, and not the other way round",
        ),
    ] = False,
    low_water: Annotated[
        int,
        typer.Option(min=1, max=500, help="with --batch-push: filled up once fewer open tasks are left"),
    ] = 10,
    pre_annotate: Annotated[
        bool,
        typer.Option("--pre-annotate", help="show tasks with the class that the head predicts"),
    ] = False,
    add_classes: Annotated[
        bool, typer.Option("--add-classes", help="add the classes that only Label Studio has")
    ] = False,
    data_dir: DataDir = None,
) -> None:
    """A project of Label Studio and one here become one: tasks are items, annotations labels, and it shows next what is
    ranked first. The service follows it while it runs."""
    from service.integrations.label_studio import connect  # here, because it loads the web framework

    settings = settings_of(data_dir=data_dir)
    wanted = connect.Wanted(
        url, token, tool_project, callback, top, batch_push, low_water, pre_annotate, add_classes
    )
    with serving.database(settings) as engine:
        migrations.check(engine)
        told = connect.connected(engine, settings, wanted, into)
    print(
        f"Project {tool_project} of {told.url}, {told.title!r}, is connected to {told.project!r} ({told.id})."
    )
    if told.warning:
        print(told.warning)
    print("The service follows it while it runs: `shortlist up`, or `shortlist serve` and a worker.")
    print(f'For its dialog "Connect model": user shortlist, password {told.secret}')

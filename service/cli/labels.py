"""Commands that take labels out, and in."""

import shlex
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from service.cli.common import DataDir, project_of, settings_of
from service.content.reader import ItemBytes
from service.formats import format_named
from service.operations import serving
from service.store import migrate as migrations
from service.store.session import read_session


def export(
    project: Annotated[str | None, typer.Argument(help="name or id; needed when there are several")] = None,
    format: Annotated[
        str, typer.Option(help="csv, coco, …; a wrong one is answered with all there are")
    ] = "ndjson",
    history: Annotated[bool, typer.Option("--all", help="with replaced and stale revisions")] = False,
    output: Annotated[Path | None, typer.Option("--output", "--out", help="default: standard output")] = None,
    data_dir: DataDir = None,
) -> None:
    """The labels of a project, as GET /projects/{project}/labels gives them."""
    from service.api.labels import labels_out  # here, because it loads the web framework

    chosen = format_named(format, "--format")
    settings = settings_of(data_dir=data_dir)
    with ExitStack() as stack:
        engine = stack.enter_context(serving.database(settings))
        migrations.check(engine)
        with read_session(engine) as session:
            found = project_of(session, project)
            labels = labels_out(engine, session, found, chosen, ItemBytes(settings), history)
        file = stack.enter_context(output.open("wb")) if output else sys.stdout.buffer
        for piece in chosen.write(labels):
            file.write(piece)
    for note in labels.notes:
        print(f"Left out: {note}", file=sys.stderr)


def import_labels(
    file: Annotated[
        Path, typer.Argument(help="as `shortlist export` writes it, in any format, or as a tool does")
    ],
    format: Annotated[str | None, typer.Option(help="default: what the file looks like")] = None,
    project: Annotated[str | None, typer.Option(help="by name or id; default: the only one")] = None,
    annotator: Annotated[str | None, typer.Option(help="of labels that name none")] = None,
    data_dir: DataDir = None,
) -> None:
    """Store the labels of a file, as POST /projects/{project}/labels/import does. Again is safe."""
    from service.api.label_import import import_file  # here, because it loads the web framework

    with serving.database(settings_of(data_dir=data_dir)) as engine:
        migrations.check(engine)
        with read_session(engine) as session:
            found = project_of(
                session, project, f"shortlist import-labels {shlex.quote(str(file))} --project NAME"
            )
        answer = import_file(engine, found, file, annotator, format)
    for refused in answer.refused:
        print(
            f"Line {refused.line}: `{refused.field}`: {refused.message.removeprefix(f'`{refused.field}`: ')}"
        )
    outcomes = ", ".join(f"{count:,} {outcome}" for outcome, count in answer.outcomes.items()) or "none"
    print(f"Labels of {found.name!r}: {outcomes}; {answer.refused_count:,} lines refused.")
    if answer.refused_count:
        sys.exit(1)

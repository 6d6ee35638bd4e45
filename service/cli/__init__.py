"""The command `shortlist`, a module a group of commands. Workers are started as processes; nothing of theirs is
imported here.
"""

import io
import os
import sys

import typer

from service.cli import classes, connect, keys, labels, running, settings
from service.errors import ShortlistError

app = typer.Typer(
    help="Which items should people label next?",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(keys.app, name="keys")
app.add_typer(connect.app, name="connect")
app.add_typer(classes.app, name="classes")
app.command("up")(running.up_command)
app.command()(running.serve)
app.command()(running.worker)
app.command()(running.migrate)
app.command()(running.demo)
app.command()(labels.export)
app.command("import-labels")(labels.import_labels)
app.command("settings")(settings.show_settings)


def main() -> None:
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="surrogateescape")  # file names need not be Unicode
    try:
        app()
    except ShortlistError as error:
        sys.exit(str(error))
    except BrokenPipeError:  # `shortlist export | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        sys.exit(
            f"{error.filename}: {error.strerror}" if error.filename else f"{type(error).__name__}: {error}"
        )

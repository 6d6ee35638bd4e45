"""Commands that run the service, its worker and its database, and the demo."""

import json
import os
import shlex
import sys
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated
from urllib.parse import quote, urlencode

import typer

from service.cli.common import DataDir, Port, listed, say, settings_of
from service.content.reader import place_as_text
from service.logs import configure_logs
from service.operations import serving, up
from service.settings import Settings
from service.store import migrate as migrations
from service.store.ids import public_id
from service.store.session import write_session


def up_command(
    items: Annotated[
        str | None,
        typer.Option(
            "--items",
            "--images",
            help="what to label: a folder, an archive, a CSV, JSONL or Parquet file, or the URL of a bucket",
        ),
    ] = None,
    classes: Annotated[
        str,
        typer.Option(
            help="comma-separated, for a new project: cat,dog; with a comma inside: 'cat,\"dog, small\"'; "
            "from-folders: the folders of the items are the classes"
        ),
    ] = "",
    folders: Annotated[
        up.Folders,
        typer.Option(
            help="with --classes from-folders, what they say of the items in them: labels, which are imported; test, "
            "a test split; names, nothing"
        ),
    ] = "labels",
    classes_file: Annotated[Path | None, typer.Option(help="the same, one a line")] = None,
    project: Annotated[str | None, typer.Option(help="its name; default: that of the folder or file")] = None,
    accept_missing: Annotated[
        bool, typer.Option("--accept-missing", help="go on though more than half of the items are gone")
    ] = False,
    port: Port = None,
    data_dir: DataDir = None,
) -> None:
    """Service, worker and embedded database in one; Ctrl-C stops all. Starting again goes on."""
    given = up.check_items(items) if items is not None else None
    from_folders = classes == up.FROM_FOLDERS
    wanted = up.read_classes("" if from_folders else classes, classes_file)
    settings = settings_of(
        port=port, data_dir=data_dir, roots=(place_as_text(str(given.root)),) if given else ()
    )
    configure_logs(settings)
    with ExitStack() as stack:
        listener = stack.enter_context(serving.listen(settings))
        engine = stack.enter_context(serving.database(settings))
        stack.enter_context(up.alone_in(settings.data_dir))
        migrations.upgrade(engine)
        settings = up.with_known_sources(engine, settings)
        imported = None
        if given and from_folders:
            wanted += [name for name in up.folder_classes(settings, given.place) if name not in wanted]
        test = from_folders and folders == "test"
        if given:
            with write_session(engine) as session:
                imported = up.queue_items(
                    session,
                    settings,
                    given.place,
                    given.name,
                    wanted,
                    project,
                    accept_missing,
                    split="test" if test else "pool",
                )
        # After all that may refuse to start: a key that was made is shown.
        new_key = serving.first_admin_key(engine, settings, make=True)
        run_key = None
        if new_key is None and settings.admin_key is None and serving.is_loopback(settings.host):
            run_key = stack.enter_context(up.key_of_this_run(engine, settings))

        address = f"http://{_reachable(settings.host)}:{listener.getsockname()[1]}"
        _greet(address, settings, new_key, run_key, public_id("p", imported[0]) if imported else None)
        worker = up.WorkerKeeper(_environment(settings), say=say)
        worker.start()
        stack.callback(worker.stop)
        stopping = threading.Event()
        threads = [threading.Thread(target=up.say_what_waits, args=(engine, say, stopping))]
        if imported:
            follow = (engine, *imported, say, stopping, from_folders and folders == "labels", not test)
            threads.append(threading.Thread(target=up.pretrain_after_import, args=follow))
        for thread in threads:
            thread.start()
            stack.callback(thread.join)
        stack.callback(stopping.set)
        serving.serve(settings, listener)
        say("Stopping …")
    say("Stopped. The same command goes on where this left off.")


def serve(port: Port = None, data_dir: DataDir = None) -> None:
    """The service alone. The database must be migrated; a preset admin key is made when it is new."""
    settings = settings_of(port=port, data_dir=data_dir)
    configure_logs(settings)
    with serving.listen(settings) as listener, serving.database(settings) as engine:
        migrations.check(engine)
        serving.first_admin_key(engine, settings, make=False)
        serving.check_reachable_only_with_keys(engine, settings)
        say(f"http://{_reachable(settings.host)}:{listener.getsockname()[1]}")
        serving.serve(settings, listener)


def worker(
    until_idle: Annotated[bool, typer.Option(help="end when nothing is queued or running")] = False,
    devices: Annotated[
        int | None, typer.Option(help="that pretrain together; default: SHORTLIST_DEVICES, else 1")
    ] = None,
    data_dir: DataDir = None,
) -> None:
    """A worker alone; any number, on any machine that reaches database and artifacts."""
    settings = settings_of(devices=devices, data_dir=data_dir)
    command = [sys.executable, "-m", "worker", *(["--until-idle"] if until_idle else [])]
    os.execve(command[0], command, _environment(settings))


def migrate(data_dir: DataDir = None) -> None:
    """Bring the database to the newest schema."""
    with serving.database(settings_of(data_dir=data_dir)) as engine:
        before = migrations.current(engine)
        migrations.upgrade(engine)
        after = migrations.current(engine)
    print(f"The database is at revision {after}" + (", as before." if before == after else "."))


def demo() -> None:
    """The whole loop on the bundled images: a table, demo/report.html, demo/learning_curve.png."""
    try:
        from service.demo import DemoFailed
        from service.demo.run import run as run_demo
    except ModuleNotFoundError as error:  # it draws with matplotlib
        sys.exit(f"{error}. Install what the demo needs with: pip install 'shortlist[worker,demo]'")
    try:
        run_demo()
    except DemoFailed as error:
        sys.exit(f"The demo failed: {error}")


def _environment(settings: Settings) -> dict[str, str]:
    """For a worker process: the same settings."""
    return os.environ | {
        "SHORTLIST_DATA_DIR": str(settings.data_dir),
        "SHORTLIST_DEVICES": str(settings.devices),
        "SHORTLIST_SOURCE_ROOTS": listed(settings.source_roots),
    }


def _reachable(host: str) -> str:
    if host in ("0.0.0.0", "::", "localhost"):
        return "127.0.0.1"
    return f"[{host}]" if ":" in host else host


def _greet(
    address: str, settings: Settings, new_key: str | None, run_key: str | None, project: str | None
) -> None:
    preset = settings.admin_key.get_secret_value() if settings.admin_key else None
    shown = new_key or preset or run_key
    make = f"shortlist keys add NAME --role admin --data-dir {shlex.quote(str(settings.data_dir))}"
    opened = {"key": shown, "project": project}
    fragment = urlencode({name: value for name, value in opened.items() if value}, quote_via=quote, safe="")
    say(f"Dashboard: {address}/{'#' if fragment else ''}{fragment}")
    if not shown:
        say(f"Its admin key was shown at the first start. Make another: {make}")
    if new_key and not preset:
        say(f"Admin key, shown this once: {new_key}")
    if run_key:
        say(f"Admin key, good until this stops: {run_key}")
        say(f"To make one that lasts: {make}")
    at = f"{address}/projects/{project}" if project else address
    header = f'-H "Authorization: Bearer {shown or "$KEY"}" -H "Content-Type: application/json"'
    batch = shlex.quote(json.dumps({"annotator": "ann", "size": 10}))
    label = shlex.quote(json.dumps({"labels": [{"item": "ITEM", "class": "CLASS", "annotator": "ann"}]}))
    say(f"\nThe next ten items, and a label for one of them:\n  curl -s {at}/next-batch {header} -d {batch}")
    say(f"  curl -s {at}/labels {header} -d {label}\n")

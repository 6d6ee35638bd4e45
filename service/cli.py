"""The command `shortlist`. Workers are started as processes; nothing of theirs is imported here."""

import io
import json
import os
import shlex
import sys
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import quote, urlencode

import sqlalchemy as sa
import typer
from pydantic import SecretStr

from service.access import keys as key_rules
from service.content.reader import ItemBytes, place_as_text
from service.errors import ShortlistError, WhichExport, WhichProject
from service.formats import format_named
from service.logs import configure_logs
from service.operations import serving, up
from service.projects import class_changes, projects
from service.projects.class_changes import Wanted
from service.settings import Settings, read_settings
from service.store import migrate as migrations
from service.store.ids import public_id
from service.store.names import composed
from service.store.session import read_session, write_session
from service.store.tables import Key, Project, utc_now

app = typer.Typer(
    help="Which items should people label next?", no_args_is_help=True, add_completion=False,
    pretty_exceptions_enable=False,
)  # fmt: skip
keys_app = typer.Typer(help="API keys.", no_args_is_help=True)
app.add_typer(keys_app, name="keys")
connect_app = typer.Typer(help="Work with an annotation tool.", no_args_is_help=True)
app.add_typer(connect_app, name="connect")
classes_app = typer.Typer(help="The classes of a project.", no_args_is_help=True)
app.add_typer(classes_app, name="classes")

DataDir = Annotated[
    Path | None, typer.Option(help="folder of database and artifacts; default: SHORTLIST_DATA_DIR")
]
Port = Annotated[int | None, typer.Option(help="default: SHORTLIST_PORT, else 8000")]


@app.command(name="up")
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
    given = up.check_items(items) if items else None
    from_folders = classes == up.FROM_FOLDERS
    wanted = up.read_classes("" if from_folders else classes, classes_file)
    settings = _settings(
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
                    session, settings, given.place, given.name, wanted, project, accept_missing,
                    split="test" if test else "pool",
                )  # fmt: skip
        # After all that may refuse to start: a key that was made is shown.
        new_key = serving.first_admin_key(engine, settings, make=True)
        run_key = None
        if new_key is None and settings.admin_key is None and serving.is_loopback(settings.host):
            run_key = stack.enter_context(up.key_of_this_run(engine, settings))

        address = f"http://{_reachable(settings.host)}:{listener.getsockname()[1]}"
        _greet(address, settings, new_key, run_key, public_id("p", imported[0]) if imported else None)
        worker = up.WorkerKeeper(_environment(settings), say=_say)
        worker.start()
        stack.callback(worker.stop)
        stopping = threading.Event()
        threads = [threading.Thread(target=up.say_what_waits, args=(engine, _say, stopping))]
        if imported:
            follow = (engine, *imported, _say, stopping, from_folders and folders == "labels", not test)
            threads.append(threading.Thread(target=up.pretrain_after_import, args=follow))
        for thread in threads:
            thread.start()
            stack.callback(thread.join)
        stack.callback(stopping.set)
        serving.serve(settings, listener)
        _say("Stopping …")
    _say("Stopped. The same command goes on where this left off.")


@app.command()
def serve(port: Port = None, data_dir: DataDir = None) -> None:
    """The service alone. The database must be migrated; a preset admin key is made when it is new."""
    settings = _settings(port=port, data_dir=data_dir)
    configure_logs(settings)
    with serving.listen(settings) as listener, serving.database(settings) as engine:
        migrations.check(engine)
        serving.first_admin_key(engine, settings, make=False)
        serving.check_reachable_only_with_keys(engine, settings)
        _say(f"http://{_reachable(settings.host)}:{listener.getsockname()[1]}")
        serving.serve(settings, listener)


@app.command()
def worker(
    until_idle: Annotated[bool, typer.Option(help="end when nothing is queued or running")] = False,
    devices: Annotated[
        int | None, typer.Option(help="that pretrain together; default: SHORTLIST_DEVICES, else 1")
    ] = None,
    data_dir: DataDir = None,
) -> None:
    """A worker alone; any number, on any machine that reaches database and artifacts."""
    settings = _settings(devices=devices, data_dir=data_dir)
    command = [sys.executable, "-m", "worker", *(["--until-idle"] if until_idle else [])]
    os.execve(command[0], command, _environment(settings))


@app.command()
def migrate(data_dir: DataDir = None) -> None:
    """Bring the database to the newest schema."""
    with serving.database(_settings(data_dir=data_dir)) as engine:
        before = migrations.current(engine)
        migrations.upgrade(engine)
        after = migrations.current(engine)
    print(f"The database is at revision {after}" + (", as before." if before == after else "."))


@app.command()
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


@keys_app.command("add")
def add_key(
    name: str,
    role: Annotated[Literal["admin", "annotator", "reader"], typer.Option()] = "annotator",
    project: Annotated[str | None, typer.Option(help="the only project it may see, by name or id")] = None,
    annotator: Annotated[str | None, typer.Option(help="the only annotator it may act for")] = None,
    data_dir: DataDir = None,
) -> None:
    """Make a key and show it, once."""
    settings = _settings(data_dir=data_dir)
    with serving.database(settings) as engine:
        migrations.check(engine)
        with write_session(engine) as session:
            project_id = _project(session, project).id if project else None
            _, token = key_rules.create(
                session, key_rules.server_secret(settings), name=name, role=role, project_id=project_id,
                annotator=annotator,
            )  # fmt: skip
    print(token)


@keys_app.command("list")
def list_keys(data_dir: DataDir = None) -> None:
    """All keys, also revoked ones; never the keys themselves."""
    with serving.database(_settings(data_dir=data_dir)) as engine:
        migrations.check(engine)
        with read_session(engine) as session:
            for key in session.scalars(sa.select(Key).order_by(Key.id)):
                bound = public_id("p", key.project_id) if key.project_id else "all projects"
                state = "revoked" if key.revoked_at else "good"
                row = (key_rules.public(key), key.role, bound, key.annotator or "", state, key.name)
                print("\t".join(row))


@keys_app.command("revoke")
def revoke_key(id: str, data_dir: DataDir = None) -> None:
    """At once: the next request with it is refused."""
    with serving.database(_settings(data_dir=data_dir)) as engine:
        migrations.check(engine)
        with write_session(engine) as session:
            key_rules.revoke(session, key_rules.find(session, id, None), utc_now())
    print(f"{id} is revoked.")


@connect_app.command("label-studio")
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
    add_classes: Annotated[
        bool, typer.Option("--add-classes", help="add the classes that only Label Studio has")
    ] = False,
    data_dir: DataDir = None,
) -> None:
    """A project of Label Studio and one here become one: tasks are items, annotations labels, and it shows next what is
    ranked first. The service follows it while it runs."""
    from service.integrations.label_studio import connect  # here, because it loads the web framework

    settings = _settings(data_dir=data_dir)
    wanted = connect.Wanted(url, token, tool_project, callback, top, add_classes)
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


OfProject = Annotated[str | None, typer.Option("--project", help="by name or id; default: the only one")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="say what it would do, and do nothing")]


@classes_app.command("list")
def list_classes(project: OfProject = None, data_dir: DataDir = None) -> None:
    """Each class, its current labels, its items in the pool and in the test split, and the names it had before."""
    with serving.database(_settings(data_dir=data_dir)) as engine:
        migrations.check(engine)
        with read_session(engine) as session:
            for use in class_changes.uses(
                session, _project(session, project, "shortlist classes list --project NAME")
            ):
                before = f"was {', '.join(use.aliases)}" if use.aliases else ""
                effects = use.effects
                row = (use.name, f"{effects.labels:,} labels", f"{effects.items:,} items",
                       f"{effects.test_items:,} test items", before)  # fmt: skip
                print("\t".join(row).rstrip())


@classes_app.command("rename")
def rename_class(
    name: str, to: str, project: OfProject = None, dry_run: DryRun = False, data_dir: DataDir = None
) -> None:
    """Give a class another name, wherever it stands."""
    _change_classes(Wanted("rename", (name,), to), project, dry_run, data_dir)


@classes_app.command("merge")
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


@classes_app.command("add")
def add_classes(
    names: list[str], project: OfProject = None, dry_run: DryRun = False, data_dir: DataDir = None
) -> None:
    """Add classes."""
    _change_classes(Wanted("add", tuple(names)), project, dry_run, data_dir)


@classes_app.command("remove")
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
    with serving.database(_settings(data_dir=data_dir)) as engine:
        migrations.check(engine)
        with write_session(engine) as session:
            found = _project(session, project, f"shortlist classes {wanted.kind} … --project NAME")
            changed = class_changes.change(session, found, wanted, by=None, dry_run=dry_run)
    for sentence in changed.says:
        print(sentence)
    if dry_run:
        print("Nothing was changed: this was a dry run.")


@app.command()
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
    settings = _settings(data_dir=data_dir)
    with ExitStack() as stack:
        engine = stack.enter_context(serving.database(settings))
        migrations.check(engine)
        with read_session(engine) as session:
            found = _project(session, project)
            labels = labels_out(engine, session, found, chosen, ItemBytes(settings), history)
        file = stack.enter_context(output.open("wb")) if output else sys.stdout.buffer
        for piece in chosen.write(labels):
            file.write(piece)
    for note in labels.notes:
        print(f"Left out: {note}", file=sys.stderr)


@app.command(name="import-labels")
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

    with serving.database(_settings(data_dir=data_dir)) as engine:
        migrations.check(engine)
        with read_session(engine) as session:
            found = _project(
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


@app.command(name="settings")
def show_settings() -> None:
    """Every setting: its environment variable, the value in force (secrets masked) and what it means."""
    settings = read_settings()
    for name, field in Settings.model_fields.items():
        print(f"SHORTLIST_{name.upper()}={_shown(name, getattr(settings, name))}")
        print(f"    {field.description or ''}".rstrip())


def _project(
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


def _settings(
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


def _environment(settings: Settings) -> dict[str, str]:
    """For a worker process: the same settings."""
    return os.environ | {
        "SHORTLIST_DATA_DIR": str(settings.data_dir),
        "SHORTLIST_DEVICES": str(settings.devices),
        "SHORTLIST_SOURCE_ROOTS": _listed(settings.source_roots),
    }


def _listed(places: tuple[str, ...]) -> str:
    return json.dumps(places) if any("," in place for place in places) else ",".join(places)


def _shown(name: str, value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, SecretStr):
        return "********"
    if name == "database_url":
        return sa.make_url(str(value)).render_as_string(hide_password=True)
    return _listed(value) if isinstance(value, tuple) else str(value)


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
    _say(f"Dashboard: {address}/{'#' if fragment else ''}{fragment}")
    if not shown:
        _say(f"Its admin key was shown at the first start. Make another: {make}")
    if new_key and not preset:
        _say(f"Admin key, shown this once: {new_key}")
    if run_key:
        _say(f"Admin key, good until this stops: {run_key}")
        _say(f"To make one that lasts: {make}")
    at = f"{address}/projects/{project}" if project else address
    header = f'-H "Authorization: Bearer {shown or "$KEY"}" -H "Content-Type: application/json"'
    batch = shlex.quote(json.dumps({"annotator": "ann", "size": 10}))
    label = shlex.quote(json.dumps({"labels": [{"item": "ITEM", "class": "CLASS", "annotator": "ann"}]}))
    _say(f"\nThe next ten items, and a label for one of them:\n  curl -s {at}/next-batch {header} -d {batch}")
    _say(f"  curl -s {at}/labels {header} -d {label}\n")


def _say(sentence: str) -> None:
    print(sentence, flush=True)


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


if __name__ == "__main__":
    main()

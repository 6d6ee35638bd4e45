"""`shortlist up`: the service in this process, a worker in another, and a folder or file of items set to work."""

import csv
import fcntl
import os
import shlex
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

import sqlalchemy as sa
from sqlalchemy.orm import Session

from service.access import keys
from service.content.archives import ARCHIVES, is_archive
from service.content.graph_files import file_of
from service.content.lines import ENDINGS
from service.content.molecules import MOLECULES
from service.content.reader import ItemBytes, is_url, local_path, place_as_text, uploaded_to
from service.content.sources import PARQUET, Manifest, list_source
from service.errors import (
    AlreadyRunning,
    ClassesDiffer,
    ClassesFileUnreadable,
    ClassesMissing,
    FolderGone,
    ItemsMissing,
    NameOfAnotherFolder,
    NoClassFolders,
    ShortlistError,
)
from service.labeling import folder_labels
from service.models import jobs, training
from service.operations import import_report
from service.pool import sources
from service.pool.items import Split
from service.projects import projects
from service.settings import Settings
from service.store.catalogue import live_workers
from service.store.class_names import ClassNames
from service.store.ids import public_id
from service.store.names import composed
from service.store.project_settings import ProjectSettings
from service.store.session import read_session, write_session
from service.store.tables import Job, PretextModel, Project, Source, utc_now

RESTART_S = (1.0, 60.0)  # the first wait before a dead worker is started again, and the longest
NEEDS_A_PERSON = 78  # exit status of a worker that starting again would not help
STOP_S = 15.0
LOOK_S = 0.5
PROGRESS_S = 10.0  # between two sentences about how far an import has come
WAITING_LOOK_S = 20.0

Say = Callable[[str], None]


Folders = Literal["labels", "test", "names"]
FROM_FOLDERS = "from-folders"


@dataclass(frozen=True)
class ItemsGiven:
    """A folder or a file of items, by absolute path or URL; what has to be readable for it; a name for its project."""

    place: Path | str
    root: Path | str
    name: str


def check_items(items: Path | str) -> ItemsGiven:
    """A path or a URL. Raises `ItemsMissing`, and `SourceUnreadable` for a manifest that cannot be
    read.
    """
    url = str(items).rstrip("/")
    if is_url(url) and not url.lower().startswith("file://"):
        return _remote(url)
    if not str(items).strip():
        raise ItemsMissing(path=str(items), fault="names nothing")
    place = Path(os.path.expanduser(local_path(str(items)))).resolve()
    if place.is_dir():
        given = ItemsGiven(place, place, _as_name(place.name))
    elif place.is_file() and is_archive(place.name):
        given = ItemsGiven(place, place, _as_name(_without_endings(place.name)))
    elif place.is_file() and place.suffix.lower() in PARQUET + ENDINGS:
        # A manifest may name files beside it; what holds the items itself needs nothing else.
        beside = place.suffix.lower() in ENDINGS and Manifest(str(place), None, None).names_places()
        given = ItemsGiven(place, place.parent if beside else place, _as_name(place.stem))
    elif place.is_file() and place.suffix.lower() in MOLECULES:
        given = ItemsGiven(place, place, _as_name(place.stem))
    elif (file := Path(file_of(str(place)))) != place and file.is_file():  # its nodes are items
        beside = "&attributes=" in place.name
        given = ItemsGiven(place, file.parent if beside else file, _as_name(file.stem))
    else:
        fault = (
            "is none of what items come in"
            if os.path.lexists(place)
            else "is not there; see that it is mounted"
        )
        raise ItemsMissing(path=str(items), fault=fault)
    return given


def _without_endings(name: str) -> str:
    """`pool.tar.gz` is `pool`."""
    return next(name[: -len(ending)] for ending in ARCHIVES if name.lower().endswith(ending)) or name


def _as_name(name: str) -> str:
    """The name of a project: question marks stand for what is no Unicode."""
    return os.fsencode(name).decode(errors="replace")


def _remote(url: str) -> ItemsGiven:
    """A bucket, or a file in one; whether it is there, its import finds out."""
    name = url.rpartition("/")[2]
    beside = name.lower().endswith(ENDINGS)  # a manifest may name files beside it
    return ItemsGiven(url, url.rpartition("/")[0] if beside else url, name.partition(".")[0])


def folder_classes(settings: Settings, place: Path | str) -> list[str]:
    """The folders that items lie in, as an import of a test split takes them for classes. Raises
    `SourceUnreadable`, `NoClassFolders`.
    """
    listing = list_source(place_as_text(str(place)), ItemBytes(settings), None, None)
    found = {composed(one.class_name) for one in listing if one.class_name} if listing.tell() else set()
    if len(found) < 2:
        raise NoClassFolders(place=str(place), found=", ".join(found) or "none")
    return sorted(found)


def read_classes(listed: str, file: Path | None) -> list[str]:
    """The names of the classes: comma-separated, those with a comma in quotes; then those of the file, one a line.

    Raises `ClassesFileUnreadable`.
    """
    names = next(csv.reader([listed], skipinitialspace=True), [])
    if file is not None:
        try:
            names += Path(os.path.expanduser(file)).read_text("utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ClassesFileUnreadable(path=str(file), reason=error) from error
    return [composed(name.strip()) for name in names if name.strip()]


@contextmanager
def alone_in(data_dir: Path) -> Iterator[None]:
    """Two would revoke each other's keys and run a worker each. The lock ends with the process, however it ends.
    Raises `AlreadyRunning`."""
    with (data_dir / "up.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AlreadyRunning(path=str(data_dir)) from None
        yield


@contextmanager
def key_of_this_run(engine: sa.Engine, settings: Settings) -> Iterator[str]:
    """An admin key that is good until this ends, for the page that is opened from it. Whoever can start this could
    make one that lasts. What a killed run in this data folder left is revoked.
    """
    name = f"shortlist up in {place_as_text(str(settings.data_dir.resolve()))} on {socket.gethostname()}"
    with write_session(engine) as session:
        keys.revoke_named(session, name, utc_now())
        _, token = keys.create(session, keys.server_secret(settings), name=name, role="admin")
    try:
        yield token
    finally:
        with write_session(engine) as session:
            keys.revoke_named(session, name, utc_now())


def with_known_sources(engine: sa.Engine, settings: Settings) -> Settings:
    """The folders and files that earlier starts imported from were allowed then, and are now."""
    with read_session(engine) as session:
        known = session.scalars(sa.select(Source.uri).distinct().order_by(Source.uri))
        local = [file_of(uri) for uri in known if uri.startswith(("/", "file://"))]
    return settings.model_copy(
        update={"source_roots": tuple(dict.fromkeys((*settings.source_roots, *local)))}
    )


def queue_items(
    session: Session,
    settings: Settings,
    items: Path | str,
    name: str,
    classes: list[str],
    wished: str | None = None,
    accept_missing: bool = False,
    split: Split = "pool",
) -> tuple[int, int]:
    """The project of the folder or file, made when missing, and the job that imports it. Nothing is imported twice.

    name: of a new project; wished: of the one that people named, whatever it was made of. Returns both row numbers.
    Raises `ClassesMissing`, `ClassesDiffer`, `NameOfAnotherFolder`, `FolderGone` and what making a project raises.
    """
    project = _named(session, wished) if wished is not None else _made_of(session, items, split)
    if project is None and wished is None:
        project, name = _new_name(session, items, name, classes)
    if project is None:
        if not classes:
            raise ClassesMissing(name=wished or name)
        project = projects.create(
            session, name=wished or name, classes=classes, settings=ProjectSettings(), pretext_from=None
        )
    elif None in map(ClassNames(project).now, classes):
        raise ClassesDiffer(
            name=project.name, classes=", ".join(project.classes), id=public_id("p", project.id)
        )
    waiting = session.scalar(
        sa.select(Source.job_id)
        .join(Job, Job.id == Source.job_id)
        .where(Source.project_id == project.id, Source.uri == place_as_text(str(items)), _unfinished())
        .limit(1)
    )
    if waiting is None:  # again also for a known folder: what is new in it comes in
        _, job = sources.add(
            session,
            project,
            ItemBytes(settings),
            uri=place_as_text(str(items)),
            split=split,
            label_column=None,
            accept_missing=accept_missing,
        )
        waiting = job.id
    return project.id, waiting


def _named(session: Session, name: str) -> Project | None:
    return session.scalar(sa.select(Project).where(Project.name == name))


def _made_of(session: Session, items: Path | str, split: Split) -> Project | None:
    """The first one whose pool, or test split, came from this very folder or file."""
    query = sa.select(Project).join(Source, Source.project_id == Project.id).order_by(Project.id).limit(1)
    return session.scalar(query.where(Source.uri == place_as_text(str(items)), Source.split == split))


def _first_source(session: Session, project: Project) -> str | None:
    query = sa.select(Source.uri).where(Source.project_id == project.id, Source.split == "pool")
    return session.scalar(query.order_by(Source.id).limit(1))


def _new_name(
    session: Session, items: Path | str, name: str, classes: list[str]
) -> tuple[Project | None, str]:
    """A project of this name that nothing was imported to yet, if any; else a name for a new one. Two folders may have
    the same last name. Raises `NameOfAnotherFolder`, `FolderGone`.
    """
    place = place_as_text(str(items))
    for known in session.scalars(sa.select(Project).where(Project.state != "archived").order_by(Project.id)):
        other = _first_source(session, known)
        said = {
            "name": known.name,
            "other": other,
            "place": place_as_text(str(items)),
            "quoted": shlex.quote(known.name),
        }
        if other is None:
            if known.name == name:
                return known, name
        elif (
            not is_url(other)
            and uploaded_to(other) is None
            and not Path(file_of(other)).exists()
            and (known.name == name or (classes and set(classes) == set(known.classes)))
        ):
            raise FolderGone(**said)
        elif known.name == name and not classes:
            raise NameOfAnotherFolder(**said)
    if _named(session, name) is not None:
        name = f"{name} in {place.rpartition('/')[0]}"
    return None, name


def pretrain_after_import(
    engine: sa.Engine,
    project_id: int,
    job_id: int,
    say: Say,
    stopping: threading.Event,
    label_folders: bool = False,
    pretrain: bool = True,
) -> None:
    """Wait for the import, then label by folder, where that is wanted, and queue the pretraining unless there is or
    will be a pretext model. The first ranking comes first, by raw features: after it pretrained weights may ask for the
    long lane, before the pretraining.
    """
    said, says_next = None, time.monotonic() + PROGRESS_S
    while True:
        with read_session(engine) as session:
            job = session.get(Job, job_id)
        if job is None or job.state not in ("queued", "running"):
            break
        if time.monotonic() >= says_next and job.message and job.message != said:
            said, says_next = job.message, time.monotonic() + PROGRESS_S
            say(f"Importing: {said}.")
        if stopping.wait(LOOK_S):
            return
    if job is None or job.state != "succeeded":
        say(f"The items were not imported. {(job and job.error) or 'The job was cancelled.'}")
        return
    for sentence in import_report.sentences(job.result or {}, public_id("p", project_id)):
        say(sentence)
    if label_folders:
        stored = folder_labels.store(engine, project_id)
        say(f"Labeled by their folders, as {folder_labels.ANNOTATOR!r}: {stored:,} items.")
    if not pretrain:
        return
    while _ranks_first(engine, project_id):
        if stopping.wait(LOOK_S):
            return
    with write_session(engine) as session:
        project = session.get(Project, project_id)
        if project is None or _has_pretext_model(session, project):
            return
        try:
            training.pretrain(session, project)
        except ShortlistError as error:
            say(str(error))
            return
    say("Pretraining on them is queued; until it is done, batches are ranked provisionally.")


def say_what_waits(
    engine: sa.Engine, say: Say, stopping: threading.Event, every_s: float = WAITING_LOOK_S
) -> None:
    """Once, when a job comes to wait for a worker that can do more than those that are alive. Whether one is alive at
    all, its keeper says.
    """
    said: set[str] = set()
    while not stopping.wait(every_s):
        with read_session(engine) as session:
            found = jobs.waiting(session, None) if live_workers(session) else []
        sentences = {f"A job {one.kind} waits for {one.waits_for}" for one in found}
        for sentence in sorted(sentences - said):
            say(sentence)
        said = sentences


def _unfinished() -> sa.ColumnElement[bool]:
    return Job.state.in_(("queued", "running"))


def _ranks_first(engine: sa.Engine, project_id: int) -> bool:
    """True while the score run by raw features is waited for."""
    waiting = sa.select(Job.id).where(Job.project_id == project_id, Job.kind == "score_raw", _unfinished())
    with read_session(engine) as session:
        return session.scalar(waiting.limit(1)) is not None


def _has_pretext_model(session: Session, project: Project) -> bool:
    """Or will have one: its training is waiting or running."""
    trained = sa.exists().where(PretextModel.project_id == project.id, PretextModel.state == "ready")
    in_work = sa.exists().where(Job.project_id == project.id, Job.kind == "train_pretext", _unfinished())
    return bool(session.scalar(sa.select(sa.or_(trained, in_work))))


class WorkerKeeper:
    """Keeps one worker process running; its output goes to ours. It also ends when we are killed."""

    def __init__(self, environment: dict[str, str], say: Say, command: tuple[str, ...] = ()) -> None:
        self._command = command or (sys.executable, "-m", "worker", "--stop-on-eof")
        self._environment, self._say = environment, say
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._keep, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Let it hand back its job; kill it when that takes too long."""
        with self._lock:
            self._stopping.set()
            process = self._process
        if process is not None and self.running():
            process.terminate()
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
        self._thread.join()

    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def _keep(self) -> None:
        wait_s, longest_s = RESTART_S
        while True:
            with self._lock:
                if self._stopping.is_set():
                    return
                self._process = subprocess.Popen(self._command, env=self._environment, stdin=subprocess.PIPE)
            status = self._process.wait()
            _close(self._process.stdin)
            if self._stopping.is_set() or status == 0:  # Ctrl-C reaches the worker too
                return
            if status == NEEDS_A_PERSON:
                self._say("The worker cannot run, see above. The service goes on without it.")
                return
            self._say(f"The worker ended with status {status}; it starts again in {wait_s:.0f} s.")
            self._stopping.wait(wait_s)
            wait_s = min(2 * wait_s, longest_s)


def _close(pipe: IO[bytes] | None) -> None:
    if pipe is not None:
        pipe.close()

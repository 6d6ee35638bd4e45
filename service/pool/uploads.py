"""Uploads: files that people send from their browser, kept among the artifacts, then imported as sources.

An upload is a folder with a name that nobody can guess; it needs no row. A file is there whole or not at all. What
nobody imports is deleted in the end: nothing else knows of it.
"""

import re
import secrets
from collections.abc import Iterator
from pathlib import PurePosixPath

import anyio
import anyio.to_thread
import sqlalchemy as sa
import structlog

from service.content.archives import is_archive
from service.content.lines import ENDINGS
from service.content.molecules import MOLECULES
from service.content.reader import UPLOAD_FOLDER, upload_uri
from service.content.sources import PARQUET
from service.errors import ArtifactNotStored, Invalid, NotFound
from service.store.artifacts import Artifacts
from service.store.names import composed
from service.store.session import read_session
from service.store.tables import Item, Project, Source

_ID = re.compile(r"[0-9a-f]{16}")
_LONGEST_PATH, _LONGEST_NAME = (
    900,
    255,
)  # bytes: of a key with its folders, and of a file's name on most disks
_KEPT_FREE = 256 * 2**20  # for all else that is stored
ABANDONED_S = 48 * 3600.0  # after its last file, an upload that nobody imported
SWEEP_S = 3600.0

log = structlog.get_logger()


def new_id() -> str:
    return secrets.token_hex(8)


def artifact_name(project: Project, upload: str, path: str) -> str:
    """Raises `NotFound` where that is no upload's id, `Invalid` for a path that leads out of it or that no disk
    takes.
    """
    return f"{folder(project, upload)}/{_clean(path)}"


def folder(project: Project, upload: str) -> str:
    if not _ID.fullmatch(upload):
        raise NotFound(what="upload", id=upload)
    return f"{UPLOAD_FOLDER}/{project.id}/{upload}"


def room(artifacts: Artifacts) -> int | None:
    """Bytes that may be uploaded; None where that is not told."""
    free = artifacts.room()
    return None if free is None else max(0, free - _KEPT_FREE)


def check_room(artifacts: Artifacts, path: str, size: int) -> None:
    """Raises `ArtifactNotStored` before anything is written."""
    free = room(artifacts)
    if free is not None and size > free:
        raise ArtifactNotStored(name=path, reason=f"it has {size:,} bytes, and {free:,} are free")


def sources_in(artifacts: Artifacts, project: Project, upload: str) -> list[str]:
    """The places to import, as `POST …/sources` takes them: each archive and each table by itself, and the folder,
    where it holds other files. Empty where nothing was uploaded.
    """
    within = folder(project, upload)
    names = [name.removeprefix(f"{within}/") for name in artifacts.names(within)]
    names = [name for name in names if not PurePosixPath(name).name.startswith(".")]
    alone = list(filter(_stands_alone, names))
    return [
        *([upload_uri(project.id, upload)] if len(alone) < len(names) else []),
        *(upload_uri(project.id, f"{upload}/{name}") for name in alone),
    ]


def _stands_alone(name: str) -> bool:
    return is_archive(name) or PurePosixPath(name).suffix.lower() in PARQUET + ENDINGS + MOLECULES


def _clean(path: str) -> str:
    parts = list(_parts(path))
    if not parts:
        raise Invalid(field="path", message="a file has a name.")
    if len("/".join(parts).encode()) > _LONGEST_PATH:
        raise Invalid(field="path", message=f"a path has at most {_LONGEST_PATH} bytes.")
    return "/".join(parts)


def _parts(path: str) -> Iterator[str]:
    for part in composed(path).replace("\\", "/").split("/"):
        if part == "..":
            raise Invalid(field="path", message=f"{path!r} leads out of the upload.")
        if any(ord(letter) < 32 or "\ud800" <= letter <= "\udfff" for letter in part):
            raise Invalid(field="path", message=f"{path!r} has characters that no file name should have.")
        if len(part.encode()) > _LONGEST_NAME:
            raise Invalid(field="path", message=f"a name in a path has at most {_LONGEST_NAME} bytes.")
        if part not in ("", "."):
            yield part


async def sweep(engine: sa.Engine, artifacts: Artifacts, every_s: float = SWEEP_S) -> None:
    """Delete abandoned uploads, until cancelled. Every service process does so, beside its requests."""
    while True:
        try:
            await anyio.to_thread.run_sync(delete_abandoned, engine, artifacts)
        except (
            Exception
        ) as error:  # each file system has its client's own classes; they are there the next time
            log.warning("uploads not looked at", reason=str(getattr(error, "orig", error)))
        await anyio.sleep(every_s)


def delete_abandoned(engine: sa.Engine, artifacts: Artifacts) -> None:
    """Delete the uploads that nobody imported, two days after their last file."""
    for project in artifacts.folders(UPLOAD_FOLDER):
        for upload in artifacts.folders(project):
            place = f"upload:{upload.removeprefix(f'{UPLOAD_FOLDER}/')}"
            idle_s = None if _is_imported(engine, place) else artifacts.idle_s(upload)
            if idle_s is not None and idle_s > ABANDONED_S:
                artifacts.delete(upload)
                log.info("abandoned upload deleted", upload=place)


def _is_imported(engine: sa.Engine, place: str) -> bool:
    """Also by a project that is gone, where a copy has the items."""
    with read_session(engine) as session:
        for uri in (Source.uri, Item.uri):
            within = sa.or_(uri == place, uri.startswith(f"{place}/", autoescape=True))
            if session.scalar(sa.select(sa.exists().where(within))):
                return True
    return False

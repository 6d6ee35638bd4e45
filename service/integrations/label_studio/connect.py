"""Connecting: the tool is asked before anything is stored, so a wrong token or project is told at once."""

from collections.abc import Callable
from dataclasses import dataclass

import anyio
import sqlalchemy as sa
from sqlalchemy.orm import Session

from service.access import keys
from service.integrations.label_studio import connections, labeling_config, vault
from service.integrations.label_studio.client import KNOWN_VERSION, LabelStudio, checked_url
from service.integrations.label_studio.labeling_config import LabelingConfig
from service.projects import projects
from service.settings import Settings
from service.store.ids import public_id
from service.store.project_settings import ProjectSettings
from service.store.session import write_session
from service.store.tables import Project, ToolConnection


@dataclass(frozen=True)
class Wanted:
    """A connection as it is asked for. callback_url: of this service, as the tool reaches it; without one the tool is
    asked every few seconds.
    """

    url: str
    token: str
    tool_project: int
    callback_url: str | None = None
    top: int = connections.DEFAULT_TOP
    batch_push: bool = False
    low_water: int = connections.DEFAULT_LOW_WATER
    pre_annotate: bool = False
    add_classes: bool = False


@dataclass(frozen=True)
class Found:
    """The project as the tool describes it."""

    url: str
    title: str
    config: LabelingConfig
    version: str | None
    warning: str | None


def checked_callback(url: str) -> str:
    """An address of this service may well lie in a private network. Raises `ToolAddressRefused`."""
    return checked_url(url, private_allowed=True)


def client(settings: Settings, url: str, token: str) -> LabelStudio:
    return LabelStudio(url, token, private_allowed=settings.tools_at_private_addresses)


async def look(settings: Settings, wanted: Wanted) -> Found:
    """The project is there, and its configuration can be used; nothing is changed there.

    Raises the errors of `LabelStudio`, and `LabelingConfigUnusable`.
    """
    async with client(settings, wanted.url, wanted.token) as tool:
        project = await tool.project(wanted.tool_project)
        config = labeling_config.parse(str(project.get("label_config", "")))
        version = await tool.version()
        return Found(tool.url, str(project.get("title", "")), config, version, version_warning(version))


def store(
    secret: bytes, wanted: Wanted, found: Found, project_of: Callable[[Session], Project]
) -> Callable[[Session], ToolConnection]:
    """A step of a transaction. Raises what `connections.create` does."""
    callback = wanted.callback_url.rstrip("/") if wanted.callback_url else None

    def step(session: Session) -> ToolConnection:
        return connections.create(
            session,
            project_of(session),
            url=found.url,
            tool_project=wanted.tool_project,
            token=vault.encrypted(secret, wanted.token),
            config=found.config,
            callback_url=callback,
            top=wanted.top,
            batch_push=wanted.batch_push,
            low_water=wanted.low_water,
            pre_annotate=wanted.pre_annotate,
            add_classes=wanted.add_classes,
            tool_version=found.version,
            warning=found.warning,
        )

    return step


@dataclass(frozen=True)
class Connected:
    """A new connection as people are told of it. secret: of the calls of the tool."""

    url: str
    title: str
    project: str
    id: str
    warning: str | None
    secret: str


def connected(engine: sa.Engine, settings: Settings, wanted: Wanted, into: str | None) -> Connected:
    """Connect to the project `into`, by name or id; without it to the one with the tool's title, made where there is
    none. Raises what `look` and `connections.create` do.
    """
    if wanted.callback_url is not None:
        checked_callback(wanted.callback_url)
    found = anyio.run(look, settings, wanted)
    secret = keys.server_secret(settings)

    def project_of(session: Session) -> Project:
        named = session.scalar(sa.select(Project).where(Project.name == (into or found.title)))
        if named is not None or into is not None:
            return named or projects.find(session, str(into))
        return projects.create(
            session,
            name=found.title,
            classes=found.config.classes,
            settings=ProjectSettings(),
            pretext_from=None,
            modality=found.config.kind,
            label_kind="multi" if found.config.several else "single",
        )

    with write_session(engine) as session:
        connection = store(secret, wanted, found, project_of)(session)
        project = session.get_one(Project, connection.project_id)
        return Connected(
            url=found.url,
            title=found.title,
            project=project.name,
            id=public_id("p", project.id),
            warning=found.warning,
            secret=connections.shared_secret(secret, connection.nonce),
        )


def version_warning(version: str | None) -> str | None:
    """None where this is a version that was tested."""
    if version is not None and version.startswith(f"{KNOWN_VERSION}."):
        return None
    told = f"It says it is version {version}" if version else "It does not say its version"
    return f"{told}; this was tested with {KNOWN_VERSION}, and should work as long as its API is the same."

"""Connecting: the tool is asked before anything is stored, so a wrong token or project is told at once."""

from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy.orm import Session

from service.integrations.label_studio import connections, labeling_config, vault
from service.integrations.label_studio.client import LabelStudio, checked_url
from service.integrations.label_studio.labeling_config import LabelingConfig
from service.settings import Settings
from service.store.tables import Project, ToolConnection

SAMPLING = "Uncertainty sampling"
KNOWN_VERSION = "1.23"


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
    add_classes: bool = False


@dataclass(frozen=True)
class Found:
    """What the tool says of its project."""

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
    """The project is there, its configuration can be used, and its tasks are ordered by predictions from now on.

    Raises the errors of `LabelStudio`, and `LabelingConfigUnusable`.
    """
    async with client(settings, wanted.url, wanted.token) as tool:
        project = await tool.project(wanted.tool_project)
        config = labeling_config.parse(str(project.get("label_config", "")))
        version = await tool.version()
        if project.get("sampling") != SAMPLING:
            await tool.change_project(wanted.tool_project, sampling=SAMPLING)
        return Found(tool.url, str(project.get("title", "")), config, version, _warning(version))


def store(
    secret: bytes, wanted: Wanted, found: Found, project_of: Callable[[Session], Project]
) -> Callable[[Session], ToolConnection]:
    """A step of a transaction. Raises what `connections.create` does."""
    callback = wanted.callback_url.rstrip("/") if wanted.callback_url else None

    def step(session: Session) -> ToolConnection:
        return connections.create(
            session, project_of(session), url=found.url, tool_project=wanted.tool_project,
            token=vault.encrypted(secret, wanted.token), config=found.config, callback_url=callback,
            top=wanted.top, add_classes=wanted.add_classes, tool_version=found.version, warning=found.warning,
        )  # fmt: skip

    return step


def _warning(version: str | None) -> str | None:
    if version is not None and version.startswith(f"{KNOWN_VERSION}."):
        return None
    told = f"It says it is version {version}" if version else "It does not say its version"
    return f"{told}; this was tested with {KNOWN_VERSION}, and should work as long as its API is the same."

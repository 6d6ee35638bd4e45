"""Everything an operator may set. Each field is also the environment variable ``SHORTLIST_<NAME>``.

Settings are read once, in the two mains, and passed in from there. Units stand in the names.
"""

import json
import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import quote, urlsplit

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from service.errors import BadSettings

# Looked at without SQLAlchemy: what computes reads settings, too, and knows no database.
_DATABASE_URL = re.compile(r"[A-Za-z][\w+]*://")


class Settings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="SHORTLIST_", frozen=True, env_ignore_empty=True)

    data_dir: Path = Field(
        Path("shortlist-data"), description="folder of the embedded database and artifacts"
    )
    database_url: str | None = Field(
        None, description="SQLAlchemy URL; default: SQLite in data_dir. PostgreSQL: postgresql+psycopg://…"
    )
    artifacts_url: str | None = Field(
        None, description="fsspec URL of the artifact store; default: data_dir/artifacts"
    )
    source_roots: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="comma-separated folders or fsspec URLs below which sources may lie; as a JSON array where a name "
        "has a comma in it",
    )

    host: str = Field("127.0.0.1", description="address the service binds to")
    port: int = Field(8000, ge=0, le=65535, description="port the service listens on; 0 takes a free one")
    admin_key: SecretStr | None = Field(
        None, description="presets the first admin key (at least 16 characters); default: made and shown once"
    )
    secret: SecretStr | None = Field(
        None,
        description="signs links to items and hashes keys; the same in all services; default: a file in data_dir",
    )
    content_link_ttl_s: int = Field(3600, ge=1, description="how long the signed link to an item works")
    sign_in_ttl_s: int = Field(
        14 * 24 * 3600, ge=60, description="how long a browser stays signed in to the page"
    )
    max_body_bytes: int = Field(32 * 2**20, ge=1024, description="largest request body; larger is 413")

    rate_limit_per_s: float = Field(
        200.0,
        ge=0,
        description="requests a second and key that a service answers, 10 s at once; 0 is no limit",
    )

    event_streams_per_key: int = Field(
        20, ge=1, description="event streams (GET …/events) that a key may listen to at the same time"
    )
    event_stream_s: float = Field(
        3600.0, gt=0, description="an event stream ends after so long; listeners come back by themselves"
    )
    webhooks_to_private_addresses: bool = Field(
        False, description="whether webhooks may be sent to loopback and private addresses"
    )

    tools_at_private_addresses: bool = Field(
        True,
        description="whether annotation tools that a project is connected to, and the places their tasks name, may lie "
        "in private networks; link-local addresses are refused in any case",
    )

    max_item_bytes: int = Field(
        2**30,
        ge=1,
        description="an item with more bytes is quarantined, be it a file, an object of a bucket, a member of an "
        "archive or a row; of files, objects and members no byte is read",
    )
    max_image_pixels: int = Field(
        64_000_000, ge=1, description="an image with more pixels is quarantined, never decoded"
    )
    max_video_pixels: int = Field(
        4096 * 2304, ge=1, description="a video whose frames have more pixels is quarantined, never decoded"
    )
    max_text_bytes: int = Field(1_000_000, ge=1, description="a text with more bytes is quarantined")
    max_graph_bytes: int = Field(
        16 * 2**20, ge=1, description="a graph with more bytes of JSON or GraphML is quarantined"
    )

    device: str = Field("auto", description="auto, cpu, cuda, cuda:1, …; cuda:1,cuda:3 for `devices`")
    devices: int = Field(
        1, ge=1, description="devices that train a pretext model together; without CUDA as many CPU processes"
    )
    threads: int | None = Field(None, ge=1, description="torch and decode threads; default: all cores")
    pretrained: Literal["auto", "offline", "off"] = Field(
        "auto",
        description="where `backbone: auto` looks for pretrained weights: `pretrained_file`, the extra `[pretrained]`, "
        "the cache of the hub, and the hub, which has 10 s to answer; those of texts and recordings are in the extras "
        "`[pretrained-text]` and `[pretrained-speech]` only; `offline` asks no hub, `off` looks nowhere",
    )
    pretrained_file: Path | None = Field(
        None,
        description="weights of images (EfficientNet-Lite2), a `.pth` or `.safetensors` file; read before other places",
    )
    pretrained_sha256: str | None = Field(
        None, pattern="^[0-9a-f]{64}$", description="of `pretrained_file`; another file is not used"
    )
    lease_s: float = Field(
        30.0, gt=0, description="a job whose worker is silent this long is given to another"
    )
    poll_s: float = Field(0.25, gt=0, description="how often an idle worker looks for a job")
    lanes: Annotated[tuple[Literal["short", "long"], ...], NoDecode] = Field(
        ("short", "long"),
        min_length=1,
        description="comma-separated lanes of jobs this worker serves, each in a process of its own: `long` pretrains, "
        "scores and trains heads on items, `short` does all else",
    )
    engine: Literal["local", "processes"] = Field(
        "local",
        description="where scoring shards run: `local`, in the process of the job, which loads one while it computes "
        "another; `processes`, in as many of their own as there are `devices`, of which a killed one costs one shard",
    )
    shard_size: int = Field(2048, ge=1, description="items per scoring shard")
    checkpoint_interval_s: float = Field(60.0, gt=0, description="a pretraining is checkpointed this often")
    memory_cache_bytes: int = Field(
        2 * 2**30, ge=0, description="decoded pools up to this size stay in memory while training"
    )
    decoded_cache_bytes: int = Field(
        100 * 2**30,
        ge=0,
        description="larger ones lie decoded on the worker's disk, up to this size in all; 10 GiB of the disk, or "
        "a tenth of a smaller one, are left free, and what does not fit is decoded again in each epoch",
    )

    log_format: Literal["auto", "console", "json"] = Field(
        "auto", description="auto is readable at a terminal, JSON lines elsewhere"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="what is logged")

    @field_validator("database_url")
    @classmethod
    def _is_url(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                if not _DATABASE_URL.match(value):
                    raise ValueError
                split = urlsplit(value)
                if split.netloc.endswith(":") or split.port == 0:
                    raise ValueError
            except ValueError:  # what they say may quote the password
                raise ValueError(
                    "this is no SQLAlchemy URL, as sqlite:////folder/shortlist.db or "
                    "postgresql+psycopg://user:password@host:5432/name"
                ) from None
        return value

    @field_validator("data_dir", mode="before")
    @classmethod
    def _at_home(cls, value: object) -> object:
        return Path(value).expanduser() if isinstance(value, str | Path) else value

    @field_validator("source_roots", "lanes", mode="before")
    @classmethod
    def _split_commas(cls, value: object) -> object:
        """Or a JSON array: a folder may have a comma in its name."""
        if isinstance(value, str) and value.lstrip().startswith("["):
            return tuple(json.loads(value))
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @field_validator("lanes")
    @classmethod
    def _distinct(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(value))

    @property
    def database(self) -> str:
        """The database URL in force. Whatever stands in the folder's name means nothing but itself."""
        if self.database_url:
            return self.database_url
        path = os.fsencode(self.data_dir / "shortlist.db")
        try:
            return f"sqlite:///{quote(path.decode())}"
        except UnicodeDecodeError:  # SQLAlchemy reads only text: SQLite itself is to decode it
            return f"sqlite:///file:{quote(quote(path))}?uri=true"

    @property
    def artifacts(self) -> str:
        """The artifact store URL in force."""
        return self.artifacts_url or str(self.data_dir / "artifacts")


def read_settings(**given: Any) -> Settings:
    """The settings in force; `given` goes before the environment. Raises `BadSettings`."""
    try:
        return Settings(**given)
    except ValidationError as error:
        problems = [f"SHORTLIST_{str(each['loc'][0]).upper()}: {each['msg']}" for each in error.errors()]
        raise BadSettings(problems="; ".join(problems)) from None

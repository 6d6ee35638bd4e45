"""API keys: made, recognised, revoked. Only a keyed hash is stored; the key itself is shown once."""

import hmac
import os
import secrets
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import blake2b
from pathlib import Path
from typing import Literal

import sqlalchemy as sa
from sqlalchemy.orm import Session

from service.errors import (
    BoundToAnnotator,
    BoundToProject,
    DataFolderNotWritable,
    KeyRefused,
    LastAdminKey,
    NotFound,
    RoleRefused,
)
from service.settings import Settings
from service.store.ids import public_id, row_number
from service.store.names import composed
from service.store.tables import Key, utc_now

Role = Literal["admin", "annotator", "reader"]
_USE_NOTED_EVERY = timedelta(minutes=1)
_GOOD_KEY = sa.select(Key.id, Key.hash, Key.role, Key.project_id, Key.annotator, Key.last_used_at).where(
    Key.hash == sa.bindparam("hash"), Key.revoked_at.is_(None)
)


@dataclass(frozen=True)
class Principal:
    """Whoever calls: what a valid key stands for."""

    key_id: int
    role: str
    project_id: int | None  # the only project it may see
    annotator: str | None  # the only annotator it may act for
    noted: bool  # `last_used_at` is recent enough

    def require_all_projects(self) -> None:
        if self.project_id is not None:
            raise BoundToProject

    def require_role(self, *roles: Role) -> None:
        if self.role not in roles:
            raise RoleRefused(role=self.role, needed=" or ".join(roles))

    def annotator_for(self, name: str | None, field: str) -> str | None:
        """The annotator to act for: the given one, else the key's own. Raises `BoundToAnnotator`."""
        if self.annotator is not None and name is not None and composed(name) != composed(self.annotator):
            raise BoundToAnnotator(field=field, bound=self.annotator, name=name)
        return self.annotator or name


def server_secret(settings: Settings) -> bytes:
    """The secret that hashes keys and signs links: `settings.secret`, else the file `secret` in the data folder, made
    at the first start and readable by its owner only."""
    if settings.secret is not None:
        return settings.secret.get_secret_value().encode()
    path = settings.data_dir / "secret"
    try:
        settings.data_dir.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            _write_once(path, secrets.token_hex(32))
        return path.read_bytes()
    except OSError as error:
        raise DataFolderNotWritable(path=str(settings.data_dir), reason=error.strerror or error) from error


def _write_once(path: Path, content: str) -> None:
    """Two services that start together end up with one secret: the first link wins, and it is never half written."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(content)
        try:
            os.link(temporary, path)
        except FileExistsError:
            return
    finally:
        temporary.unlink(missing_ok=True)


def derived(secret: bytes, purpose: str) -> bytes:
    """A key of its own for each purpose, from the one server secret."""
    return hmac.digest(secret, purpose.encode(), "sha256")


def hashed(secret: bytes, token: str) -> str:
    return blake2b(token.encode(), key=derived(secret, "keys"), digest_size=32).hexdigest()


def recognise(session: Session | sa.Connection, secret: bytes, token: str) -> Principal:
    """Raises `KeyRefused` for an unknown or revoked key.

    The lookup is by the keyed hash, so its timing tells nothing about the key.
    """
    expected = hashed(secret, token)
    key = session.execute(_GOOD_KEY, {"hash": expected}).first()
    if key is None or not hmac.compare_digest(key.hash, expected):
        raise KeyRefused
    return Principal(key.id, key.role, key.project_id, key.annotator, recently(key.last_used_at))


def recently(last_used_at: datetime | None) -> bool:
    """A use within the last minute is noted well enough."""
    return last_used_at is not None and utc_now() - last_used_at < _USE_NOTED_EVERY


def note_use(session: Session, key_id: int, now: datetime) -> None:
    """At most once a minute a key, whatever the traffic."""
    long_ago = sa.or_(Key.last_used_at.is_(None), Key.last_used_at < now - _USE_NOTED_EVERY)
    session.execute(sa.update(Key).where(Key.id == key_id, long_ago).values(last_used_at=now))


def good(session: Session, key_ids: Collection[int]) -> set[int]:
    """The given keys less the revoked ones."""
    return set(session.scalars(sa.select(Key.id).where(Key.id.in_(key_ids), Key.revoked_at.is_(None))))


def create(
    session: Session,
    secret: bytes,
    *,
    name: str,
    role: Role,
    project_id: int | None = None,
    annotator: str | None = None,
    token: str | None = None,
) -> tuple[Key, str]:
    """A new key and the token that is shown once. `token` presets it."""
    token = token or f"sl_{secrets.token_urlsafe(32)}"
    key = Key(name=name, hash=hashed(secret, token), role=role, project_id=project_id, annotator=annotator)
    session.add(key)
    session.flush()
    return key, token


def create_first_admin(session: Session, secret: bytes, preset: str | None = None) -> str | None:
    """The admin key of a first start, or None when there was nothing to make.

    With `preset` (SHORTLIST_ADMIN_KEY) that very key is good afterwards; without, one is made unless there is any.
    """
    if preset is not None:
        known = session.scalar(sa.select(Key).where(Key.hash == hashed(secret, preset)))
        if known is not None:
            known.revoked_at, known.role, known.project_id = None, "admin", None
            return None
        return create(session, secret, name="admin (preset)", role="admin", token=preset)[1]
    if session.scalar(_good_for_all().limit(1)) is not None:
        return None
    return create(session, secret, name="first admin", role="admin")[1]


def find(session: Session, public: str, only: int | None) -> Key:
    """By public id, among the keys of project `only` (None: all)."""
    key = session.get(Key, row_number("k", public))
    if key is None or only not in (None, key.project_id):
        raise NotFound(what="key", id=public)
    return key


def newest_first(session: Session, only: int | None, before: int | None, limit: int) -> list[Key]:
    query = sa.select(Key).order_by(Key.id.desc()).limit(limit)
    if only is not None:
        query = query.where(Key.project_id == only)
    if before is not None:
        query = query.where(Key.id < before)
    return list(session.scalars(query))


def revoke(session: Session, key: Key, now: datetime) -> None:
    """At once: the next request with it is refused. Raises `LastAdminKey`."""
    if key.revoked_at is not None:
        return
    # Locked, so that two admins cannot revoke each other's key at the same moment.
    admins = list(session.scalars(_good_for_all().with_for_update()))
    if [key.id] == admins:
        raise LastAdminKey
    key.revoked_at = now


def revoke_named(session: Session, name: str, now: datetime) -> None:
    """Keys that a program made for itself, also when no other admin key is left."""
    session.execute(sa.update(Key).where(Key.name == name, Key.revoked_at.is_(None)).values(revoked_at=now))


def _good_for_all() -> sa.Select[int]:
    good = sa.select(Key.id).where(Key.role == "admin", Key.project_id.is_(None), Key.revoked_at.is_(None))
    return good.order_by(Key.id)


def public(key: Key) -> str:
    return public_id("k", key.id)

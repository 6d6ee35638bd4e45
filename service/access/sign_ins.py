"""Sign-ins of browsers: a key is given once, and a cookie stands for it from then on.

A sign-in can do what its key can, ends with it, and is stored as a keyed hash, as keys are.
"""

import hmac
import secrets
from datetime import datetime, timedelta
from hashlib import blake2b

import sqlalchemy as sa
from sqlalchemy.orm import Session

from service.access.keys import Principal, derived, recently
from service.errors import SignInEnded
from service.store.tables import Key, SignIn, utc_now

_GOOD = (
    sa.select(Key.id, Key.role, Key.project_id, Key.annotator, Key.last_used_at, SignIn.hash)
    .join(SignIn, SignIn.key_id == Key.id)
    .where(
        SignIn.hash == sa.bindparam("hash"), SignIn.expires_at > sa.bindparam("now"), Key.revoked_at.is_(None)
    )
)


def cookie_name(secret: bytes) -> str:
    """One for each data folder: browsers send the cookies of a host to all its ports, and two services on one machine
    would sign each other's people out."""
    return f"shortlist_{derived(secret, 'cookie name').hex()[:8]}"


def begin(session: Session, secret: bytes, key_id: int, now: datetime, ttl_s: int) -> str:
    """A new sign-in; returns the token for the cookie. Those that have run out are removed."""
    session.execute(sa.delete(SignIn).where(SignIn.expires_at <= now))
    token = secrets.token_urlsafe(32)
    expires_at = now + timedelta(seconds=ttl_s)
    session.add(SignIn(hash=_hashed(secret, token), key_id=key_id, expires_at=expires_at))
    return token


def recognise(connection: Session | sa.Connection, secret: bytes, token: str) -> Principal:
    """Raises `SignInEnded` for one that is unknown, has run out, or whose key was revoked."""
    expected = _hashed(secret, token)
    found = connection.execute(_GOOD, {"hash": expected, "now": utc_now()}).first()
    if found is None or not hmac.compare_digest(found.hash, expected):
        raise SignInEnded
    return Principal(found.id, found.role, found.project_id, found.annotator, recently(found.last_used_at))


def end(session: Session, secret: bytes, token: str) -> None:
    session.execute(sa.delete(SignIn).where(SignIn.hash == _hashed(secret, token)))


def _hashed(secret: bytes, token: str) -> str:
    return blake2b(token.encode(), key=derived(secret, "sign-ins"), digest_size=32).hexdigest()

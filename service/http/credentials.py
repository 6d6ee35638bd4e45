"""The caller of a request: by the key in its header, else by the sign-in of its browser."""

import sqlalchemy as sa
from fastapi import Request
from sqlalchemy.orm import Session

from service.access import keys, sign_ins
from service.access.keys import Principal
from service.errors import KeyMissing, NotFromThePage

# Browsers let no other site send a header of its own making, unless we allowed it: there is no CORS here. The cookie
# is `SameSite=Strict` beside.
PAGE_HEADER = "X-Shortlist"
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})


def recognise(connection: Session | sa.Connection, secret: bytes, request: Request) -> Principal:
    """Raises `KeyMissing`, `KeyRefused`, `SignInEnded`, and `NotFromThePage` for a change that another site may have
    had the browser send."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and token.strip():
        return keys.recognise(connection, secret, token.strip())
    cookie = request.cookies.get(sign_ins.cookie_name(secret))
    if not cookie:
        raise KeyMissing
    caller = sign_ins.recognise(connection, secret, cookie)
    if request.method not in _SAFE and PAGE_HEADER not in request.headers:
        raise NotFromThePage
    return caller

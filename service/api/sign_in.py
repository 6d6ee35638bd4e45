from functools import partial
from typing import Self

from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool
from pydantic import Field, SecretStr

from service.access import keys, sign_ins
from service.access.keys import Role
from service.http.dependencies import Caller, Parts, PartsDep, ReadSession
from service.http.schemas import Answer, Body, with_example
from service.store.ids import public_id
from service.store.session import read_session
from service.store.tables import Key, utc_now

router = APIRouter(prefix="/session", tags=["keys"])


class GivenKey(Body):
    model_config = with_example({"key": "sl_…"})

    key: SecretStr = Field(min_length=1, max_length=500)


class SignedIn(Answer):
    """The caller, and what their key is good for."""

    model_config = with_example(
        {"key": "k_2", "name": "labeling tool", "role": "annotator", "project": "p_1"}
    )

    key: str
    name: str
    role: Role
    project: str | None = Field(description="the only project it is good for")
    annotator: str | None = Field(description="the only annotator it may act for")

    @classmethod
    def of(cls, key: Key) -> Self:
        return cls(
            key=public_id("k", key.id),
            name=key.name,
            role=key.role,
            project=public_id("p", key.project_id) if key.project_id is not None else None,
            annotator=key.annotator,
        )


@router.post("", status_code=201)
async def sign_in(body: GivenKey, request: Request, parts: PartsDep, response: Response) -> SignedIn:
    """Sign a browser in with a key: a cookie that no script can read stands for it, until it is revoked, runs out, or
    `DELETE /session`. Programs need none: they send their key. With the cookie, whatever is not a GET takes the header
    `X-Shortlist: page`."""
    # Looked up first: nobody without a key ever holds SQLite's write lock.
    key = await run_in_threadpool(_found, parts, body.key.get_secret_value())
    begin = partial(
        sign_ins.begin, secret=parts.secret, key_id=key.id, now=utc_now(), ttl_s=parts.settings.sign_in_ttl_s
    )
    response.set_cookie(
        sign_ins.cookie_name(parts.secret),
        await parts.write(begin),
        max_age=parts.settings.sign_in_ttl_s,
        httponly=True,
        samesite="strict",
        secure=_by_tls(request),
    )
    response.headers["Cache-Control"] = "no-store"
    return SignedIn.of(key)


@router.get("")
def whoami(session: ReadSession, caller: Caller, response: Response) -> SignedIn:
    """The caller, by key or by cookie, and what their key is good for."""
    response.headers["Cache-Control"] = "no-store"
    return SignedIn.of(session.get_one(Key, caller.key_id))


@router.delete("", status_code=204)
async def sign_out(request: Request, caller: Caller, parts: PartsDep, response: Response) -> None:
    """Sign the browser out. A key that was sent as a header stays good."""
    name = sign_ins.cookie_name(parts.secret)
    if (token := request.cookies.get(name)) is not None:
        await parts.write(partial(sign_ins.end, secret=parts.secret, token=token))
    response.delete_cookie(name, httponly=True, samesite="strict", secure=_by_tls(request))


def _found(parts: Parts, token: str) -> Key:
    with read_session(parts.engine) as session:
        caller = keys.recognise(session, parts.secret, token)
        parts.rate_limits.take(caller.key_id)
        return session.get_one(Key, caller.key_id)


def _by_tls(request: Request) -> bool:
    """Also where a proxy ends TLS that uvicorn was not told to trust: all it can do is to make the cookie stricter."""
    told = request.headers.get("x-forwarded-proto", "").partition(",")[0].strip()
    return "https" in (request.url.scheme, told)

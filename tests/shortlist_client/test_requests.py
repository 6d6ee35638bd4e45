"""What is sent again, what is told of what went wrong; no service takes part, for clients of both kinds."""

import asyncio
import inspect
import pickle
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import httpx2 as httpx
import pytest

import shortlist_client
from shortlist_client import (
    ApiError,
    AsyncProject,
    AsyncShortlist,
    Conflict,
    Forbidden,
    Invalid,
    NotFound,
    NotReached,
    Project,
    ServerError,
    Shortlist,
    ShortlistError,
    TooManyRequests,
    Unauthorized,
)

Answers = list[httpx.Response | Exception]
Ask = Callable[..., Any]


class Script:
    """Answers in this order; what was asked is noted."""

    def __init__(self, *answers: httpx.Response | Exception) -> None:
        self._answers = list(answers)
        self.asked: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        answer = self._answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def _sync(script: Script, method: str, *arguments: Any, give_up_after_s: float = 5.0) -> Any:
    http = httpx.Client(transport=httpx.MockTransport(script))
    with Shortlist("http://there", "a-key", http=http, give_up_after_s=give_up_after_s) as client:
        return getattr(client, method)(*arguments)


def _async(script: Script, method: str, *arguments: Any, give_up_after_s: float = 5.0) -> Any:
    async def ask() -> Any:
        http = httpx.AsyncClient(transport=httpx.MockTransport(script))
        async with AsyncShortlist(
            "http://there", "a-key", http=http, give_up_after_s=give_up_after_s
        ) as client:
            return await getattr(client, method)(*arguments)

    return asyncio.run(ask())


@pytest.fixture(params=[_sync, _async], ids=["sync", "async"])
def ask(request: pytest.FixtureRequest) -> Ask:
    chosen: Ask = request.param
    return chosen


def problem(status: int, code: str = "some_code", **more: Any) -> httpx.Response:
    body = {"title": "Title", "status": status, "code": code, "detail": "Do something else.", **more}
    return httpx.Response(status, json=body, headers={"Content-Type": "application/problem+json"})


def test_a_request_is_sent_again_with_the_same_key(ask: Ask) -> None:
    busy = problem(503, "database_busy")
    busy.headers["Retry-After"] = "0"
    often = problem(429, "too_many_requests")
    often.headers["Retry-After"] = "0"
    twice_at_once = problem(409, "idempotency_key_in_use")
    twice_at_once.headers["Retry-After"] = "0"
    script = Script(
        httpx.ConnectError("refused"),
        httpx.ReadError("broken off"),
        httpx.Response(502, text="<h1>Bad</h1>"),
        busy,
        often,
        twice_at_once,
        httpx.Response(200, json={"good": True}),
    )
    assert ask(script, "post", "/projects", {"a": 1}) == {"good": True}
    assert len(script.asked) == 7
    assert len({request.headers["Idempotency-Key"] for request in script.asked}) == 1
    assert {request.content for request in script.asked} == {b'{"a":1}'}
    assert {request.headers["Authorization"] for request in script.asked} == {"Bearer a-key"}


def test_two_requests_have_different_keys(ask: Ask) -> None:
    first, second = Script(httpx.Response(200, json={})), Script(httpx.Response(200, json={}))
    for script in (first, second):
        ask(script, "post", "/projects", {})
    assert first.asked[0].headers["Idempotency-Key"] != second.asked[0].headers["Idempotency-Key"]


def test_what_waiting_does_not_change_is_not_sent_again(ask: Ask) -> None:
    script = Script(problem(503, "not_ready"))
    with pytest.raises(ServerError, match=r"Do something else\.") as raised:
        ask(script, "get", "/readyz")
    assert (raised.value.status, raised.value.code, len(script.asked)) == (503, "not_ready", 1)


def test_a_wait_longer_than_the_patience_is_told_at_once(ask: Ask) -> None:
    often = problem(429)
    often.headers["Retry-After"] = "3600"
    script = Script(often)
    with pytest.raises(TooManyRequests):
        ask(script, "get", "/projects")
    assert len(script.asked) == 1


def test_nobody_there_is_told_in_the_end(ask: Ask) -> None:
    script = Script(*[httpx.ConnectError("connection refused")] * 100)
    with pytest.raises(
        NotReached, match=r"GET /projects got no answer for 0\.5 s: connection refused"
    ) as raised:
        ask(script, "get", "/projects", give_up_after_s=0.5)
    assert len(script.asked) > 1
    assert isinstance(raised.value.__cause__, httpx.ConnectError)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, Unauthorized),
        (403, Forbidden),
        (404, NotFound),
        (409, Conflict),
        (412, Conflict),
        (422, Invalid),
        (413, Invalid),
        (500, ServerError),
        (507, ServerError),
        (418, ApiError),
    ],
)
def test_errors_carry_the_sentence_of_the_problem(status: int, kind: type[ApiError], ask: Ask) -> None:
    errors = [{"field": "labels[3].class", "message": "unknown"}]
    with pytest.raises(ShortlistError) as raised:
        ask(Script(problem(status, "some_code", errors=errors)), "get", "/projects")
    error = raised.value
    assert type(error) is kind
    assert str(error) == "Do something else."
    assert isinstance(error, ApiError)
    assert (error.status, error.code, error.errors) == (
        status,
        "some_code",
        (("labels[3].class", "unknown"),),
    )
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), again.status, again.errors) == (kind, str(error), status, error.errors)


@pytest.mark.parametrize(("status", "text"), [(500, "<html>oops"), (599, "")])
def test_what_is_no_problem_is_told_as_well(status: int, text: str, ask: Ask) -> None:
    with pytest.raises(ServerError, match=rf"GET /projects was answered with {status}"):
        ask(Script(httpx.Response(status, text=text)), "get", "/projects")


def test_a_delete_that_was_done_without_an_answer_is_no_error() -> None:
    info = {"id": "p_1", "name": "a", "classes": ["x", "y"], "state": "active"}
    listed = httpx.Response(200, json={"items": [info], "next_cursor": None})
    script = Script(listed, httpx.ReadError("broken off"), problem(404, "not_found"))
    with Shortlist("http://there", http=httpx.Client(transport=httpx.MockTransport(script))) as client:
        client.project("a").delete()
    script = Script(listed, problem(404, "not_found"))
    with Shortlist("http://there", http=httpx.Client(transport=httpx.MockTransport(script))) as client:
        project = client.project("a")
        with pytest.raises(NotFound):
            project.delete()


def test_address_and_key_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHORTLIST_URL", "https://labels.example.com/shortlist/")
    monkeypatch.setenv("SHORTLIST_KEY", "from-outside")
    script = Script(httpx.Response(200, json={}))
    with Shortlist(http=httpx.Client(transport=httpx.MockTransport(script))) as client:
        client.get("/catalogue", limit=3)
    (asked,) = script.asked
    assert str(asked.url) == "https://labels.example.com/shortlist/catalogue?limit=3"
    assert asked.headers["Authorization"] == "Bearer from-outside"


def _signatures(kind: type) -> dict[str, list[tuple[str, object]]]:
    return {
        name: [(each.name, each.default) for each in inspect.signature(member).parameters.values()]
        for name, member in inspect.getmembers(kind, inspect.isfunction)
        if not name.startswith("_")
    }


@pytest.mark.parametrize(
    ("sync", "asynchronous"),
    [
        (Shortlist, AsyncShortlist),
        (Project, AsyncProject),
        (shortlist_client.Item, shortlist_client.AsyncItem),
        (shortlist_client.Annotating, shortlist_client.AsyncAnnotating),
    ],
)
def test_both_kinds_have_the_same_methods(sync: type, asynchronous: type) -> None:
    theirs = _signatures(asynchronous)
    ours = {("aclose" if name == "close" else name): given for name, given in _signatures(sync).items()}
    assert ours
    assert ours == theirs


def test_it_loads_httpx_and_pydantic_and_nothing_else() -> None:
    look = (
        "import sys, httpx2, pydantic; before = set(sys.modules); import shortlist_client;"
        "print(*{name.partition('.')[0] for name in set(sys.modules) - before} - set(sys.stdlib_module_names))"
    )
    told = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True).stdout
    # pydantic loads parts of itself only when a model is made; names with `_` are Python's own.
    own = ("pydantic", "annotated", "typing", "_")
    assert {name for name in told.split() if not name.startswith(own)} == {"shortlist_client"}


@pytest.mark.parametrize("key", ["slk_…", "slk_1\nslk_2"])
def test_a_key_that_no_header_carries_is_refused(key: str) -> None:
    with pytest.raises(ValueError, match="Copy it again"):
        Shortlist(key=key)

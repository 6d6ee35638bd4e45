"""Event streams: what is told, from where on, to whom, and that listeners cost next to nothing."""

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
import sqlalchemy as sa
from fastapi import FastAPI
from fastapi.testclient import TestClient
from structlog.testing import capture_logs

from service.http import event_streams
from service.http.event_streams import EventStreams
from service.operations import serving
from service.settings import Settings
from service.store import jobs
from service.store.session import make_engine, write_session
from service.store.tables import Project
from tests import factories
from tests.api.conftest import Callers, created
from tests.journeys.site import Site, until

Json = dict[str, Any]
on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


def parsed(lines: Iterator[str]) -> Iterator[Json]:
    """The events of a stream, `data` read as JSON."""
    event: Json = {}
    for line in lines:
        name, _, value = line.partition(": ")
        if line == "" and "data" in event:
            yield event
        event = {} if line == "" else event | {name: json.loads(value) if name == "data" else value}


class TestShortStreams:
    """They end so soon that a test client sees their end."""

    pytestmark = on_sqlite

    @pytest.fixture
    def settings(self, settings: Settings) -> Settings:
        return settings.model_copy(update={"event_stream_s": 0.05, "event_streams_per_key": 2})

    def listen(self, client: TestClient, last_event_id: str | None = None) -> list[Json]:
        headers = {"Last-Event-ID": last_event_id} if last_event_id is not None else {}
        answer = client.get("/projects/p_1/events", headers=headers)
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.text.startswith("retry: ")
        return list(parsed(iter(answer.text.splitlines())))

    def test_the_present_state_first_then_only_what_is_new(
        self, admin: TestClient, engine: sa.Engine
    ) -> None:
        created(admin)
        with write_session(engine) as session:
            factories.make_job(session, project_id=1, kind="rank")
        told = self.listen(admin)
        assert [event["event"] for event in told] == ["project", "items", "labels", "round", "job"]
        assert told[-1]["data"]["kind"] == "rank"
        assert self.listen(admin, told[-1]["id"]) == []

        with write_session(engine) as session:
            factories.make_label(
                session, item=factories.make_item(session, project=session.get_one(Project, 1))
            )
            jobs.request_cancel(session, 1)
        news = self.listen(admin, told[-1]["id"])
        assert [event["event"] for event in news] == ["items", "labels", "job"]
        assert news[-1]["data"]["state"] == "cancelled"
        # The connection broke after the first of them: the others come again.
        assert [event["event"] for event in self.listen(admin, news[0]["id"])] == ["labels", "job"]

    @pytest.mark.parametrize("last", ["", "nonsense", "project:,:x,,", "j_zz:00000000", "labels:00000000"])
    def test_an_id_that_says_nothing_gets_all(self, admin: TestClient, last: str) -> None:
        created(admin)
        assert len(self.listen(admin, last)) == 4

    def test_who_may_listen(self, admin: TestClient, anyone: TestClient, caller: Callers) -> None:
        created(admin)
        assert anyone.get("/projects/p_1/events").status_code == 401
        assert caller("annotator").get("/projects/p_1/events").status_code == 403
        assert caller("reader").get("/projects/p_1/events").status_code == 200
        assert admin.get("/projects/p_2/events").status_code == 404
        assert admin.get("/projects/p_1/events", headers={"Last-Event-ID": "x" * 9000}).status_code == 422

    def test_head_does_not_wait_for_the_end(self, app: FastAPI, admin: TestClient) -> None:
        created(admin)
        app.state.parts.event_streams._stream_s = 3600.0
        answer = admin.head("/projects/p_1/events")
        assert (answer.status_code, answer.content) == (200, b"")
        assert answer.headers["content-type"].startswith("text/event-stream")
        app.state.parts.event_streams._stream_s = 0.05
        assert len(self.listen(admin)) == 4


def test_listeners_share_one_look(engine: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred listeners of one project: no connection held, no statement more than for one."""
    monkeypatch.setattr(event_streams, "TICK_S", 0.05)
    with write_session(engine) as session:
        project_id = factories.make_project(session).id
        key_id = factories.make_key(session, project_id=project_id).id  # which goes with its project
    statements: list[str] = []

    async def main() -> list[list[str]]:
        streams = EventStreams(engine, per_key=100, stream_s=60.0)
        told: list[list[str]] = [[] for _ in range(100)]

        async def listen(names: list[str]) -> None:
            with streams.listening(key_id, project_id) as watch:
                async for news in streams.news(watch, key_id, {}):
                    names += [str(news.event)]

        async def wait_for(count: int) -> None:
            with anyio.fail_after(10):
                while not all(len(names) == count for names in told):
                    await anyio.sleep(0.01)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(streams.run)
            for names in told:
                tasks.start_soon(listen, names)
            await wait_for(4)
            statements.clear()
            await anyio.sleep(0.5)
            assert 4 <= len(statements) <= 60  # ten looks at most
            assert engine.pool.checkedout() <= 1  # type: ignore[attr-defined]
            with write_session(engine) as session:
                session.get_one(Project, project_id).labels_used = 7
            await wait_for(5)
            with write_session(engine) as session:
                session.delete(session.get_one(Project, project_id))
            await wait_for(6)
            with anyio.fail_after(10):
                while streams._watches:
                    await anyio.sleep(0.01)
            tasks.cancel_scope.cancel()
        return told

    sa.event.listen(engine, "before_cursor_execute", lambda *call: statements.append(call[2]))
    first, *others = anyio.run(main)
    assert first[-2:] == ["labels", "deleted"]
    assert all(names == first for names in others)


@on_sqlite
def test_goes_on_when_no_connection_could_be_had(
    engine: sa.Engine, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A database that hangs: others wait in vain for a connection, which is no error of the database's own."""
    monkeypatch.setattr(event_streams, "TICK_S", 0.05)
    with write_session(engine) as session:
        project_id = factories.make_project(session).id
        key_id = factories.make_key(session).id
    narrow = make_engine(database_url, pool_size=1, max_overflow=0, pool_timeout=0.01)

    async def main() -> None:
        streams = EventStreams(narrow, per_key=1, stream_s=60.0)
        with capture_logs() as lines, anyio.fail_after(10):
            async with anyio.create_task_group() as tasks:
                with narrow.connect(), streams.listening(key_id, project_id):
                    tasks.start_soon(streams.run)
                    while not any(line["event"] == "database not reached" for line in lines):
                        await anyio.sleep(0.01)
                with streams.listening(key_id, project_id) as watch:
                    first = await anext(streams.news(watch, key_id, {}))
                    assert first.event == "project"
                tasks.cancel_scope.cancel()

    anyio.run(main)
    narrow.dispose()


def test_live(tmp_path: Path, sqlite_url: str) -> None:
    """Over a real connection: changes within two seconds, the limit, disconnects, revoked keys, a prompt stop."""
    with Site(tmp_path, sqlite_url, event_streams_per_key=3) as site:
        site.start_service()
        project = site.post("/projects", {"name": "p", "classes": ["a", "b"]})
        path = f"/projects/{project['id']}/events"
        with site.http.stream("GET", path) as stream:
            told = parsed(stream.iter_lines())
            assert [next(told)["event"] for _ in range(4)] == ["project", "items", "labels", "round"]
            site.http.patch(f"/projects/{project['id']}", json={"state": "paused"})
            changed_at = time.monotonic()
            news = next(told)
            assert time.monotonic() - changed_at < 2
            assert (news["event"], news["data"]["state"]) == ("project", "paused")

            with site.http.stream("GET", path), site.http.stream("GET", path):
                refused = site.http.get(path)
                assert (refused.status_code, refused.json()["code"]) == (429, "too_many_listeners")
                assert "SHORTLIST_EVENT_STREAMS_PER_KEY" in refused.json()["detail"]
            until(lambda: open_and_close(site.http, path))  # the two that left were noticed

        key = site.post("/keys", {"name": "dashboard", "role": "reader"})
        with httpx2.stream(
            "GET", f"{site.http.base_url}{path}", headers={"Authorization": f"Bearer {key['key']}"}
        ) as stream:
            told = parsed(stream.iter_lines())
            next(told)
            assert site.http.delete(f"/keys/{key['id']}").status_code == 200
            assert all(event["event"] != "deleted" for event in told)  # to its end, which comes at once

        with site.http.stream("GET", path) as stream:
            told = parsed(stream.iter_lines())
            next(told)
            reading = threading.Thread(target=lambda: list(told))
            reading.start()
            assert site.service is not None
            site.service.terminate()
            reading.join(timeout=serving.STOP_S - 0.5)  # after that, requests that hang are cut off
            assert not reading.is_alive()
            assert site.service.wait(timeout=30) == 0


def open_and_close(http: httpx2.Client, path: str) -> bool:
    with http.stream("GET", path) as stream:
        return stream.status_code == 200

"""On SQLite the service's writes queue in the service: none competes with the others for the database's lock."""

import json
from collections.abc import AsyncIterator
from typing import Any

import anyio
import httpx2
import pytest
import sqlalchemy as sa
from fastapi import FastAPI
from fastapi.testclient import TestClient

from service.access import keys
from service.http.dependencies import Parts
from service.settings import Settings
from service.store.session import write_session
from tests.api.conftest import created
from tests.api.test_labeling import fill

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)

NDJSON = {"Content-Type": "application/x-ndjson"}


def lines(entries: list[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(entry).encode() + b"\n" for entry in entries)


def item_lines(count: int, uri: str) -> list[dict[str, Any]]:
    return [{"key": f"new {number}", "uri": f"{uri}/{number}.png"} for number in range(count)]


def label_lines(count: int) -> list[dict[str, Any]]:
    return [{"key": f"{number:03}", "class": "coat", "annotator": "import"} for number in range(count)]


@pytest.fixture
def admin(app: FastAPI, engine: sa.Engine, settings: Settings) -> TestClient:
    """Of a service that delivers no webhooks, so that nothing else writes."""
    with write_session(engine) as session:
        secret = keys.server_secret(settings)
        _, token = keys.create(session, secret, name="admin", role="admin", project_id=None, annotator=None)
    return TestClient(app, headers={"Authorization": f"Bearer {token}"})


@pytest.fixture
def slots_at_writes(app: FastAPI) -> list[int]:
    """For each transaction that writes, how many slots were taken as it began: its own makes one."""
    parts: Parts = app.state.parts
    found: list[int] = []

    def note(connection: sa.Connection) -> None:
        if not connection.get_execution_options().get("read_only"):
            found.append(parts.write_slots.borrowed_tokens)

    sa.event.listen(parts.engine, "begin", note)
    return found


def test_every_write_has_a_slot(
    admin: TestClient,
    engine: sa.Engine,
    slots_at_writes: list[int],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Any,
) -> None:
    monkeypatch.setattr("service.api.item_registration._CHUNK_ITEMS", 10)
    monkeypatch.setattr("service.api.label_import._CHUNK_LABELS", 10)
    created(admin)  # … and the key's first use is noted
    assert slots_at_writes == [1, 1]
    fill(engine, 25)

    answer = admin.post("/projects/p_1/items", content=lines(item_lines(25, str(tmp_path))), headers=NDJSON)
    assert answer.json()["added"] == 25
    assert slots_at_writes[2:] == [1] * 3

    answer = admin.post("/projects/p_1/labels/import", content=lines(label_lines(25)), headers=NDJSON)
    assert answer.json()["outcomes"] == {"accepted": 25}
    assert slots_at_writes[5:] == [1] * 3

    once = {"Idempotency-Key": "a"}
    admin.post("/projects/p_1/items", json={"items": item_lines(1, str(tmp_path / "others"))}, headers=once)
    assert slots_at_writes[8:] == [1] * 2  # the items, and the answer that is kept


@pytest.mark.anyio
@pytest.mark.parametrize("path", ["items", "labels/import"])
async def test_nobody_waits_for_a_body_that_is_slow(
    app: FastAPI,
    admin: TestClient,
    engine: sa.Engine,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Any,
    path: str,
) -> None:
    monkeypatch.setattr("service.api.item_registration._CHUNK_ITEMS", 10)
    monkeypatch.setattr("service.api.label_import._CHUNK_LABELS", 10)
    created(admin)
    fill(engine, 40)
    entries = item_lines(40, str(tmp_path)) if path == "items" else label_lines(40)
    parts: Parts = app.state.parts
    seen: list[int] = []

    async def body() -> AsyncIterator[bytes]:
        for first in range(0, 40, 10):
            with anyio.fail_after(20):
                async with parts.write_slots:  # an annotator gets in between any two chunks
                    seen.append(first)
            yield lines(entries[first : first + 10])

    async with httpx2.AsyncClient(
        transport=httpx2.ASGITransport(app), base_url="http://test", headers=dict(admin.headers)
    ) as client:
        answer = await client.post(f"/projects/p_1/{path}", content=body(), headers=NDJSON)
    assert answer.status_code == 200, answer.text
    assert seen == [0, 10, 20, 30]

"""A Label Studio, and what follows it, driven one look at a time."""

import json
from collections.abc import Iterator
from typing import Any

import anyio
import pytest
import sqlalchemy as sa
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy.orm import Session

from service.access import keys
from service.integrations.label_studio.syncer import Syncer
from service.settings import Settings
from service.store.session import read_session, write_session
from service.store.tables import Item, Project, RankedItem, Table, ToolConnection, ToolTask
from tests import factories
from tests.applications import make_app
from tests.service.integrations.label_studio.fake import LEGACY, FakeLabelStudio, fake_label_studio


@pytest.fixture
def tool() -> Iterator[FakeLabelStudio]:
    with fake_label_studio() as fake:
        yield fake


class Site:
    """A service that nobody looks after but the test: it looks at the tool when `look` is called."""

    def __init__(self, app: FastAPI, engine: sa.Engine, key: str) -> None:
        self.engine = engine
        self.client = TestClient(app, headers={"Authorization": f"Bearer {key}"})
        self.syncer = Syncer(app.state.parts)
        app.state.label_studio = self.syncer

    def project(self, **body: Any) -> str:
        given = {"name": "pets", "classes": ["cat", "dog"]} | body
        answer = self.client.post("/projects", json=given)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    def connect(self, tool: FakeLabelStudio, project: str = "p_1", **body: Any) -> Any:
        given = {"url": tool.url, "token": LEGACY, "tool_project": 7} | body
        return self.client.post(f"/projects/{project}/integrations/label-studio", json=given)

    def look(self, *, full: bool = True, project: str = "p_1") -> dict[str, Any]:
        """Once, as if a minute had passed, or else after a hint; what the connection says afterwards."""
        if full:
            with self.engine.begin() as connection:
                connection.execute(sa.update(ToolConnection).values(next_at=0.0))
        with read_session(self.engine) as session:
            number = session.scalars(sa.select(ToolConnection.id)).one()
        anyio.run(self.syncer.follow, number)
        return self.status(project)

    def status(self, project: str = "p_1") -> dict[str, Any]:
        found: dict[str, Any] = self.client.get(f"/projects/{project}/integrations/label-studio").json()
        return found

    def labels(self, query: str = "") -> list[dict[str, Any]]:
        text = self.client.get(f"/projects/p_1/labels{query}").text
        return [json.loads(line) for line in text.splitlines()]

    def said(self) -> dict[str, tuple[str, str | None]]:
        """The current labels: by key, annotator and class."""
        return {
            row["key"].removeprefix("label-studio/"): (row["annotator"], row["class"])
            for row in self.labels()
        }

    def count(self, table: type[Table]) -> int:
        with read_session(self.engine) as session:
            return session.scalar(sa.select(sa.func.count()).select_from(table)) or 0

    def rank(self, *tasks: int, predicted: str | None = None) -> int:
        """A new ranking of these tasks, the first wanted most, as a worker would store it; its version. predicted: by
        the head, for each.
        """
        with write_session(self.engine) as session:
            return _rank(session, tasks, predicted)


def _rank(session: Session, tasks: tuple[int, ...], predicted: str | None) -> int:
    project = session.get_one(Project, 1)
    item_of = dict(session.execute(sa.select(ToolTask.task_id, ToolTask.item_id)).all())
    items = [session.get_one(Item, item_of[task]) for task in tasks]
    score_run = factories.make_score_run(session, project=project)
    ranking = factories.make_ranking(session, project=project, score_run=score_run, items=items)
    ranked = sa.update(RankedItem).where(RankedItem.ranking_id == ranking.id)
    session.execute(ranked.values(predicted_class=predicted))
    project.score_run_id, project.ranking_id = score_run.id, ranking.id
    return ranking.version


@pytest.fixture
def site(settings: Settings, engine: sa.Engine) -> Iterator[Site]:
    with write_session(engine) as session:
        _, key = keys.create(session, keys.server_secret(settings), name="admin", role="admin")
    app = make_app(settings)
    yield Site(app, engine, key)
    app.state.parts.engine.dispose()

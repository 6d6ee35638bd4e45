from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient

from service.store.artifacts import Artifacts
from service.store.head_answers import HeadAnswers
from service.store.ids import public_id
from service.store.session import write_session
from service.store.tables import Project, Round, ScoreRun
from tests import factories
from tests.worker.jobs.scored_projects import ScoredProject, make_scored_project

AT = "/projects/p_1/rounds"


@pytest.fixture
def measured(engine: sa.Engine, artifacts: Artifacts) -> ScoredProject:
    """Round 1: of five owls, two were taken for dogs, the second of them for sure; one dog was taken for a dog."""
    scored = make_scored_project(engine, artifacts, pool=8)
    with write_session(engine) as session:
        project = session.get_one(Project, scored.id)
        head = factories.make_head(
            session,
            project=project,
            score_run=session.get_one(ScoreRun, 1),
            artifact="heads/1/1.npz",
            classes=["cat", "dog", "owl"],
        )
        opened = session.scalars(sa.select(Round)).first()
        found = opened or factories.make_round(session, project=project, number=1)
        found.number, found.head_id = 1, head.id
    classes, predicted = np.array([2, 2, 2, 2, 2, 1]), np.array([2, 1, 2, 1, 2, 1])
    HeadAnswers(
        np.array(scored.pool[:6]),
        classes == predicted,
        classes.astype(np.int16),
        predicted.astype(np.int16),
        np.array([0.9, 0.4, 0.8, 0.7, 0.6, 0.95], np.float32),
    ).store(artifacts, "heads/1/1.npz")
    return scored


def asked(client: TestClient, **params: Any) -> tuple[list[str], dict[str, Any]]:
    answer = client.get(f"{AT}/1/answers", params=params)
    assert answer.status_code == 200, answer.text
    return [item["id"] for item in answer.json()["items"]], answer.json()


def test_the_items_of_a_cell_come_surest_first(admin: TestClient, measured: ScoredProject) -> None:
    ids, answer = asked(admin, **{"class": "owl", "answered_class": "dog"})
    assert ids == [public_id("i", measured.pool[3]), public_id("i", measured.pool[1])]
    first = answer["items"][0]
    assert (first["measured_class"], first["answered_class"]) == ("owl", "dog")
    assert first["answered_probability"] == pytest.approx(0.7)
    assert len(asked(admin, answered_class="dog")[0]) == 3
    assert len(asked(admin, **{"class": "owl"})[0]) == 5
    assert len(asked(admin)[0]) == 6
    assert asked(admin, **{"class": "no such class"})[0] == []


def test_pages(admin: TestClient, measured: ScoredProject) -> None:
    everything, _ = asked(admin)
    first, answer = asked(admin, limit=4)
    rest, last = asked(admin, limit=4, cursor=answer["next_cursor"])
    assert first + rest == everything
    assert last["next_cursor"] is None


def test_rounds_without_answers(
    admin: TestClient, measured: ScoredProject, engine: sa.Engine, artifacts: Artifacts
) -> None:
    with write_session(engine) as session:
        project = session.get_one(Project, measured.id)
        score_run = session.get_one(ScoreRun, 1)
        head = factories.make_head(session, project=project, score_run=score_run, artifact="heads/1/2.npz")
        factories.make_round(session, project=project, number=2, head_id=head.id, closed_at=head.created_at)
    with artifacts.writing("heads/1/2-answers.npz") as file:  # of before there were classes in it
        np.savez(file, ids=np.array(measured.pool[:2]), right=np.array([True, False]))
    refused = admin.get(f"{AT}/2/answers")
    assert (refused.status_code, refused.json()["code"]) == (409, "answers_missing")
    assert admin.get(f"{AT}/9/answers").status_code == 404

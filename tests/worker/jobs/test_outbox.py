"""What jobs tell webhooks, in the transaction of their output."""

import json

import pytest
import sqlalchemy as sa

from service.store import outbox
from service.store.session import read_session, write_session
from service.store.tables import Delivery, Project, Round, utc_now
from tests import factories
from tests.worker.jobs.scored_projects import Bench, label


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_measured_round_a_promoted_head_a_new_ranking(bench: Bench) -> None:
    scored = bench.project(test=30)
    with write_session(bench.engine) as session:
        project = session.get_one(Project, scored.id)
        factories.make_webhook(session, project=project, events=list(outbox.EVENTS))
        closed = session.get_one(Round, (scored.id, 1))
        closed.last_label_id, closed.labels = label(session, scored, scored.pool[:20]), 20
        closed.closed_at = utc_now()
        session.flush()
        factories.make_round(session, project=project, number=2, labels_before=20)

    bench.train_head(scored)

    with read_session(bench.engine) as session:
        bodies = [
            json.loads(body) for body in session.scalars(sa.select(Delivery.body).order_by(Delivery.id))
        ]
    assert [body["type"] for body in bodies] == ["round.measured", "head.promoted", "ranking.ready"]
    measured, promoted, ready = (body["data"] for body in bodies)
    assert (measured["round"], measured["head"], measured["measured_on"], measured["items"]) == (
        1,
        1,
        "test",
        30,
    )
    assert measured["accuracy"] > 0.5
    assert promoted == {"project": "p_1", "head": 1, "labels_used": 20}
    ranking, rows = bench.ranking(scored)
    assert (ready["version"], ready["items"], ready["strategy"]) == (ranking.version, len(rows), "shortlist")

"""Pretext losses as they are exported."""

import pytest
import sqlalchemy as sa

from service.errors import GoneMeanwhile
from service.models import scores
from service.store.session import read_session, write_session
from service.store.tables import ScoreRun
from tests.factories import make_item, make_project, make_score, make_score_run


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_an_export_breaks_off_when_its_score_run_is_removed(engine: sa.Engine) -> None:
    """It must not end as if that were all."""
    with write_session(engine) as session:
        project = make_project(session)
        score_run = make_score_run(session, project=project)
        items = [make_item(session, project=project) for _ in range(3)]
        for item in items:
            make_score(session, score_run=score_run, item=item)
    with read_session(engine) as session:
        assert [each.item_id for each in scores.page(session, score_run.id, 0, 2)] == [
            items[0].id,
            items[1].id,
        ]
    with write_session(engine) as session:
        session.get_one(ScoreRun, score_run.id).state = "removed"
    with read_session(engine) as session, pytest.raises(GoneMeanwhile):
        scores.page(session, score_run.id, items[1].id, 2)

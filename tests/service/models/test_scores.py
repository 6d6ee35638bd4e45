"""Pretext losses as they are exported."""

import pytest
import sqlalchemy as sa

from service.errors import GoneMeanwhile
from service.models import scores
from service.store.session import read_session, write_session
from service.store.tables import Project, ScoreRun
from tests.factories import make_item, make_project, make_ranking, make_score, make_score_run


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


def test_the_histogram_tells_what_is_labeled_and_what_comes_next(
    engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    with write_session(engine) as session:
        project = make_project(session, settings={"round_size": 2})
        edges = [0.0, 1.0, 2.0]
        score_run = make_score_run(session, project=project, histogram={"edges": edges, "counts": [3, 4]})
        items = [make_item(session, project=project) for _ in range(7)]
        for item, loss in zip(items, [0.0, 0.5, 0.9, 1.0, 1.5, 1.9, 2.0], strict=True):
            make_score(session, score_run=score_run, item=item, pretext_loss=loss)
        aside = make_item(session, project=project, split="test", state="done", class_name="x")
        make_score(session, score_run=score_run, item=aside, pretext_loss=0.1)
        for item in (items[0], items[5], items[6]):
            item.state, item.class_name = "done", "x"
        ranked = [
            items[6],
            items[4],
            items[1],
            items[2],
        ]  # the first is labeled, the last is of a later round
        project.ranking_id = make_ranking(session, project=project, score_run=score_run, items=ranked).id
        project.score_run_id = score_run.id
    with read_session(engine) as session:
        project, score_run = session.get_one(Project, 1), session.get_one(ScoreRun, 1)
        found = scores.histogram(session, project, score_run)
        assert found == scores.Histogram(edges, [3, 4], labeled=[1, 2], ranked=[1, 1])
        monkeypatch.setattr(scores, "MOST_COUNTED", 2)
        found = scores.histogram(session, project, score_run)
        assert found is not None
        assert found.labeled is None

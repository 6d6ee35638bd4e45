"""The learning curve, on each database."""

from typing import Any

import pytest
from sqlalchemy.orm import Session

from service.labeling import rounds
from service.store.tables import Project, utc_now
from tests import factories

FIGURES = {
    "measured_on": "control",
    "items": 40,
    "accuracy": 0.8,
    "accuracy_low": 0.65,
    "accuracy_high": 0.9,
    "macro_f1": 0.7891,
}


def _measured(session: Session, accuracies: list[float | None]) -> Project:
    """A project with a measured round for each, None for a head that nothing measured; its round 1 is open."""
    project = factories.make_project(session)
    score_run = factories.make_score_run(session, project=project)
    nothing = dict.fromkeys(FIGURES) | {"items": 0}
    for number, accuracy in enumerate(accuracies, 2):
        figures: dict[str, Any] = nothing if accuracy is None else FIGURES | {"accuracy": accuracy}
        head = factories.make_head(
            session,
            project=project,
            score_run=score_run,
            labels_used=50 * number - 50,
            metrics=figures | {"confusion": [[15, 5], [0, 20]]},
        )
        factories.make_round(
            session,
            project=project,
            number=number,
            labels=50,
            labels_before=50 * number - 100,
            head_id=head.id,
            closed_at=utc_now(),
        )
    return project


def test_a_measured_round_is_a_point_of_the_learning_curve(session: Session) -> None:
    project = _measured(session, [None, 0.8, 1])

    assert rounds.learning_curve(session, project) == [
        {"round": 3, "labels_used": 100} | FIGURES,
        {"round": 4, "labels_used": 150} | FIGURES | {"accuracy": 1},
    ]


@pytest.mark.parametrize(
    ("measured", "points"),
    [(0, []), (1, [2]), (4, [2, 3, 4, 5]), (5, [2, 4, 6]), (6, [2, 4, 6, 7]), (14, [2, 5, 8, 11, 14, 15])],
)
def test_a_long_learning_curve_is_thinned_between_its_ends(
    session: Session, monkeypatch: pytest.MonkeyPatch, measured: int, points: list[int]
) -> None:
    monkeypatch.setattr(rounds, "_CURVE_POINTS", 5)
    project = _measured(session, [0.8] * measured)

    assert [point["round"] for point in rounds.learning_curve(session, project)] == points

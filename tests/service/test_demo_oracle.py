from typing import Any

import pytest

from service.demo.oracle import ranking_is_current
from shortlist_client import Metrics


@pytest.mark.parametrize(
    ("ranking", "current"),
    [
        (None, False),
        ({"score_run": "s_2", "labels_used": 50}, True),
        ({"score_run": "s_2", "labels_used": 0}, False),
        ({"score_run": "s_1", "labels_used": 50}, False),  # provisional, by raw features
    ],
)
def test_labeling_waits_for_the_ranking_by_the_pretext_model_and_all_labels(
    ranking: dict[str, Any] | None, current: bool
) -> None:
    metrics = Metrics(
        labels_used=50,
        pool_items=100,
        items={},
        test_items=0,
        round=2,
        learning_curve=[],
        class_balance={},
        jobs=[],
        score_run={"id": "s_2"},
        ranking=ranking,
    )
    assert ranking_is_current(metrics) is current

from typing import Any

import pytest

from service.demo.client import Client
from service.demo.oracle import ranking_is_current


class Answering(Client):
    def __init__(self, metrics: dict[str, Any]) -> None:
        self._metrics = metrics

    def get(self, path: str, **params: Any) -> Any:
        return self._metrics


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
    metrics = {"ranking": ranking, "score_run": {"id": "s_2"}, "labels_used": 50}
    assert ranking_is_current(Answering(metrics), "p_1") is current

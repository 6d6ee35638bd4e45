from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from functools import partial
from typing import Any, Literal, Self

import pyarrow as pa
from fastapi import APIRouter, Request, Response
from pydantic import Field
from sqlalchemy.orm import Session

from service.api import exports
from service.http.dependencies import PartsDep, Reader, ReadSession
from service.http.etag import ETagRoute
from service.http.schemas import Answer, with_example
from service.models import scores
from service.projects import projects
from service.store.ids import public_id

router = APIRouter(prefix="/projects/{project_id}/scores", tags=["items"], route_class=ETagRoute)

_COLUMNS = pa.schema(
    [
        ("item", pa.string()),
        ("key", pa.string()),
        ("split", pa.string()),
        ("pretext_loss", pa.float64()),
        ("pretext_loss_percentile", pa.float64()),
        ("pretext_loss_spread", pa.float64()),
    ]
)


class Histogram(Answer):
    """Pool items by pretext loss: `counts[k]` of them between `edges[k]` and `edges[k + 1]`."""

    edges: list[float]
    counts: list[int]
    labeled: list[int] | None = Field(
        description=f"of these, the labeled ones; null where they are more than {scores.MOST_COUNTED:,}"
    )
    ranked: list[int] = Field(
        description="of these, the next `round_size` of the ranking that are not labeled"
    )


class GateAnswer(Answer):
    """The verdict on whether the embeddings know more of the classes than an untrained backbone and raw features do.

    Judged on labeled items, each by all the others. `linear` and `knn` are accuracies (balanced ones, meaned over
    classes, where an item may have several), by `trained`, `untrained`
    and `raw`; with pretrained weights beside the pretext model also by `pretrained` and by both `joined`. A space
    that is surely better than the served one takes its place. After a no-go rankings are random, until the untrained
    backbone stands in where that is better.
    """

    model_config = with_example(
        {
            "verdict": "go",
            "labels": 2000,
            "items": 200,
            "judged_on": "control",
            "reason": "On 200 control items the linear probe of the trained …",
            "linear": {"trained": 0.81, "untrained": 0.76, "raw": 0.74},
            "knn": {"trained": 0.78, "untrained": 0.71, "raw": 0.72},
        }
    )

    verdict: Literal["go", "no-go", "not enough labels"]
    reason: str
    labels: int = Field(description="labeled items there were")
    items: int = Field(description="items it judged on, none of which a strategy chose")
    judged_on: Literal["test", "control", "random"] | None = Field(
        description="test: the test split; control: control items; random: all labels, as chance asked for them all"
    )
    linear: dict[str, float]
    knn: dict[str, float]

    @classmethod
    def of(cls, gate: dict[str, Any] | None) -> Self | None:
        return cls(**{name: gate[name] for name in cls.model_fields}) if gate is not None else None


class ScoresAnswer(Answer):
    """The score run that is being served."""

    model_config = with_example(
        {
            "score_run": "s_2",
            "pretext_model": "m_1",
            "pretext_model_version": 1,
            "items": 8000,
            "dimensions": 192,
            "histogram": {
                "edges": [0.0, 1.0, 2.0],
                "counts": [6400, 1600],
                "labeled": [40, 160],
                "ranked": [12, 88],
            },
        }
    )

    score_run: str
    pretext_model: str
    pretext_model_version: int
    items: int
    dimensions: int | None
    histogram: Histogram | None
    gate: GateAnswer | None = Field(description="null before there were labels to judge by")
    created_at: datetime
    finished_at: datetime | None


@router.get(
    "",
    response_model=ScoresAnswer,
    responses={200: {"content": {exports.NDJSON: {}, exports.CSV: {}, exports.PARQUET: {}}}},
)
def get_scores(
    project_id: str, request: Request, session: ReadSession, caller: Reader, parts: PartsDep
) -> ScoresAnswer | Response:
    """A summary as JSON; every item's pretext loss and percentile, streamed, as NDJSON, CSV or Parquet."""
    project = projects.find(session, project_id, caller.project_id)
    score_run, pretext_model = scores.current(session, project)
    media_type = exports.accepted_format(request, others=("application/json",))
    if media_type != "application/json":
        tables = exports.pages(parts.engine, partial(_page, score_run.id))
        return exports.streamed(f"scores-{project_id}", media_type, _COLUMNS, tables)
    histogram = scores.histogram(session, project, score_run)
    return ScoresAnswer(
        score_run=public_id("s", score_run.id),
        pretext_model=public_id("m", pretext_model.id),
        pretext_model_version=pretext_model.version,
        items=score_run.items,
        dimensions=score_run.dimensions,
        histogram=Histogram(**asdict(histogram)) if histogram else None,
        gate=GateAnswer.of(score_run.gate),
        created_at=score_run.created_at,
        finished_at=score_run.finished_at,
    )


def _page(
    score_run_id: int, session: Session, after: int, limit: int
) -> Sequence[tuple[int, dict[str, Any]]]:
    return [
        (
            score.item_id,
            {
                "item": public_id("i", score.item_id),
                "key": score.key,
                "split": score.split,
                "pretext_loss": score.pretext_loss,
                "pretext_loss_percentile": score.percentile,
                "pretext_loss_spread": score.spread,
            },
        )
        for score in scores.page(session, score_run_id, after, limit)
    ]

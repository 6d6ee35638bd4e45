from datetime import datetime
from typing import Self

from fastapi import APIRouter
from pydantic import Field

from service.http.dependencies import Reader, ReadSession
from service.http.etag import ETagRoute
from service.http.schemas import Answer, Cursor, Limit, Page, decode_cursor, with_example
from service.labeling import annotators
from service.labeling.annotators import Report, Share
from service.projects import projects

router = APIRouter(prefix="/projects/{project_id}/annotators", tags=["progress"], route_class=ETagRoute)


class ShareAnswer(Answer):
    """Interval: 95 %."""

    items: int
    right: int
    share: float | None = Field(description="null without items")
    low: float | None
    high: float | None

    @classmethod
    def of(cls, found: Share) -> Self:
        if not found.items:
            return cls(items=0, right=0, share=None, low=None, high=None)
        low, high = found.interval
        return cls(items=found.items, right=found.right, share=found.right / found.items, low=low, high=high)


class AnnotatorAnswer(Answer):
    """The number and the quality of an annotator's labels."""

    model_config = with_example(
        {
            "annotator": "ann",
            "labels": 240,
            "skips": 3,
            "mean_duration_ms": 910.5,
            "newest_at": "2026-01-01T12:00:00Z",
            "gold": {"items": 20, "right": 19, "share": 0.95, "low": 0.764, "high": 0.991},
            "agreement": {"items": 80, "right": 71, "share": 0.888, "low": 0.8, "high": 0.94},
            "quality": 0.91,
            "alike": [],
        }
    )

    annotator: str
    labels: int = Field(description="with a class; gold items not counted")
    skips: int
    mean_duration_ms: float | None
    newest_at: datetime
    gold: ShareAnswer = Field(description="of the gold items they labeled, those they got right")
    agreement: ShareAnswer | None = Field(
        description="of their labels on items that others labeled too, those equal to the item's class; null before "
        "the first check of the labels"
    )
    quality: float | None = Field(description="CROWDLAB's, 0 to 1; null without items that several labeled")

    alike: list[str] = Field(
        description="a warning: annotators whose names read the same, as `Ann` and `ann`; perhaps one person"
    )

    @classmethod
    def of(cls, found: Report) -> Self:
        return cls(
            annotator=found.annotator,
            labels=found.labels,
            skips=found.skips,
            mean_duration_ms=found.mean_duration_ms,
            newest_at=found.newest_at,
            gold=ShareAnswer.of(found.gold),
            agreement=ShareAnswer.of(found.agreement) if found.agreement else None,
            quality=found.quality,
            alike=found.alike,
        )


@router.get("")
def list_annotators(
    project_id: str, session: ReadSession, caller: Reader, cursor: Cursor = None, limit: Limit = 100
) -> Page[AnnotatorAnswer]:
    """Annotators by name: labels, accuracy on gold items, agreement with the others."""
    project = projects.find(session, project_id, caller.project_id)
    (after,) = decode_cursor(cursor, str) or ("",)
    found = annotators.reports(session, project, after, limit)
    return Page.of(found, limit, AnnotatorAnswer.of, lambda last: (last.annotator,))

"""A client of Shortlist: `for item in project.annotate("ann"): item.label("cat")`. Needs httpx and pydantic only."""

from shortlist_client.async_client import AsyncAnnotating, AsyncItem, AsyncProject, AsyncShortlist
from shortlist_client.client import Annotating, Item, Project, Shortlist
from shortlist_client.errors import (
    ApiError,
    Conflict,
    FieldError,
    Forbidden,
    Invalid,
    JobFailed,
    NotFound,
    NotReached,
    ServerError,
    ShortlistError,
    TimedOut,
    TooManyRequests,
    Unauthorized,
)
from shortlist_client.models import (
    Batch,
    BatchItem,
    CurvePoint,
    Event,
    ItemInfo,
    ItemsAdded,
    Job,
    Label,
    LabelsImported,
    LabelsStored,
    Metrics,
    ProjectInfo,
    SimilarItem,
)

__all__ = [
    "Annotating", "ApiError", "AsyncAnnotating", "AsyncItem", "AsyncProject", "AsyncShortlist", "Batch", "BatchItem",
    "Conflict", "CurvePoint", "Event", "FieldError", "Forbidden", "Invalid", "Item", "ItemInfo", "ItemsAdded", "Job",
    "JobFailed", "Label", "LabelsImported", "LabelsStored", "Metrics", "NotFound", "NotReached", "Project",
    "ProjectInfo", "ServerError", "Shortlist", "ShortlistError", "SimilarItem", "TimedOut", "TooManyRequests",
    "Unauthorized",
]  # fmt: skip

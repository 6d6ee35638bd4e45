from datetime import datetime
from typing import Any, Literal

from fastapi import APIRouter

from service.http.dependencies import Caller, ReadSession
from service.http.etag import ETagRoute
from service.http.schemas import Answer, with_example
from service.models import plug_ins

router = APIRouter(prefix="/catalogue", tags=["catalogue"], route_class=ETagRoute)


class PlugIn(Answer):
    model_config = with_example(
        {
            "kind": "strategy",
            "name": "margin",
            "help": "Smallest margin between the two likeliest classes.",
            "parameters": {"type": "object", "properties": {}},
        }
    )

    kind: Literal["strategy", "pretext_task", "head", "backbone"]
    name: str
    help: str
    parameters: dict[str, Any]  # JSON schema
    announced_at: datetime


class CatalogueAnswer(Answer):
    """The plug-ins that projects can choose from: announced by the workers, empty before the first one ran."""

    items: list[PlugIn]


@router.get("")
def get_catalogue(session: ReadSession, caller: Caller) -> CatalogueAnswer:
    """Strategies, pretext tasks, heads and backbones, with their help and parameters."""
    return CatalogueAnswer(
        items=[
            PlugIn(
                kind=entry.kind,
                name=entry.name,
                help=entry.help,
                parameters=entry.parameters,
                announced_at=entry.announced_at,
            )
            for entry in plug_ins.entries(session)
        ]
    )

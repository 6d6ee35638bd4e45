from typing import Literal

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Gauge, generate_latest

from service.http.dependencies import PartsDep, Reader
from service.http.schemas import Answer, with_example
from service.models import readiness

router = APIRouter(tags=["health"])


class Alive(Answer):
    model_config = with_example({"status": "ok"})

    status: Literal["ok"] = "ok"


class Ready(Answer):
    model_config = with_example({"status": "ready", "workers": 1})

    status: Literal["ready"] = "ready"
    workers: int


@router.get("/healthz")
def healthz() -> Alive:
    """The process answers. Needs no key."""
    return Alive()


@router.get("/readyz")
def readyz(parts: PartsDep) -> Ready:
    """Database, migration and a live worker; 503 says which of them fails. Needs no key."""
    return Ready(workers=readiness.check_ready(parts.engine))


@router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
def prometheus(parts: PartsDep, caller: Reader) -> Response:
    """Figures for Prometheus, with the key as `authorization` credentials."""
    caller.require_all_projects()
    now = CollectorRegistry()
    for name, value in readiness.figures(parts.engine).items():
        Gauge(name, name.replace("_", " "), registry=now).set(value)
    return Response(generate_latest(parts.registry) + generate_latest(now), media_type=CONTENT_TYPE_LATEST)

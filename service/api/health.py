from collections.abc import Iterator
from typing import Literal

import sqlalchemy as sa
from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily

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
    told = generate_latest(parts.figures.registry) + generate_latest(_Gauges(parts.engine))
    return Response(told, media_type=CONTENT_TYPE_LATEST)


class _Gauges(CollectorRegistry):
    """The gauges, as the database tells them now."""

    def __init__(self, engine: sa.Engine) -> None:
        super().__init__()
        self._engine = engine

    def collect(self) -> Iterator[GaugeMetricFamily]:
        for gauge in readiness.gauges(self._engine):
            family = GaugeMetricFamily(gauge.name, gauge.help, labels=gauge.labels)
            for labels, value in gauge.values.items():
                family.add_metric(labels, value)
            yield family

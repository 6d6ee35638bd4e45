"""Figures for Prometheus that a process counts itself; those of the database are in `service.models.readiness`.

Names follow its conventions: base units, `_total` for counters (https://prometheus.io/docs/practices/naming/).
"""

import collections
from collections.abc import Iterable

import sqlalchemy as sa
from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics
from sqlalchemy.orm import Session

_NEXT_BATCH = "/next-batch"
_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Figures:
    def __init__(self, registry: CollectorRegistry) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each, which Prometheus does not need
        self.registry = registry
        self._requests = Counter(
            "shortlist_requests", "Requests answered", ("method", "route", "status"), registry=registry
        )
        self._seconds = Histogram(
            "shortlist_request_duration_seconds",
            "Time to the end of the answer",
            ("method", "route"),
            buckets=_BUCKETS_S,
            registry=registry,
        )
        self._next_batch = Histogram(
            "shortlist_next_batch_duration_seconds",
            "Time to the end of the answer of next-batch",
            buckets=_BUCKETS_S,
            registry=registry,
        )
        self._labels = Counter("shortlist_labels", "Labels that came in", ("outcome",), registry=registry)

    def answered(self, method: str, route: str, status: int, seconds: float) -> None:
        """route: its template, as `/projects/{project_id}/labels`."""
        self._requests.labels(method, route, str(status)).inc()
        self._seconds.labels(method, route).observe(seconds)
        if route.endswith(_NEXT_BATCH) and status == 200:
            self._next_batch.observe(seconds)

    def labels_stored(self, outcomes: Iterable[str]) -> None:
        for outcome, number in collections.Counter(outcomes).items():
            self._labels.labels(outcome).inc(number)

    def labels_stored_with(self, session: Session, outcomes: Iterable[str]) -> None:
        """Counted once the session has committed them."""
        sa.event.listen(session, "after_commit", lambda _: self.labels_stored(outcomes), once=True)

"""The service: routers, the one error handler, what surrounds each request. It never loads torch."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
from fastapi import Depends, FastAPI
from prometheus_client import CollectorRegistry

from service import web
from service.access import keys
from service.access.rate_limits import RateLimits, UseNotes
from service.access.signed_urls import ItemLinks
from service.api import (
    annotators,
    backbones,
    batches,
    catalogue,
    classes,
    embeddings,
    events,
    health,
    item_actions,
    item_registration,
    items,
    jobs,
    label_import,
    labels,
    maps,
    predictions,
    projects,
    round_answers,
    rounds,
    scores,
    sign_in,
    similar,
    sources,
    suspects,
    training,
    uploads,
    webhooks,
)
from service.api import keys as key_routes
from service.content import limits_of
from service.content.reader import ItemBytes
from service.http import problems
from service.http.dependencies import SESSIONS, WRITERS, Parts, Turns
from service.http.event_streams import EventStreams
from service.http.figures import Figures
from service.http.http_head import HeadAsGet
from service.http.middleware import BodyLimit, Observed
from service.http.openapi import DescribedApp
from service.http.strict_query import refuse_unknown_query
from service.integrations.label_studio import routes as label_studio
from service.integrations.label_studio.syncer import Syncer
from service.pool.uploads import sweep
from service.settings import Settings
from service.store.artifacts import Artifacts
from service.store.marks import Marks
from service.store.session import make_engine
from service.webhooks.deliverer import Deliverer

_DESCRIPTION = """Which items should people label next?

Create a project, import a source, pretrain; then take batches with `next-batch` and send `labels`. Rounds,
retraining and ranking follow by themselves. Every request carries `Authorization: Bearer <key>`; every error is
`application/problem+json` with a stable `code` and a sentence that says what to do.
"""

_ROUTERS = (
    projects.router,
    sources.router,
    items.router,
    item_actions.router,
    item_registration.router,
    similar.router,
    training.router,
    embeddings.router,
    predictions.router,
    backbones.router,
    batches.router,
    labels.router,
    label_import.router,
    annotators.router,
    suspects.router,
    rounds.router,
    events.router,
    scores.router,
    jobs.router,
    webhooks.router,
    catalogue.router,
    key_routes.router,
    sign_in.router,
    health.router,
    maps.router,
    round_answers.router,
    label_studio.router,
    label_studio.called_by_the_tool,
    classes.router,
    uploads.router,
    web.router,
)


def create_app(settings: Settings) -> FastAPI:
    """Raises `DataFolderNotWritable`. The database is not touched before the first request."""
    secret = keys.server_secret(settings)
    engine = make_engine(settings.database)
    artifacts = Artifacts(settings.artifacts, settings.data_dir / "cache")
    parts = Parts(
        settings=settings,
        engine=engine,
        secret=secret,
        links=ItemLinks(secret, settings.content_link_ttl_s),
        item_bytes=ItemBytes(settings),
        limits=limits_of(settings),
        artifacts=artifacts,
        marks=Marks(artifacts),
        figures=Figures(CollectorRegistry()),
        slots=anyio.CapacityLimiter(SESSIONS),
        write_slots=anyio.CapacityLimiter(1 if engine.dialect.name == "sqlite" else WRITERS),
        turns=Turns(),
        rate_limits=RateLimits(settings.rate_limit_per_s),
        use_notes=UseNotes(),
        event_streams=EventStreams(engine, settings.event_streams_per_key, settings.event_stream_s),
    )
    deliverer = Deliverer(engine, secret, settings.webhooks_to_private_addresses, parts.write_slots)

    syncer = Syncer(parts)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with anyio.create_task_group() as beside_requests:
            beside_requests.start_soon(parts.event_streams.run)
            beside_requests.start_soon(deliverer.run)
            beside_requests.start_soon(syncer.run)
            beside_requests.start_soon(sweep, engine, parts.artifacts)
            yield
            parts.event_streams.close()
            beside_requests.cancel_scope.cancel()
        parts.engine.dispose()

    app = DescribedApp(
        title="Shortlist",
        version="0.1.0",
        docs_url=None,  # service.web has it, with its script
        redoc_url=None,
        description=_DESCRIPTION,
        lifespan=lifespan,
        dependencies=[Depends(refuse_unknown_query)],
        responses={"default": {"model": problems.Problem, "description": "What went wrong (RFC 9457)"}},
    )
    app.state.parts = parts
    app.state.label_studio = syncer
    problems.install(app)
    for router in _ROUTERS:
        app.include_router(router)
    app.mount("/static", web.static_files)
    app.add_middleware(BodyLimit, max_bytes=settings.max_body_bytes)
    app.add_middleware(Observed, figures=parts.figures)
    app.add_middleware(HeadAsGet)
    return app

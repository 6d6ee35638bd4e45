"""The application of a test, without what each one would work out anew."""

from fastapi import FastAPI
from starlette.routing import BaseRoute

from service.main import create_app
from service.settings import Settings

_routes: list[BaseRoute] = []


def make_app(settings: Settings) -> FastAPI:
    """As `create_app` makes it. All of a process share their routes, which know nothing of the application: FastAPI
    finds out what each of them takes when the first request comes, and that is 0.3 s for each application.
    """
    app = create_app(settings)
    if _routes:
        app.router.routes[:] = _routes
    else:
        _routes.extend(app.router.routes)
    return app

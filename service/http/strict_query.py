"""Unknown query parameters are refused, as unknown fields of a body are: a typing error is never silently ignored."""

from collections.abc import Iterator

from fastapi import Request
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute

from service.errors import UnknownQueryParameter


async def refuse_unknown_query(request: Request) -> None:
    """Refuse query parameters that the route does not take. Raises `UnknownQueryParameter`."""
    route = request.scope["route"]
    if not request.query_params or not route.include_in_schema:  # … or a page that is not part of the API
        return
    known = query_names(route)
    unknown = [name for name in request.query_params if name not in known]
    if unknown:
        takes = f"It takes: {', '.join(known)}" if known else "It takes none"
        raise UnknownQueryParameter(field=unknown[0], takes=takes)


def query_names(route: APIRoute) -> list[str]:
    """As the description names them, without making it: that takes a second, in which nothing else is answered."""
    return list(dict.fromkeys(_names(route.dependant)))


def _names(dependant: Dependant) -> Iterator[str]:
    yield from (field.alias for field in dependant.query_params)
    for needed in dependant.dependencies:
        yield from _names(needed)

"""Unknown query parameters are refused, as unknown fields of a body are: a typing error is never silently ignored."""

from typing import Any

from fastapi import Request

from service.errors import UnknownQueryParameter


async def refuse_unknown_query(request: Request) -> None:
    """Refuse query parameters that are not in the route's OpenAPI description. Raises `UnknownQueryParameter`."""
    if not request.query_params:
        return
    operation = _operation(request)
    if operation is None:  # a page that is not part of the API
        return
    known = [given["name"] for given in operation.get("parameters", ()) if given["in"] == "query"]
    unknown = [name for name in request.query_params if name not in known]
    if unknown:
        takes = f"It takes: {', '.join(known)}" if known else "It takes none"
        raise UnknownQueryParameter(field=unknown[0], takes=takes)


def _operation(request: Request) -> dict[str, Any] | None:
    paths: dict[str, Any] = request.app.openapi()["paths"]
    found: dict[str, Any] | None = paths.get(request.scope["route"].path, {}).get(request.method.lower())
    return found

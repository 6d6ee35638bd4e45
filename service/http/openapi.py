"""/openapi.json as the service really answers."""

from typing import Any

from fastapi import FastAPI

from service.http.problems import ProblemResponse

_MALFORMED = ("HTTPValidationError", "ValidationError")  # FastAPI's own, never sent


class DescribedApp(FastAPI):
    """Every error is `application/problem+json`; FastAPI itself describes errors as it would answer them."""

    def openapi(self) -> dict[str, Any]:
        if self.openapi_schema is None:
            description = super().openapi()
            for methods in description["paths"].values():
                for operation in methods.values():
                    _describe_errors(operation["responses"])
            for name in _MALFORMED:
                description["components"]["schemas"].pop(name, None)
        return super().openapi()


def _describe_errors(responses: dict[str, Any]) -> None:
    refused = responses.get("422", {}).get("content", {}).get("application/json", {}).get("schema", {})
    if refused.get("$ref", "").endswith(_MALFORMED[0]):
        del responses["422"]
    content = responses["default"]["content"]
    content[ProblemResponse.media_type] = content.popitem()[1]  # it stands there as the route's own type

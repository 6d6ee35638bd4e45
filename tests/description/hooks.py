"""Hooks of `schemathesis run`: how a stream of items is sent, that webhooks call nobody outside this machine, and that
what is deleted is gone.
"""

import json
from typing import Any

import schemathesis
from schemathesis import Case, CheckContext, HookContext, Response, SerializationContext
from schemathesis.specs.openapi.checks import ensure_resource_availability, use_after_free

NOWHERE = "http://127.0.0.1:9/"


@schemathesis.serializer("application/x-ndjson")
def ndjson(_: SerializationContext, value: Any) -> bytes:
    return value if isinstance(value, bytes) else json.dumps(value).encode()


@schemathesis.hook
def before_call(_: HookContext, case: Case[Any], __: dict[str, Any]) -> None:
    """The service under test really sends: whatever address was made up becomes one where nobody listens. Else what
    comes of a call depends on who answers at that name.
    """
    body = case.body
    if not (isinstance(body, dict) and case.path.endswith(("/webhooks", "/integrations/label-studio"))):
        return
    if str(body.get("url")).lower().startswith("http"):
        case.body = body | {"url": NOWHERE}


@schemathesis.check
def deleted_is_gone(ctx: CheckContext, response: Response, case: Case[Any]) -> bool | None:
    """As `use_after_free`, which in sequences of calls heeds no exception of one operation: DELETE cancels a job, and
    the job stays to be looked at.
    """
    return None if case.operation.path == "/jobs/{job_id}" else use_after_free(ctx, response, case)


@schemathesis.check
def made_is_there(ctx: CheckContext, response: Response, case: Case[Any]) -> bool | None:
    """As `ensure_resource_availability`, but that a project that was just made is connected to no tool, and has no
    predictions; and that a replayed answer made nothing: what it names may have been deleted since.
    """
    none_yet = case.operation.path.endswith(("/integrations/label-studio", "/predictions"))
    return None if none_yet or _is_replayed(ctx, case) else ensure_resource_availability(ctx, response, case)


def _is_replayed(ctx: CheckContext, case: Case[Any]) -> bool:
    maker = ctx.internals.find_parent(case_id=case.id)
    made = maker and ctx.internals.find_response(case_id=maker.id)
    return made is not None and "idempotency-replayed" in made.headers

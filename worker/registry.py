"""Plug-ins register by being there: every class with a `name` in a module of their package is one.

Built-ins use the same door. Adding a strategy, pretext task or head is adding one file.
"""

import importlib
import importlib.util
import inspect
import pkgutil
from functools import cache
from itertools import chain
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from worker.errors import JobFailed, Unsuited

P = TypeVar("P", bound=type)
M = TypeVar("M", bound=BaseModel)

_NEEDED_FOR = {
    "pretext_task": "task",
    "cold_start": "strategy",
}  # a setting, where a worker's need is named otherwise


@cache
def _modules(package: str) -> tuple[str, ...]:
    found = importlib.import_module(package)
    return tuple(f"{package}.{module.name}" for module in pkgutil.iter_modules(found.__path__))


@cache
def rooms_of(package: str, room: str) -> tuple[str, ...]:
    """The packages named `room` inside the packages of `package`: `worker.modalities.image.pretext`, …"""
    found = importlib.import_module(package)
    inside = (
        f"{package}.{module.name}.{room}" for module in pkgutil.iter_modules(found.__path__) if module.ispkg
    )
    return tuple(name for name in inside if importlib.util.find_spec(name) is not None)


def plug_ins(base: P, *packages: str) -> dict[str, P]:
    """All concrete subclasses of `base` in the modules of the packages, by their `name`."""
    found: dict[str, P] = {}
    for module_name in chain.from_iterable(map(_modules, packages)):
        candidate: Any  # one of `base`, which the checks below say better than its type could
        for _, candidate in inspect.getmembers(importlib.import_module(module_name), inspect.isclass):
            own = candidate.__module__ == module_name and issubclass(candidate, base)
            if own and isinstance(candidate.__dict__.get("name"), str):
                twin = found.setdefault(candidate.name, candidate)
                if twin is not candidate:
                    raise ValueError(f"{candidate.name!r} names both {twin} and {candidate}")
    return dict(sorted(found.items()))


def plug_in_from(known: dict[str, type[M]], name: str, params: dict[str, Any], setting: str) -> M:
    """The plug-in that the project's `setting` names, with its parameters. Raises `Unsuited` where there is
    none here, and `JobFailed` where it does not take them."""
    plug_in = known.get(name)
    if plug_in is None:
        raise Unsuited(
            f"This worker knows no {setting} {name!r}. Set the project's {setting} to one of "
            f"{', '.join(known)}, or start a worker that has it.",
            missing=[f"{_NEEDED_FOR.get(setting, setting)}:{name}"],
        )
    try:
        return plug_in.model_validate(params)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "params"
        raise JobFailed(
            f"The project's {setting} {name!r} cannot take {where}: {first['msg']}. "
            "Change it in the project's settings."
        ) from error

"""Plug-ins register by being there: every class with a `name` in a module of their package is one.

Built-ins use the same door. Adding a strategy, pretext task or head is adding one file.
"""

import importlib
import inspect
import pkgutil
from functools import cache
from typing import Any, TypeVar

P = TypeVar("P", bound=type)


@cache
def _modules(package: str) -> tuple[str, ...]:
    found = importlib.import_module(package)
    return tuple(f"{package}.{module.name}" for module in pkgutil.iter_modules(found.__path__))


def plug_ins(package: str, base: P) -> dict[str, P]:
    """All concrete subclasses of `base` in the modules of `package`, by their `name`."""
    found: dict[str, P] = {}
    for module_name in _modules(package):
        candidate: Any  # one of `base`, which the checks below say better than its type could
        for _, candidate in inspect.getmembers(importlib.import_module(module_name), inspect.isclass):
            own = candidate.__module__ == module_name and issubclass(candidate, base)
            if own and isinstance(candidate.__dict__.get("name"), str):
                twin = found.setdefault(candidate.name, candidate)
                if twin is not candidate:
                    raise ValueError(f"{candidate.name!r} names both {twin} and {candidate}")
    return dict(sorted(found.items()))

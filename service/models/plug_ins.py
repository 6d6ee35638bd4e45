"""Plug-ins that workers announced, and the check of a project's choices against them."""

from collections.abc import Iterator, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from service.errors import Invalid, UnknownPlugIn
from service.store.catalogue import LABEL_KINDS
from service.store.project_settings import Choice, ProjectSettings
from service.store.tables import CatalogueEntry

# Which kind of plug-in a setting names. A backbone is `small` or any timm model: only the worker knows.
_KINDS = {"pretext_task": "pretext_task", "strategy": "strategy", "cold_start": "strategy", "head": "head"}
_NAMES_A_CLASS = "x-class"  # in the schema of a parameter: its value is a class of the project
_JSON_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "null": (type(None),),
    "array": (list,),
    "object": (dict,),
}


def entries(session: Session) -> list[CatalogueEntry]:
    return list(session.scalars(sa.select(CatalogueEntry).order_by(CatalogueEntry.kind, CatalogueEntry.name)))


def check(
    session: Session, settings: ProjectSettings, classes: Sequence[str], label_kind: str = "single"
) -> None:
    """The plug-ins that were chosen, and their parameters. Raises `UnknownPlugIn` or `Invalid`.

    classes: of the project, which a parameter may name; label_kind: its own, which not every head can

    Before any worker ran there is nothing to check against, and everything passes: the job says what is wrong.
    """
    announced = entries(session)
    for field in sorted(settings.model_fields_set & _KINDS.keys()):
        choice: Choice = getattr(settings, field)
        schemas = {entry.name: entry.parameters for entry in announced if entry.kind == _KINDS[field]}
        if not schemas:
            continue
        if choice.name not in schemas:
            kind, known = _KINDS[field].replace("_", " "), ", ".join(schemas)
            raise UnknownPlugIn(field=field, kind=kind, name=choice.name, known=known)
        if label_kind not in schemas[choice.name].get(LABEL_KINDS, [label_kind]):
            able = [
                name
                for name, schema in schemas.items()
                if label_kind in schema.get(LABEL_KINDS, [label_kind])
            ]
            message = (
                f"the {_KINDS[field].replace('_', ' ')} {choice.name!r} is for projects where an item has one class. "
                f"Those that can tell several are: {', '.join(able) or 'none'}."
            )
            raise Invalid(field=field, message=message)
        _check_params(choice.params, schemas[choice.name], f"{field}.params", classes)


def named_classes(session: Session, settings: ProjectSettings) -> Iterator[tuple[str, str, str]]:
    """The classes that parameters of the chosen plug-ins name: setting, parameter, class."""
    schemas = {(entry.kind, entry.name): entry.parameters for entry in entries(session)}
    for field in sorted(settings.model_fields_set & _KINDS.keys()):
        choice: Choice = getattr(settings, field)
        properties = schemas.get((_KINDS[field], choice.name), {}).get("properties", {})
        for name, value in choice.params.items():
            if properties.get(name, {}).get(_NAMES_A_CLASS) and isinstance(value, str):
                yield field, name, value


def _check_params(values: dict[str, Any], schema: dict[str, Any], field: str, classes: Sequence[str]) -> None:
    """By the part of JSON Schema that parameters of plug-ins use; the plug-in itself checks the rest."""
    properties: dict[str, Any] = schema.get("properties", {})
    for name, value in values.items():
        if name not in properties:
            known = ", ".join(properties) or "none"
            raise Invalid(field=f"{field}.{name}", message=f"there is no such parameter. Known are: {known}.")
        problem = _problem(value, properties[name])
        if problem is not None:
            raise Invalid(field=f"{field}.{name}", message=f"this must be {problem}.")
        if properties[name].get(_NAMES_A_CLASS) and value is not None and value not in classes:
            message = f"the project has no class {value!r}. Its classes are: {', '.join(classes)}."
            raise Invalid(field=f"{field}.{name}", message=message)
    for name in schema.get("required", []):
        if name not in values:
            raise Invalid(field=f"{field}.{name}", message="this parameter is required.")


def _problem(value: Any, schema: dict[str, Any]) -> str | None:
    """The requirement that the value violates, in words; None where it is valid."""
    if "anyOf" in schema:
        problems = [_problem(value, option) for option in schema["anyOf"]]
        return None if None in problems else " or ".join(filter(None, problems))
    expected = schema.get("type")
    if isinstance(expected, str) and not _is_of(value, expected):
        return f"of type {expected}"
    if "enum" in schema and value not in schema["enum"]:
        return f"one of {', '.join(map(repr, schema['enum']))}"
    if isinstance(value, int | float):
        if value < schema.get("minimum", value):
            return f"at least {schema['minimum']}"
        if value > schema.get("maximum", value):
            return f"at most {schema['maximum']}"
        if "exclusiveMinimum" in schema and value <= schema["exclusiveMinimum"]:
            return f"greater than {schema['exclusiveMinimum']}"
        if "exclusiveMaximum" in schema and value >= schema["exclusiveMaximum"]:
            return f"less than {schema['exclusiveMaximum']}"
    return None


def _is_of(value: Any, expected: str) -> bool:
    if isinstance(value, bool):
        return expected == "boolean"
    return isinstance(value, _JSON_TYPES.get(expected, ()))

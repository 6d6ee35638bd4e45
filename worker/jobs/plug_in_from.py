"""A project's choice of a plug-in, made ready to use."""

from typing import TypeVar

from pydantic import BaseModel, ValidationError

from service.store.pipeline import NEEDED_FOR
from service.store.project_settings import Choice
from worker.jobs.context import JobFailed, Unsuited

P = TypeVar("P", bound=BaseModel)


def chosen(known: dict[str, type[P]], choice: Choice, setting: str) -> P:
    """The plug-in that the project's `setting` names, with its parameters. Raises `Unsuited` where this worker lacks
    it, `JobFailed` where it does not take them.
    """
    plug_in = known.get(choice.name)
    if plug_in is None:
        raise Unsuited(
            f"This worker knows no {setting} {choice.name!r}. Set the project's {setting} to one of "
            f"{', '.join(known)}, or start a worker that has it.",
            missing=[f"{NEEDED_FOR[setting]}:{choice.name}"],
        )
    try:
        return plug_in.model_validate(choice.params)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "params"
        raise JobFailed(
            f"The project's {setting} {choice.name!r} cannot take {where}: {first['msg']}. "
            "Change it in the project's settings."
        ) from error

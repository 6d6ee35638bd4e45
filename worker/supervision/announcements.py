"""Announcements of this worker's plug-ins for the catalogue: each one's docstring and parameter schema."""

import inspect
from collections.abc import Iterable, Mapping
from dataclasses import replace
from importlib.util import find_spec

from pydantic import BaseModel

from service.store.catalogue import HEAD_NEEDS_ITEMS, LABEL_KINDS, TASK_MODALITIES, Announcement, Kind
from service.store.pipeline import NEEDED_FOR
from worker.heads import heads
from worker.modalities import modalities
from worker.modalities.foundation import usable
from worker.modalities.image.backbones import SmallBackbone
from worker.modalities.text.backbones import HUGGING_FACE
from worker.pretext import pretext_tasks
from worker.strategies import strategies

_BY_NAME = (
    "Any timm model works too, by its name: for images, for recordings, whose spectrograms are pictures of one "
    "channel, and for videos, of whose frames it makes embeddings that are pooled; so do `hf-hub:OWNER/NAME`, a model "
    "of timm on the hub, and `local-dir:/FOLDER`, one in a folder that all workers can read, as an exported backbone "
    "of ours is. Videos also take torchvision's video networks, as `r2plus1d_18`. Texts take any encoder or causal "
    "model of Hugging Face. Each modality has a `small` of its own, which the docs of its items describe."
)


def announcements() -> tuple[Announcement, ...]:
    return (
        *_described("strategy", strategies()),
        *map(_with_modalities, _described("pretext_task", pretext_tasks())),
        *map(_with_needs, _described("head", heads())),
        _small_backbone(),
    )


def had(announced: Iterable[Announcement]) -> set[str]:
    """The plug-ins as what jobs may need (`service.store.pipeline`)."""
    plug_ins = {f"{NEEDED_FOR[each.kind]}:{each.name}" for each in announced if each.kind in NEEDED_FOR}
    kinds = modalities()
    founded = {name for name, kind in kinds.items() if kind.foundation and usable(kind.foundation)}
    if find_spec("transformers") is not None:
        plug_ins.add(HUGGING_FACE)
    return plug_ins | {f"modality:{name}" for name in kinds} | {f"foundation:{name}" for name in founded}


def _described(kind: Kind, plug_ins: Mapping[str, type[BaseModel]]) -> list[Announcement]:
    return [
        Announcement(kind, name, help=inspect.getdoc(plug_in) or "", parameters=plug_in.model_json_schema())
        for name, plug_in in plug_ins.items()
    ]


def _with_modalities(task: Announcement) -> Announcement:
    """The kinds of items that a pretext task is for stand in its parameter schema; null is any."""
    kinds = pretext_tasks()[task.name].modalities
    schema = task.parameters | {TASK_MODALITIES: sorted(kinds) if kinds else None}
    return replace(task, parameters=schema)


def _with_needs(head: Announcement) -> Announcement:
    """A head's need of the items themselves, noted in its parameter schema, and the projects it is for. Such a training
    takes minutes: it belongs into the long lane.
    """
    needs_items = heads()[head.name].needs_items
    schema = head.parameters | {HEAD_NEEDS_ITEMS: needs_items}
    if not heads()[head.name].several:
        schema |= {LABEL_KINDS: ["single"]}
    return replace(head, parameters=schema, lane="long" if needs_items else None)


def _small_backbone() -> Announcement:
    about = inspect.getdoc(SmallBackbone) or ""
    no_parameters = {"type": "object", "properties": {}, "additionalProperties": False}
    return Announcement("backbone", "small", f"{about}\n\n{_BY_NAME}", no_parameters)

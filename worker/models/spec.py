"""A pretext model as plain data: all that rebuilds its network, and nothing of the row that it is stored in."""

from dataclasses import dataclass
from typing import Any

from worker.modalities import Modality, modalities
from worker.pretext import PretextTask, pretext_tasks
from worker.registry import plug_in_from


@dataclass(frozen=True)
class ModelSpec:
    """task   {"name", "params"}
    input  {"modality", and its settings, resolved}
    layer  of the backbone that embeddings are taken from; None: its own output
    """

    task: dict[str, Any]
    backbone: str
    input: dict[str, Any]
    seed: int
    pretrained: bool = False
    layer: str | None = None

    def make_task(self) -> PretextTask:
        """Raises `Unsuited` and `JobFailed`."""
        return plug_in_from(pretext_tasks(), self.task["name"], self.task.get("params", {}), "pretext_task")

    def make_modality(self) -> Modality:
        """Raises `Unsuited` and `JobFailed`."""
        settings = {name: value for name, value in self.input.items() if name != "modality"}
        return plug_in_from(modalities(), self.input["modality"], settings, "modality")


def input_of(modality: Modality) -> dict[str, Any]:
    """A resolved modality as `ModelSpec.input` keeps it."""
    return {"modality": modality.name} | modality.model_dump(exclude_defaults=True)

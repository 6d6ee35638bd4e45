"""Several pretext tasks at once, on one backbone."""

import math
from typing import TYPE_CHECKING, Annotated, ClassVar, cast

import torch
from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError
from torch import Tensor, nn

from worker.errors import JobFailed
from worker.pretext import PretextTask, pretext_tasks

if TYPE_CHECKING:
    from worker.modalities import Modality


class CombinedNet(nn.Module):
    """One backbone, and the parts' nets, which share it."""

    def __init__(self, backbone: nn.Module, parts: dict[str, nn.Module]) -> None:
        super().__init__()
        self.backbone = backbone
        self.parts = nn.ModuleDict(parts)
        for part in parts.values():  # registered once, or a stored model would hold it once a part
            del part.backbone
            object.__setattr__(part, "backbone", backbone)


def _weights(tasks: dict[str, float]) -> dict[str, float]:
    known = {name: kind for name, kind in pretext_tasks().items() if not issubclass(kind, Combined)}
    for name, weight in tasks.items():
        if name not in known:
            raise _refused(f"there is no pretext task {name!r} to combine; there are {', '.join(known)}")
        if not (weight > 0 and math.isfinite(weight)):
            raise _refused(f"the weight of {name!r} must be above 0, not {weight}")
    return tasks


def _refused(sentence: str) -> PydanticCustomError:
    """Unlike a ValueError, it is shown without a prefix."""
    return PydanticCustomError("tasks", "{sentence}", {"sentence": sentence})


class Combined(PretextTask):
    """The weighted sum of other tasks' losses, all learned by one backbone. Losses have different units: look at
    what each task alone ends with before weighing them.

    Doersch and Zisserman 2017, "Multi-task Self-Supervised Visual Learning", https://arxiv.org/abs/1708.07860.
    """

    name: ClassVar[str] = "combined"
    largest_batch: ClassVar[int | None] = 1_024  # that of the parts that have one
    scoring_views: ClassVar[int] = 2  # each of half the views of every part, so that none is scored too often

    tasks: Annotated[dict[str, float], Field(min_length=1), AfterValidator(_weights)] = Field(
        {"rotation": 1.0, "reconstruction": 0.5}, description="Which tasks, with which weights."
    )

    def make_net(self, backbone: nn.Module, dimensions: int, modality: "Modality") -> nn.Module:
        for name, task, _ in self._parts():
            if task.modalities is not None and modality.name not in task.modalities:
                fitting = ", ".join(pretext_tasks(modality.name))
                raise JobFailed(f"{name!r} is no task for {modality.name}s. Combine some of {fitting}.")
        parts = {name: task.make_net(backbone, dimensions, modality) for name, task, _ in self._parts()}
        return CombinedNet(backbone, parts)

    def losses(self, net: nn.Module, batch: Tensor, generator: torch.Generator) -> Tensor:
        total = torch.zeros(len(batch), device=batch.device)
        for name, task, weight in self._parts():
            views = 1 if net.training else math.ceil(task.scoring_views / self.scoring_views)
            part = cast(CombinedNet, net).parts[name]
            for _ in range(views):
                total = total + weight / views * task.losses(part, batch, generator)
        return total

    def diagnostics(self, net: nn.Module, batch: Tensor) -> dict[str, float]:
        """The smallest value of each measure over the parts that have it, so that one part's collapse is seen."""
        found: dict[str, float] = {}
        for name, task, _ in self._parts():
            for measure, value in task.diagnostics(cast(CombinedNet, net).parts[name], batch).items():
                found[measure] = min(value, found.get(measure, value))
        return found

    def after_step(self, net: nn.Module, done: float) -> None:
        for name, task, _ in self._parts():
            task.after_step(cast(CombinedNet, net).parts[name], done)

    def finalise(self, net: nn.Module, sample: Tensor, generator: torch.Generator) -> None:
        for name, task, _ in self._parts():
            task.finalise(cast(CombinedNet, net).parts[name], sample, generator)

    def _parts(self) -> list[tuple[str, PretextTask, float]]:
        known = pretext_tasks()
        return [(name, known[name](), weight) for name, weight in self.tasks.items()]


class RotationAndReconstruction(Combined):
    """Rotation, and half of reconstruction: which way up, and what it looks like in detail.

    Gidaris et al. 2018, https://arxiv.org/abs/1803.07728; Xie et al. 2022, https://arxiv.org/abs/2111.09886.
    """

    name: ClassVar[str] = "rotation+reconstruction"
    modalities: ClassVar[frozenset[str] | None] = frozenset({"image"})

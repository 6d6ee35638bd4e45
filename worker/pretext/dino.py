"""DINO: an EMA teacher's prototypes, predicted from a part of the image."""

from typing import TYPE_CHECKING, Annotated, ClassVar, cast

import torch
from pydantic import AfterValidator, Field
from torch import Tensor, nn
from torch.nn import functional

from worker import collectives
from worker.pretext import PretextNet, PretextTask
from worker.pretext.projection import hidden, mlp
from worker.pretext.teacher import follow, frozen_copy, rising

if TYPE_CHECKING:
    from worker.modalities import Modality

_STUDENT, _TEACHER = 0.1, 0.04  # temperatures
_CENTRE_MOMENTUM = 0.9
_BOTTLENECK = 256
_LARGE, _SMALL = (0.4, 1.0), (0.1, 0.4)  # share of the area that a crop shows


class _Head(nn.Module):
    """(n, d) -> (n, prototypes): cosines with the prototypes. With batch norm, without which a short training
    never gets beyond saying the same of all images.
    """

    def __init__(self, dimensions: int, prototypes: int) -> None:
        super().__init__()
        self.layers = mlp(dimensions, hidden(dimensions), hidden(dimensions), _BOTTLENECK)
        self.prototypes = nn.Parameter(torch.randn(prototypes, _BOTTLENECK))

    def forward(self, embeddings: Tensor) -> Tensor:
        places = functional.normalize(self.layers(embeddings))
        return functional.linear(places, functional.normalize(self.prototypes)).float()


class DINONet(PretextNet):
    """`centre` (prototypes,) is the mean of what the teacher said, less of which it says."""

    centre: Tensor

    def __init__(self, backbone: nn.Module, dimensions: int, modality: "Modality", prototypes: int) -> None:
        super().__init__(backbone, modality)
        self.head = _Head(dimensions, prototypes)
        self.teacher = nn.Sequential(frozen_copy(backbone), frozen_copy(self.head))
        self.small_view = modality.small_view(backbone)
        self.register_buffer("centre", torch.zeros(prototypes))

    def forward(self, images: Tensor) -> Tensor:
        said: Tensor = self.head(self.backbone(images))
        return said


def _not_one(small_crops: int) -> int:
    if small_crops == 1:  # of a last batch of one item, where batch norm needs two
        raise ValueError("send 0, or 2 to 16")
    return small_crops


class DINO(PretextTask):
    """Say of small parts of an image what a slowly following copy of the network says of large ones: a soft
    choice among prototypes. Centring keeps all from choosing the same. An item's loss is the mean cross-entropy
    over the pairs of crops.

    Caron et al. 2021, "Emerging Properties in Self-Supervised Vision Transformers",
    https://arxiv.org/abs/2104.14294.
    """

    name: ClassVar[str] = "dino"
    scoring_views: ClassVar[int] = 2  # of six crops each

    prototypes: int = Field(1_024, ge=2, le=65_536, description="What the copy may choose from.")
    small_crops: Annotated[int, AfterValidator(_not_one)] = Field(
        4, ge=0, le=16, description="Small parts shown beside two large ones: none, or two and more."
    )
    momentum: float = Field(
        0.99, ge=0, lt=1, description="How slowly the copy follows at the start; 1 at the end."
    )

    def make_net(self, backbone: nn.Module, dimensions: int, modality: "Modality") -> nn.Module:
        return DINONet(backbone, dimensions, modality, self.prototypes)

    def losses(self, net: nn.Module, batch: Tensor, generator: torch.Generator) -> Tensor:
        net = cast(DINONet, net)
        each = net.training
        large = torch.cat([net.modality.view(batch, generator, each=each, share=_LARGE) for _ in range(2)])
        with torch.no_grad():
            taught = net.teacher(large)
        students = list(net(large).chunk(2))
        if self.small_crops:
            small = [
                net.modality.view(batch, generator, each=each, share=_SMALL, size=net.small_view)
                for _ in range(self.small_crops)
            ]
            students += net(torch.cat(small)).chunk(self.small_crops)
        targets = torch.softmax((taught - net.centre) / _TEACHER, 1).chunk(2)
        if net.training:
            net.centre.lerp_(collectives.all_reduce_mean(taught), 1 - _CENTRE_MOMENTUM)
        pairs = [
            -(target * functional.log_softmax(student / _STUDENT, 1)).sum(1)
            for teacher_view, target in enumerate(targets)
            for student_view, student in enumerate(students)
            if student_view != teacher_view
        ]
        return torch.stack(pairs).mean(0)

    @torch.no_grad()
    def after_step(self, net: nn.Module, done: float) -> None:
        net = cast(DINONet, net)
        follow(net.teacher, nn.Sequential(net.backbone, net.head), rising(self.momentum, done))

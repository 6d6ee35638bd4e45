"""A sum of tasks on one backbone."""

import pytest
import torch
from pydantic import ValidationError

from tests.worker.pretext.nets import images, seeded, tiny_net
from worker.modalities.image.pretext.reconstruction import Reconstruction
from worker.modalities.image.pretext.rotation import Rotation
from worker.pretext import pretext_tasks
from worker.pretext.byol import BYOL, BYOLNet
from worker.pretext.combined import Combined, CombinedNet, RotationAndReconstruction
from worker.pretext.vicreg import VICReg


def net_of(task: Combined) -> CombinedNet:
    net = tiny_net(task)
    assert isinstance(net, CombinedNet)
    return net


def test_it_is_the_weighted_sum() -> None:
    task = Combined(tasks={"rotation": 2, "reconstruction": 0.5})
    net, batch = net_of(task), images(4)
    for training in (True, False):
        net.train(training)
        generator = seeded()
        rotation = Rotation().losses(net.parts["rotation"], batch, generator)
        masks = 1 if training else 2  # twice that over the two scoring views
        reconstruction = torch.stack(
            [Reconstruction().losses(net.parts["reconstruction"], batch, generator) for _ in range(masks)]
        ).mean(0)

        assert torch.allclose(task.losses(net, batch, seeded()), 2 * rotation + 0.5 * reconstruction)
    assert task.scoring_views * 2 == Reconstruction.scoring_views
    assert task.diagnostics(net, batch).keys() == {"rotation_accuracy"}


def test_the_parts_share_the_backbone_and_a_stored_net_holds_it_once() -> None:
    task = Combined(tasks={"rotation": 1, "reconstruction": 1, "jigsaw": 1})
    net = net_of(task)
    backbone = set(net.backbone.state_dict())

    assert all(part.get_submodule("backbone") is net.backbone for part in net.parts.values())
    held = [name for name in net.state_dict() if name.split("backbone.")[-1] in backbone]
    assert held == [f"backbone.{name}" for name in net.backbone.state_dict()]


def test_every_part_follows_and_settles() -> None:
    task = Combined(tasks={"byol": 1, "simclr": 1})
    net = net_of(task)
    byol = net.parts["byol"]
    assert isinstance(byol, BYOLNet)
    for weight in net.backbone.parameters():
        torch.nn.init.constant_(weight, 3.0)
    before = next(byol.teacher.parameters()).clone()

    task.after_step(net, 0.0)
    task.finalise(net.eval(), images(7), seeded())

    momentum = BYOL().momentum
    after = next(byol.teacher.parameters())
    assert torch.allclose(after, momentum * before + (1 - momentum) * 3.0, atol=1e-6)
    assert int(net.state_dict()["parts.simclr.banked"]) == 7


def test_a_part_that_collapses_is_seen_beside_one_that_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {BYOL: {"projection_std": 0.01}, VICReg: {"projection_std": 0.9, "other": 1.0}}
    for kind, measured in found.items():
        monkeypatch.setattr(kind, "diagnostics", lambda self, net, batch, measured=measured: measured)
    task = Combined(tasks={"byol": 1, "vicreg": 1})

    assert task.diagnostics(net_of(task), images(3)) == {"projection_std": 0.01, "other": 1.0}


def test_the_ready_made_one() -> None:
    task = pretext_tasks()["rotation+reconstruction"]()

    assert isinstance(task, RotationAndReconstruction)
    assert task.tasks == {"rotation": 1, "reconstruction": 0.5}


@pytest.mark.parametrize(
    ("tasks", "sentence"),
    [
        ({}, "at least 1"),
        ({"rotations": 1}, "no pretext task 'rotations'.*rotation"),
        ({"combined": 1}, "no pretext task 'combined'"),
        ({"rotation": 0}, "above 0"),
        ({"rotation": -1}, "above 0"),
        ({"rotation": float("inf")}, "above 0"),
        ({"rotation": float("nan")}, "above 0"),
    ],
)
def test_what_cannot_be_summed(tasks: dict[str, float], sentence: str) -> None:
    with pytest.raises(ValidationError, match=sentence):
        Combined(tasks=tasks)

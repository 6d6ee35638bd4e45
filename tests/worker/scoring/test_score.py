"""Scoring: the mean and spread over a task's views, and embeddings that are not computed twice."""

import pytest
import torch
from torch import Tensor, nn

from worker.modalities.image import Image
from worker.modalities.image.backbones import make_backbone
from worker.modalities.image.pretext.rotation import Rotation
from worker.pretext import pretext_tasks
from worker.scoring.score import score

SIZE = 16


def make_net(task: Rotation) -> nn.Module:
    torch.manual_seed(0)
    return task.make_net(*make_backbone("small", False, SIZE), Image(image_size=SIZE)).eval()


def images(n: int = 5) -> Tensor:
    return torch.rand(n, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))


class Noisy(Rotation):
    """Each view has noise of its own."""

    scoring_views = 3

    def losses(self, net: nn.Module, batch: Tensor, generator: torch.Generator) -> Tensor:
        return super().losses(net, batch + torch.randn(1, generator=generator), generator)


def test_mean_and_spread_of_the_views() -> None:
    task = Noisy()
    net = make_net(task)
    with torch.no_grad():
        views = torch.stack(
            [task.losses(net, images(), torch.Generator().manual_seed(seed)) for seed in range(3)]
        )

    found = score(net, task, images())

    assert torch.allclose(found.losses, views.mean(0))
    assert torch.allclose(found.spreads, views.std(0, correction=0))
    assert (found.spreads > 0).all()


def test_one_view_has_no_spread() -> None:
    task = Rotation()

    assert (score(make_net(task), task, images()).spreads == 0).all()


@pytest.mark.parametrize("task", [Rotation(), Noisy()], ids=["unchanged items are seen", "only noisy ones"])
def test_embeddings_are_those_of_the_items_themselves(task: Rotation) -> None:
    net = make_net(task)
    sizes: list[int] = []
    net.get_submodule("backbone").register_forward_hook(lambda _, inputs, __: sizes.append(len(inputs[0])))

    found = score(net, task, images())

    with torch.no_grad():
        expected = net.get_submodule("backbone")(images())
    assert torch.allclose(found.embeddings, expected, atol=1e-6)
    assert sizes[:-1] == ([20] if type(task) is Rotation else [20, 20, 20, 5])


@pytest.mark.parametrize("name", pretext_tasks("image"))
def test_batches_do_not_matter(name: str) -> None:
    task = pretext_tasks()[name]()
    torch.manual_seed(0)
    net = task.make_net(*make_backbone("small", False, SIZE), Image(image_size=SIZE)).eval()

    together = score(net, task, images())
    alone = [score(net, task, image[None]) for image in images()]

    assert torch.allclose(together.losses, torch.cat([one.losses for one in alone]), atol=1e-5)
    assert torch.allclose(together.embeddings, torch.cat([one.embeddings for one in alone]), atol=1e-5)

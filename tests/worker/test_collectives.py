"""Two trainers, each with its part of every batch, do as one process does with all of it."""

import copy
import itertools
import multiprocessing
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
import torch
import torch.distributed as dist
from timm.layers.norm_act import BatchNormAct2d
from torch import Tensor, nn
from torch.nn import functional

from tests.worker.pretraining.test_loop import make_training, pixels, without_speed
from worker import collectives
from worker.modalities.image import Image
from worker.modalities.image.backbones import make_backbone
from worker.modalities.image.pixels import normalised
from worker.modalities.image.pretext.rotation import Rotation
from worker.pool.dataset import Dataset, sharded
from worker.pretext import PretextTask, byol, dino, simclr, vicreg
from worker.pretraining.recipe import Recipe
from worker.pretraining.sync_norm import synced

IMAGES = pixels(21)  # batches of 8, 8 and 5
RECIPE = Recipe(epochs=1, batch_size=8, seed=0, optimizer="sgd", learning_rate=0.05, average=0.9)


class LosingNumbers(Rotation):
    """The second trainer's third loss is no number, the first trainer's are all good."""

    def losses(self, net: nn.Module, batch: Tensor, generator: torch.Generator) -> Tensor:
        good = super().losses(net, batch, generator)
        spoilt = net.training and next(self._calls[collectives.rank()]) == 3
        return good * torch.nan if spoilt else good

    _calls = (itertools.count(100), itertools.count(1))


TASKS: dict[str, Callable[[], PretextTask]] = {
    "rotation": Rotation,
    "simclr": simclr.SimCLR,
    "vicreg": vicreg.VICReg,
    "dino": dino.DINO,
    "byol": byol.BYOL,
}


@dataclass
class Found:
    weights: dict[str, Tensor]
    result: dict[str, Tensor]
    history: list[dict[str, float]]
    saved: list[int]
    warnings: list[str]


def train(task: PretextTask, **values: Any) -> Found:
    torch.manual_seed(0)
    net = task.make_net(*make_backbone("small", pretrained=False, image_size=12), Image(image_size=12))
    saved, warnings = list[int](), list[str]()
    training = make_training(
        IMAGES,
        task=task,
        recipe=RECIPE,
        prepare=lambda batch, _: normalised(batch),
        net=synced(net, torch.device("cpu")) if collectives.world_size() > 1 else net,
        save=lambda state: saved.append(state["step"]),
        warn=warnings.append,
        **values,
    )
    training.run()
    history = without_speed(training.history)
    return Found(training.net.state_dict(), training.result.state_dict(), history, saved, warnings)


def same_views(monkeypatch: pytest.MonkeyPatch) -> None:
    """Instead of random ones, of which trainers draw their own: the image, and its mirror image."""
    mirrored = itertools.cycle((False, True))

    def view(_: Image, images: Tensor, __: torch.Generator, *, size: int | None = None, **___: Any) -> Tensor:
        seen = images.flip(3) if next(mirrored) else images
        return seen if size is None else functional.interpolate(seen, (size, size))

    monkeypatch.setattr(Image, "view", view)


def trainer(place: int, folder: str) -> None:
    """What each of the two does; its findings go to a file."""
    torch.set_num_threads(1)
    store = f"file://{folder}/store"
    dist.init_process_group("gloo", store, rank=place, world_size=2, timeout=timedelta(seconds=100))
    with pytest.MonkeyPatch.context() as monkeypatch:
        same_views(monkeypatch)
        found = {name: vars(train(make())) for name, make in TASKS.items()}
    found["no number"] = vars(train(LosingNumbers()))
    # By the first trainer's clock it is time for a checkpoint after each step, by the second's never.
    found["clocks"] = vars(train(Rotation(), save_interval_s=0.0 if place == 0 else 1e9))
    found["drawn"] = {"numbers": drawn(seed=0, step=1), "later": drawn(seed=0, step=2)}
    torch.save(found, f"{folder}/{place}.pt")
    dist.destroy_process_group()


def drawn(seed: int, step: int) -> Tensor:
    generator = torch.Generator()
    collectives.reseed(generator, seed, step)
    return torch.cat([torch.rand(4, generator=generator), torch.rand(4)])


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the two trainers found."""
    folder = tmp_path_factory.mktemp("trainers")
    spawn = multiprocessing.get_context("spawn")
    processes = [spawn.Process(target=trainer, args=(place, str(folder))) for place in (0, 1)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    first, second = (torch.load(folder / f"{place}.pt", weights_only=True) for place in (0, 1))
    return first, second


@pytest.mark.parametrize("name", TASKS)
def test_two_trainers_end_as_one_process_does(
    name: str, both: tuple[dict[str, Any], dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    same_views(monkeypatch)
    alone, (first, second) = train(TASKS[name]()), (found[name] for found in both)

    assert alone.weights.keys() == first["weights"].keys()
    for kind in ("weights", "result"):
        for key, expected in getattr(alone, kind).items():
            assert torch.equal(first[kind][key], second[kind][key]), key
            torch.testing.assert_close(first[kind][key], expected, rtol=1e-4, atol=1e-4)
    assert first["history"] == second["history"]
    for found, expected_epoch in zip(first["history"], alone.history, strict=True):
        assert found["loss"] == pytest.approx(expected_epoch["loss"], rel=1e-4)
        assert found["rank_me"] == pytest.approx(expected_epoch["rank_me"], rel=1e-2)


def test_one_bad_loss_rolls_all_trainers_back(both: tuple[dict[str, Any], dict[str, Any]]) -> None:
    first, second = (found["no number"] for found in both)

    assert first["warnings"] == second["warnings"]
    assert "was no number" in first["warnings"][0]
    assert first["saved"] == second["saved"] == [3]
    assert all(torch.equal(first["weights"][key], second["weights"][key]) for key in first["weights"])
    assert all(weight.isfinite().all() for weight in first["weights"].values())


def test_the_first_trainers_clock_counts(both: tuple[dict[str, Any], dict[str, Any]]) -> None:
    assert [found["clocks"]["saved"] for found in both] == [[1, 2, 3]] * 2


def test_each_trainer_draws_its_own_numbers(both: tuple[dict[str, Any], dict[str, Any]]) -> None:
    draws = [numbers for found in both for numbers in found["drawn"].values()]

    assert len({tuple(numbers.tolist()) for numbers in draws}) == 4


def test_alone_everything_is_what_it_was() -> None:
    rows = torch.rand(5, 3)
    dataset = Dataset(5, lambda chosen: rows[torch.from_numpy(chosen)])

    assert (collectives.world_size(), collectives.rank(), collectives.all_gather_counts(7)) == (1, 0, [7])
    assert collectives.all_gather(rows) is collectives.all_reduce_sum(rows) is rows
    assert sharded(dataset) is dataset
    assert collectives.row_offset(rows) == 0
    assert torch.equal(collectives.all_reduce_mean(rows), rows.mean(0))
    assert torch.equal(collectives.weighted_mean(rows[:, 0], 5), rows[:, 0].mean())


@pytest.mark.parametrize(
    ("norm", "shape"),
    [
        (nn.BatchNorm2d(3), (6, 3, 4, 4)),
        (nn.BatchNorm1d(3), (6, 3)),
        (nn.BatchNorm1d(3, affine=False), (6, 3)),
        (nn.BatchNorm2d(3, momentum=None), (6, 3, 4, 4)),
        (nn.BatchNorm2d(3, track_running_stats=False), (6, 3, 4, 4)),
        (BatchNormAct2d(3), (6, 3, 4, 4)),
    ],
)
def test_a_synced_norm_is_a_batch_norm(norm: nn.Module, shape: tuple[int, ...]) -> None:
    """Alone; with two trainers it is in `test_two_trainers_end_as_one_process_does`."""
    generator = torch.Generator().manual_seed(0)
    made = synced(nn.Sequential(copy.deepcopy(norm)), torch.device("cpu")).get_submodule("0")
    assert type(made) is not type(norm)
    for training in (True, True, False):
        norm.train(training)
        made.train(training)
        values = 5 + 2 * torch.randn(shape, generator=generator)
        torch.testing.assert_close(made(values), norm(values), rtol=1e-4, atol=1e-5)
    assert made.state_dict().keys() == norm.state_dict().keys()
    for key, expected in norm.state_dict().items():
        torch.testing.assert_close(made.state_dict()[key], expected)

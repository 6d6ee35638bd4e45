"""What is computed on a device is what a CPU computes; what is interrupted or does not fit goes on all the same."""

import copy
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from benchmarks.gpu.pool import Opened, Pool, pictures
from service.settings import Settings
from worker import device as devices
from worker.device import send, to_device
from worker.engines.local import LocalEngine
from worker.errors import JobFailed
from worker.modalities import Modality
from worker.modalities.image import Image
from worker.modalities.text import Text
from worker.models.nets import new_net
from worker.models.spec import ModelSpec, input_of
from worker.pool.dataset import Dataset
from worker.pool.shared import SharedPool
from worker.pretext import PretextTask, pretext_tasks
from worker.pretext.combined import Combined
from worker.pretraining.launcher import Assignment, Trainers, unpacked
from worker.pretraining.loop import State
from worker.pretraining.recipe import Recipe
from worker.pretraining.train import Callbacks, Trained, train
from worker.scoring import score
from worker.scoring.pool_scoring import OpenPoolScoring

CPU = torch.device("cpu")
SIDE = 32
MODALITIES: tuple[Modality, ...] = (Image(image_size=SIDE), Text(tokens=16))


def suits(task: PretextTask, modality: Modality) -> bool:
    parts = [pretext_tasks()[name] for name in task.tasks] if isinstance(task, Combined) else [type(task)]
    return all(part.modalities is None or modality.name in part.modalities for part in parts)


SUITED = [
    (task(), modality)
    for task in pretext_tasks().values()
    for modality in MODALITIES
    if suits(task(), modality)
]
DRAWS = ("rand", "randn", "randint")


@pytest.fixture
def exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """In float32: without autocast, and without tf32 in convolutions."""
    monkeypatch.setattr(score, "autocast", lambda device: nullcontext())
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


@pytest.fixture
def alike(monkeypatch: pytest.MonkeyPatch, device: torch.device) -> Callable[[torch.device], None]:
    """Makes tasks draw the same random numbers for each device: those of a CPU."""
    drawn = {name: getattr(torch, name) for name in DRAWS}

    def draw_for(wanted: torch.device) -> None:
        def drawing(draw: Callable[..., Tensor]) -> Callable[..., Tensor]:
            return lambda *sizes, device=None, **options: draw(*sizes, **options).to(wanted)

        for name, draw in drawn.items():
            monkeypatch.setattr(torch, name, drawing(draw))
        monkeypatch.setattr(score, "_generator", lambda batch, seed: torch.Generator().manual_seed(seed))

    return draw_for


def smooth(modality: Modality, n: int) -> Tensor:
    """Decoded items; images with colours that change slowly, as noise is all alike."""
    if modality.name != "image":
        return modality.dummy(n)
    coarse = torch.rand(n, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    return (255 * nn.functional.interpolate(coarse, (SIDE, SIDE), mode="bilinear")).to(torch.uint8)


def untrained(task: PretextTask, modality: Modality) -> nn.Module:
    torch.manual_seed(0)
    return task.make_net(*modality.make_backbone("small", False), modality)


def step(task: PretextTask, modality: Modality, net: nn.Module, device: torch.device) -> Tensor:
    """One step of training, then what is fixed at its end; the losses (n,) of the step."""
    items = to_device(smooth(modality, 16), device)
    batch = modality.prepare(modality.augment(items, torch.Generator().manual_seed(3)))
    losses = task.losses(net.train(), batch, torch.Generator().manual_seed(4))
    torch.autograd.backward(losses.mean())
    torch.optim.SGD([each for each in net.parameters() if each.requires_grad], 1e-2).step()
    task.after_step(net, 0.5)
    with torch.no_grad():
        sample = modality.prepare(to_device(smooth(modality, 24), device))
        task.finalise(net.eval(), sample, torch.Generator().manual_seed(5))
    return losses.detach()


@pytest.mark.parametrize(
    ("task", "modality"), SUITED, ids=[f"{modality.name}-{task.name}" for task, modality in SUITED]
)
def test_a_step_and_the_scores_after_it_are_those_of_a_cpu(
    task: PretextTask,
    modality: Modality,
    device: torch.device,
    exact: None,
    alike: Callable[[torch.device], None],
) -> None:
    net = untrained(task, modality)
    there = copy.deepcopy(net).to(device)
    alike(CPU)
    expected = step(task, modality, net, CPU)
    alike(device)
    found = step(task, modality, there, device)

    torch.testing.assert_close(found.cpu(), expected, rtol=1e-3, atol=1e-3)

    net.load_state_dict(there.state_dict())  # a step makes what differs larger: the same weights score alike
    items = smooth(modality, 8)
    scored = score.score(there, task, modality.prepare(to_device(items, device)))
    alike(CPU)
    wanted = score.score(net, task, modality.prepare(to_device(items, CPU)))
    for name in ("losses", "spreads", "embeddings"):
        one, other = getattr(scored, name).cpu(), getattr(wanted, name)
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3, msg=partial("{}: {}".format, name))


@pytest.mark.parametrize("modality", MODALITIES, ids=[each.name for each in MODALITIES])
@pytest.mark.parametrize("ahead", [2**29, 0])
def test_what_is_sent_arrives(
    modality: Modality, ahead: int, device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Copied by another stream, or where it is too much pinned and copied when it is wanted; nothing is no harm."""
    monkeypatch.setattr(devices, "_MOST_AHEAD", ahead)
    for n in (0, 5):
        items = smooth(modality, 5)[:n]
        arrived = to_device(send(items, device).arrived(), device)

        assert arrived.device.type == device.type
        assert torch.equal(arrived.cpu(), items)
        assert items.ndim < 4 or arrived.is_contiguous(memory_format=torch.channels_last)


# ---- training ----


class Interrupted(Exception):
    pass


def rotation(backbone: str = "small", side: int = SIDE) -> ModelSpec:
    return ModelSpec({"name": "rotation"}, backbone, input_of(Image(image_size=side)), seed=0)


def training(device: torch.device, save: Callable[[State], None], resume: State | None = None) -> Trained:
    spec = rotation()
    items = smooth(spec.make_modality(), 40)
    recipe = Recipe(epochs=2, batch_size=16, seed=0)
    dataset = Dataset(len(items), lambda rows: items[torch.from_numpy(rows)])
    told = Callbacks(
        save=save, save_interval_s=0.0, report=lambda done, message: None, warn=lambda sentence: None
    )
    return train(spec, recipe, new_net(spec), dataset, items, {}, device, told, resume)


def test_a_resumed_training_ends_as_one_that_was_not_interrupted(
    device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    saved: list[State] = []

    def save(state: State) -> None:
        saved.append(copy.deepcopy(state))
        if len(saved) == 2:
            raise Interrupted

    undisturbed = training(device, lambda state: None)
    with pytest.raises(Interrupted):
        training(device, save)
    resumed = training(device, lambda state: None, saved[-1])

    apart = 0.0 if device.type == "cpu" else 1e-3
    assert [epoch["loss"] for epoch in resumed.history] == pytest.approx(
        [epoch["loss"] for epoch in undisturbed.history], abs=apart
    )
    for one, other in zip(
        resumed.net.state_dict().values(), undisturbed.net.state_dict().values(), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=0, atol=apart)


def test_devices_are_named_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is named twice computes for two."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    first, third = torch.device("cuda:0"), torch.device("cuda:2")

    assert devices.choose_devices("cuda:2,cuda:0", 2) == [third, first]
    assert devices.choose_devices("cuda:2,cuda:2", 2) == [third, third]
    assert devices.choose_devices("cuda:2,cuda:0", 1) == [third] == [devices.choose_device("cuda:2,cuda:0")]
    with pytest.raises(ValueError, match="are 2 devices, but 3 are to train"):
        devices.choose_devices("cuda:0,cuda:1", 3)
    with pytest.raises(ValueError, match="3 CUDA devices, so not 'cuda:3'"):
        devices.choose_devices("cuda:0,cuda:3", 2)


@pytest.mark.parametrize("device", [pytest.param("cuda", marks=pytest.mark.cuda)], indirect=True)
@pytest.mark.parametrize("apart", [False, True], ids=["on one device", "each on its own"])
def test_two_trainers_train_together(apart: bool, device: torch.device, tmp_path: Path) -> None:
    """By gloo where they share a device, else by nccl; tests/worker/pretraining/test_launcher.py is of CPUs."""
    named = ",".join(f"cuda:{number if apart else 0}" for number in range(2))
    if apart and torch.cuda.device_count() < 2:
        pytest.skip("this machine has not two CUDA devices")
    spec = rotation()
    modality = spec.make_modality()
    items = smooth(modality, 40)
    settings = Settings(
        data_dir=tmp_path,
        devices=2,
        threads=1,
        device=named if device.type == "cuda" else "cpu",
        checkpoint_interval_s=1e-9,
    )
    assignment = Assignment(
        spec=spec,
        recipe=Recipe(epochs=2, batch_size=16, seed=0),
        settings=settings,
        pool=SharedPool(len(items), modality),
        sample=items[:16].numpy(),
        traits={},
        checkpoint=None,
    )
    saved: list[int] = []
    told = Callbacks(
        save=lambda state: saved.append(state["step"]),
        save_interval_s=0.0,
        report=lambda done, message: None,
        warn=lambda sentence: None,
    )
    with TemporaryFile() as file:
        file.write(items.numpy().tobytes())
        file.flush()
        with Trainers(2, assignment, file) as trainers:
            ended = trainers.train(told)

    alone = training(device, lambda state: None)
    assert saved == [1, 2, 3, 4, 5, 6]
    assert [epoch["loss"] for epoch in ended.history] == pytest.approx(
        [epoch["loss"] for epoch in alone.history], rel=0.2
    )
    assert all(value.isfinite().all() for value in unpacked(ended.net).values())


# ---- scoring ----


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Pool:
    folder = tmp_path_factory.mktemp("pool")
    return Pool.of(pictures(folder / "pictures", 24, 40), folder / "data")


@contextmanager
def memory_left(
    device: torch.device, mib: int, items: int, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """On CUDA so much more than is in use; a CPU instead pretends that no more than so many items fit."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        total = torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction(
            (torch.cuda.memory_reserved(device) + mib * 2**20) / total, device
        )
        try:
            yield
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0, device)
            torch.cuda.empty_cache()
        return
    scored = OpenPoolScoring._scored

    def limited(running: OpenPoolScoring, batch: Tensor, halves: Tensor) -> score.Scored:
        if len(batch) > items:
            raise torch.OutOfMemoryError
        return scored(running, batch, halves)

    with monkeypatch.context() as patched:
        patched.setattr(OpenPoolScoring, "_scored", limited)
        yield


def losses(pool: Pool, spec: ModelSpec, device: torch.device, batch: int) -> Any:
    """(n,) in the order of the items, and the size of the batches at the end."""
    running = pool.scoring(spec, str(device)).open(str(device))
    running.batch = batch
    stored = list(LocalEngine().map(Opened(running), pool.shards(12), device=str(device)))
    return np.concatenate([pool.stored(one)["losses"] for one in stored]), running.batch


def test_batches_that_do_not_fit_are_halved_until_they_do(
    pool: Pool, device: torch.device, exact: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    side = 512 if device.type == "cuda" else SIDE  # 12 items in 4 views each: 600 MB before the first layer
    expected, _ = losses(pool, rotation(side=side), device, 3)
    with memory_left(device, 400, 4, monkeypatch):
        found, batch = losses(pool, rotation(side=side), device, 12)

    assert batch < 12
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)


def test_an_item_that_does_not_fit_says_what_to_do(
    pool: Pool, device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    side = 1_024 if device.type == "cuda" else SIDE
    with (
        memory_left(device, 30, 0, monkeypatch),
        pytest.raises(JobFailed, match=r"Scoring a single item needs more memory .*\(image_size\)"),
        closing(pool.scoring(rotation(side=side), str(device)).open(str(device))),
    ):
        pass

"""Pins what pretext tasks, scoring and training computed at commit 23285fa, and the inputs of gate and duplicates.

`before/pretext.npz` holds, for every registered task on the `small` backbone at 32 pixels, losses, spreads and
embeddings of 32 fixed images: by an untrained net, and for three tasks by one that `Training` trained. Untrained nets
are compared with rtol 1e-5, trained ones with 1e-3 and their embeddings more loosely, because CPUs differ;
SHORTLIST_TEST_EXACT=1 tightens all to 1e-6, for the machine that wrote the file. SHORTLIST_WRITE_FIXTURES=1 makes the
tests write it.
"""

from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor, nn

from tests.upgrades.recorded import BEFORE, EXACT, WRITING
from worker.evaluation.gate import linear_probe, nearest_neighbours
from worker.modalities.image import Image
from worker.modalities.image.backbones import make_backbone
from worker.modalities.image.pixels import augmented, normalised
from worker.modalities.image.sketches import ImageSketcher, changed_slightly, differences, thumbnails
from worker.pool.dataset import Dataset
from worker.pretext import PretextTask, pretext_tasks
from worker.pretraining.loop import Training
from worker.pretraining.recipe import Recipe
from worker.scoring.duplicates import representatives, threshold
from worker.scoring.score import Scored, score

Arrays = dict[str, npt.NDArray[Any]]

FILE = BEFORE / "pretext.npz"
SIDE = 32
SCORED = 32  # images
TRAINED = ("rotation", "simclr", "reconstruction")
CPU = torch.device("cpu")
SPEED = {"images_per_s", "peak_memory_gb"}  # of what training tells, all but these are the same again


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """How sums are split over threads shows in their last digits."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@cache
def recorded() -> Arrays:
    with np.load(FILE) as file:
        return dict(file)


def check(found: Arrays, rtol: float, atol: float) -> None:
    """The arrays are those recorded; or they are recorded, see `WRITING`."""
    if WRITING:
        known = recorded() if FILE.exists() else {}
        recorded.cache_clear()
        np.savez_compressed(FILE, allow_pickle=False, **(known | found))
        return
    if EXACT and rtol:
        rtol = atol = 1e-6
    for name, values in found.items():
        then = recorded()[name]
        assert values.dtype == then.dtype, name
        np.testing.assert_allclose(values, then, rtol, atol, err_msg=name)


def images(n: int, seed: int = 0) -> Tensor:
    """(n, 3, 32, 32) uint8: a sky over a ground, an ellipse or a box of another colour, stripes, noise."""
    rng = np.random.default_rng(seed)
    down, right = np.mgrid[:SIDE, :SIDE] / SIDE
    pictures = np.empty((n, SIDE, SIDE, 3))
    for picture in pictures:
        sky, ground, thing = rng.integers(0, 256, (3, 3)).astype(np.float64)
        picture[:] = np.where((down < rng.uniform(0.3, 0.7))[..., None], sky, ground)
        x, y, width, height = rng.uniform([0.3, 0.3, 0.1, 0.1], [0.7, 0.7, 0.3, 0.3])
        away = np.stack([np.abs(right - x) / width, np.abs(down - y) / height])
        inside = (away**2).sum(axis=0) < 1 if rng.random() < 0.5 else away.max(axis=0) < 1
        picture[inside] = thing
        waves, turned = rng.uniform(4, 20), rng.uniform(0, np.pi)
        picture += 20 * np.sin(waves * (right * np.cos(turned) + down * np.sin(turned)))[..., None]
        picture += rng.normal(0, 6, picture.shape)
    return torch.from_numpy(pictures.round().clip(0, 255).astype(np.uint8)).permute(0, 3, 1, 2).contiguous()


def new_net(task: PretextTask, backbone: str = "small") -> nn.Module:
    """Untrained, the same each time, and laid out in memory as the jobs do it."""
    torch.manual_seed(0)
    net = task.make_net(*make_backbone(backbone, pretrained=False, image_size=SIDE), Image(image_size=SIDE))
    return net.to(device=CPU, memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def channels_last(batch: Tensor) -> Tensor:
    return batch.contiguous(memory_format=torch.channels_last)


def scored_by(net: nn.Module, task: PretextTask) -> Scored:
    return score(net.eval(), task, normalised(channels_last(images(SCORED))))


def named(name: str, scored: Scored) -> Arrays:
    return {f"{name}/{each}": getattr(scored, each).numpy() for each in ("losses", "spreads", "embeddings")}


def untrained(task: PretextTask, backbone: str = "small") -> Scored:
    """After settling on a sample of its own, which most tasks ignore."""
    net = new_net(task, backbone).eval()
    with torch.no_grad():
        sample = normalised(channels_last(images(48, seed=1)))
        task.finalise(net, sample, torch.Generator().manual_seed(0))
    return scored_by(net, task)


@pytest.mark.parametrize("name", pretext_tasks())
def test_an_untrained_net_scores_as_before(name: str) -> None:
    if not WRITING and f"untrained/{name}/losses" not in recorded():
        pytest.skip("the task is newer than the file")

    check(named(f"untrained/{name}", untrained(pretext_tasks()[name]())), 1e-5, 1e-6)


def test_all_tasks_of_then_are_there() -> None:
    then = {name.split("/")[1] for name in recorded() if name.startswith("untrained/")}

    assert then <= set(pretext_tasks())
    assert len(then) == 12


def test_a_timm_backbone_scores_as_before() -> None:
    rotation = pretext_tasks()["rotation"]()

    check(named("resnet18/rotation", untrained(rotation, "resnet18")), 1e-5, 1e-6)


@pytest.mark.parametrize("name", TRAINED)
def test_training_leads_where_it_led_before(name: str) -> None:
    """Two epochs of four batches, as `worker.pretraining.train` trains. Each step makes what CPUs do
    differently larger, so the tolerance is wider: with the instructions of AVX2 instead of AVX-512, single
    embeddings were seen to move by 0.02, losses by less than 0.001."""
    task = pretext_tasks()[name]()
    pool = images(64, seed=2)

    def prepare(pixels: Tensor, generator: torch.Generator | None) -> Tensor:
        return normalised(augmented(pixels, generator) if generator else pixels)

    training = Training(
        net=new_net(task),
        task=task,
        dataset=Dataset(len(pool), lambda rows: pool[torch.from_numpy(rows)]),
        recipe=Recipe(epochs=2, batch_size=16, seed=0),
        device=CPU,
        prepare=prepare,
        sample=pool[:48],
        save=lambda state: None,
        save_interval_s=1e9,
        report=lambda done, message: None,
        warn=lambda sentence: pytest.fail(sentence),
    )
    trained = training.run()

    found = named(f"trained/{name}", scored_by(training.result, task))
    for measure, value in {**trained, "first_loss": training.first_loss or 0.0}.items():
        found[f"trained/{name}/{measure}"] = np.array(value)
    for measure in training.history[0].keys() - SPEED:
        epochs = [epoch[measure] for epoch in training.history]
        found[f"trained/{name}/history/{measure}"] = np.array(epochs, np.float64)
    embeddings = {f"trained/{name}/embeddings": found.pop(f"trained/{name}/embeddings")}
    check(found, 1e-3, 1e-3)
    check(embeddings, 1e-3, 0.05)


def test_thumbnails_and_what_is_a_duplicate() -> None:
    originals = images(SCORED)
    copies = changed_slightly(originals[:12], torch.Generator().manual_seed(3))
    rows = thumbnails(torch.cat([originals, copies, originals[:4]]))
    views = differences(rows, np.arange(12), np.arange(SCORED, SCORED + 12)[:, None])[:, 0]
    strangers = differences(rows, np.arange(SCORED - 1), np.arange(1, SCORED)[:, None])[:, 0]
    largest = threshold(ImageSketcher(), views, strangers)
    found: Arrays = {
        "representatives": representatives(ImageSketcher(), rows, [None] * len(rows), largest),
        "representatives/equal bytes only": representatives(
            ImageSketcher(), rows, [str(row % 20) for row in range(len(rows))], 0.0
        ),
    }

    assert (found["representatives"][SCORED:] == [*range(12), *range(4)]).mean() > 0.7
    check(found, 0, 0)
    if WRITING or EXACT:
        check({"thumbnails": rows}, 0, 0)
    else:  # means that lie between two grey levels: a CPU may round them the other way
        apart = np.abs(rows.astype(int) - recorded()["thumbnails"].astype(int))
        assert rows.dtype == np.uint8
        assert apart.max() <= 1
        assert (apart > 0).mean() < 1e-3
    check({"duplicates/threshold": np.array(largest)}, 1e-5, 1e-6)


@pytest.mark.parametrize("signal", [0.0, 0.5, 1.5])
def test_the_gates_probes_answer_as_before(signal: float) -> None:
    rng = np.random.default_rng(4)
    classes = rng.integers(4, size=120)
    features = (rng.normal(size=(4, 12))[classes] * signal + rng.normal(size=(120, 12))).astype(np.float32)
    taught = rng.random(120) < 0.6

    found: Arrays = {
        f"linear_probe/{signal}": linear_probe(features, classes, taught),
        f"nearest_neighbours/{signal}": nearest_neighbours(features, classes, taught),
    }
    check(found, 0, 0)

"""The product's own path, from files to stored scores and to trained weights, beside the bare network.

The limit is the same network with the same batch, in the same precision, on views that lie on the device already:
the forward alone for scoring, a step of the optimizer for training.
"""

import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from statistics import mean, pstdev

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.gpu.pool import Opened, Pool, jpegs
from worker.device import autocast, to_device
from worker.engines.local import LocalEngine
from worker.modalities.image import Image
from worker.models.nets import new_net, on_device
from worker.models.spec import ModelSpec, input_of
from worker.pool.dataset import Dataset
from worker.pool.reader import ItemReader
from worker.pretraining.recipe import Recipe
from worker.pretraining.train import Callbacks, train

_TURNS = 4  # views of an image that rotation sends through the network
_LIMIT_S = 1.5  # the bare network is timed for so long, at least
_EPOCHS = 3  # the first warms up
_WATCHED = 256


@dataclass(frozen=True)
class Case:
    """A backbone at a side, trained in batches of that size."""

    backbone: str
    side: int
    batch: int

    @property
    def name(self) -> str:
        return f"{self.backbone.split('_patch')[0]}_{self.side}"

    @property
    def spec(self) -> ModelSpec:
        return ModelSpec({"name": "rotation"}, self.backbone, input_of(Image(image_size=self.side)), seed=0)


@dataclass
class Timed:
    """Rates of several rounds, in images a second."""

    ours: list[float] = field(default_factory=list)
    limit: list[float] = field(default_factory=list)
    utilisation: list[float] = field(default_factory=list)
    peak_gb: float | None = None

    def figures(self, name: str) -> dict[str, float | None]:
        shares = [ours / limit for ours, limit in zip(self.ours, self.limit, strict=True)]
        return {
            f"{name}_images_per_s": mean(self.ours),
            f"{name}_images_per_s_std": pstdev(self.ours),
            f"{name}_limit_images_per_s": mean(self.limit),
            f"{name}_over_limit": mean(shares),
            f"{name}_over_limit_std": pstdev(shares),
            f"{name}_utilisation_percent": mean(self.utilisation) if self.utilisation else None,
            f"{name}_peak_gb": self.peak_gb,
        }


def synchronised(device: torch.device) -> float:
    """The time, when the device has done all it was asked for."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def rate_of(run: Callable[[], object], images: int, device: torch.device, least_s: float) -> float:
    """Images a second of a run, repeated after two that warm up."""
    for _ in range(2):
        run()
    begun, runs = synchronised(device), 0
    while True:
        for _ in range(4):
            run()
        runs += 4
        seconds = synchronised(device) - begun
        if seconds >= least_s:
            return runs * images / seconds


@contextmanager
def watched(timed: Timed, device: torch.device) -> Iterator[None]:
    """The share of time that the GPU is busy, by nvidia-smi, ten times a second, and how much memory was allocated."""
    if device.type != "cuda":
        yield
        return
    torch.cuda.reset_peak_memory_stats(device)
    with _sampler() as samples:
        yield
    timed.utilisation += samples
    timed.peak_gb = max(timed.peak_gb or 0.0, torch.cuda.max_memory_allocated(device) / 2**30)


@contextmanager
def _sampler() -> Iterator[list[float]]:
    samples: list[float] = []
    query = [
        "nvidia-smi",
        "--query-gpu=utilization.gpu",
        "--format=csv,noheader,nounits",
        "-lms",
        "100",
        "-i",
        "0",
    ]
    try:
        process = subprocess.Popen(query, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    except FileNotFoundError:
        yield samples
        return
    try:
        yield samples
    finally:
        process.terminate()
        said, _ = process.communicate()
        samples += [float(line) for line in said.splitlines() if line.strip().isdigit()]


# ---- decoding ----


def decoding(pool: Pool, side: int) -> float:
    """Images a second of the files alone, in as many threads as the product takes."""
    with ItemReader(pool.settings) as reader:
        modality = Image(image_size=side)
        reader.stack(pool.uris[:64], modality)
        begun = time.perf_counter()
        done = sum(
            len(reader.stack(pool.uris[start : start + 512], modality))
            for start in range(0, len(pool.uris), 512)
        )
        return done / (time.perf_counter() - begun)


def decoding_by_gpu(pool: Pool, device: torch.device) -> float | None:
    """Images a second of nvJPEG by torchvision, neither cropped nor resized; None where there is none."""
    from torchvision.io import decode_jpeg

    files = jpegs(pool.paths[:512])
    try:
        return rate_of(lambda: decode_jpeg(files, device=device), len(files), device, 0.5)
    except RuntimeError:
        return None


# ---- scoring ----


def scoring(case: Case, pool: Pool, device: torch.device, rounds: int, shard: int, least_s: float) -> Timed:
    """Ours from the end of the first shard on: a run has thousands, and nothing is computed before one is read."""
    timed = Timed()
    shards = pool.shards(shard)
    running = pool.scoring(case.spec, str(device)).open(str(device))
    for _ in range(rounds):
        with (
            watched(timed, device),
            closing(LocalEngine().map(Opened(running), shards, device=str(device))) as done,
        ):
            next(done)
            begun = synchronised(device)
            items = sum(each.items for each in done)
            timed.ours.append(items / (synchronised(device) - begun))
        views = _views(case, running.batch, device)
        with torch.no_grad(), autocast(device):
            timed.limit.append(rate_of(partial(running.net, views), running.batch, device, least_s))
    return timed


def _views(case: Case, batch: int, device: torch.device) -> Tensor:
    modality = case.spec.make_modality()
    items = modality.prepare(to_device(modality.dummy(batch), device))
    views = torch.cat([torch.rot90(items, turn, (2, 3)) for turn in range(_TURNS)])
    return views.contiguous(memory_format=torch.channels_last)


# ---- training ----


def training(
    case: Case, pool: Pool, device: torch.device, rounds: int, decoded: bool, least_s: float
) -> Timed:
    """From decoded items in memory, as pools that fit are trained; or from files, decoded again in each epoch."""
    timed, modality = Timed(), case.spec.make_modality()
    recipe = Recipe(epochs=_EPOCHS, batch_size=case.batch, seed=0)
    told = Callbacks(
        save=lambda state: None,
        save_interval_s=1e9,
        report=lambda done, message: None,
        warn=lambda sentence: None,
    )
    with ItemReader(pool.settings) as reader:
        uris = np.array(pool.uris, object)
        sample = reader.stack(pool.uris[:_WATCHED], modality)
        items = reader.stack(pool.uris, modality) if decoded else sample
        dataset = Dataset(
            len(uris),
            (lambda rows: items[torch.from_numpy(rows)])
            if decoded
            else (lambda rows: reader.stack(uris[rows].tolist(), modality)),
        )
        for _ in range(rounds):
            with watched(timed, device):
                done = train(case.spec, recipe, new_net(case.spec), dataset, sample, {}, device, told, None)
            epochs = done.history[1:]
            timed.ours.append(len(epochs) / sum(1 / epoch["images_per_s"] for epoch in epochs))
            timed.limit.append(_bare_step(case, recipe, device, least_s))
    return timed


def _bare_step(case: Case, recipe: Recipe, device: torch.device, least_s: float) -> float:
    net = on_device(new_net(case.spec), device).train()
    optimizer, views = recipe.make_optimizer(net.parameters()), _views(case, case.batch, device)
    turns = torch.arange(_TURNS, device=device).repeat_interleave(case.batch)

    def step() -> None:
        with autocast(device):
            loss = functional.cross_entropy(net(views).float(), turns)
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        optimizer.step()

    return rate_of(step, case.batch, device, least_s)

"""One task on one pool: trained as job train_pretext does it, scored as job score_pool does it, and judged."""

import hashlib
import inspect
import time
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor, nn

from benchmarks.labels.pools import Pixels, Pool
from benchmarks.tasks import supervised
from worker.arrays import Floats
from worker.evaluation.diagnostics import collapse, of_embeddings
from worker.evaluation.metrics import rank_correlation
from worker.modalities.image import Image, backbones, pixels, views
from worker.modalities.image.backbones import make_backbone
from worker.modalities.image.pixels import augmented, normalised
from worker.modalities.image.pretext import decoder
from worker.modalities.image.pretext.reconstruction import Reconstruction
from worker.pool.dataset import Dataset
from worker.pretext import PretextTask, pretext_tasks, projection, teacher
from worker.pretraining import loop, recipe
from worker.pretraining.loop import Training
from worker.pretraining.recipe import Recipe
from worker.scoring import score

_CPU = torch.device("cpu")
_SAMPLE = 2_048
_AT_ONCE = 64
_NEIGHBOURS = 20
_RAW, _UNTRAINED = "raw pixels", "untrained"
REFERENCES = (_RAW, _UNTRAINED)
VARIANCE_OUT = "reconstruction (variance out)"


@dataclass(frozen=True, kw_only=True)
class Row:
    """A row of the table. linear, knn: test accuracy. rho_*: Spearman's correlation of the pretext loss; NaN for
    what has no loss. minutes, scored_per_s: of CPU time. key: of all that the row depends on.
    """

    pool: str
    task: str
    key: str
    minutes: float
    scored_per_s: float
    linear: float
    knn: float
    rank_me: float
    rho_supervised: float
    rho_variance: float
    collapsed: bool


def tasks() -> dict[str, PretextTask]:
    """Every task as a project has it by default, and one more. `combined` is `rotation+reconstruction` then."""
    found = {name: kind() for name, kind in pretext_tasks("image").items() if name != "combined"}
    return found | {VARIANCE_OUT: Reconstruction(regress_out_variance=True)}


def key(pool: Pool, task: PretextTask | None, recipe_: Recipe, supervised_epochs: int) -> str:
    """A hash of the images, the recipes, and the code that trains and scores; 12 hex digits."""
    found = hashlib.sha256(f"{recipe_!r}{task!r}{supervised_epochs}".encode())
    modules: Iterable[ModuleType | None] = (
        backbones,
        loop,
        recipe,
        score,
        pixels,
        views,
        import_module("worker.modalities.image.crop_side"),
        decoder,
        projection,
        teacher,
        supervised,
        *(inspect.getmodule(kind) for kind in type(task).__mro__[:-3] if task is not None),
    )
    for module in modules:
        if module is not None:
            found.update(inspect.getsource(module).encode())
    for array in (pool.pixels, pool.classes, pool.test_pixels, pool.test_classes):
        found.update(np.ascontiguousarray(array).data)
    return found.hexdigest()[:12]


def measure_raw(name: str, pool: Pool, key_: str) -> Row:
    flat = pool.pixels.reshape(len(pool.pixels), -1).astype(np.float32)
    test = pool.test_pixels.reshape(len(pool.test_pixels), -1).astype(np.float32)
    return _row(name, _RAW, key_, pool, flat, test)


def measure_untrained(name: str, pool: Pool, key_: str, seed: int) -> Row:
    torch.manual_seed(seed)
    net = make_backbone("small", False, pool.pixels.shape[-1])[0].eval()
    return _row(
        name, _UNTRAINED, key_, pool, _embeddings(net, pool.pixels), _embeddings(net, pool.test_pixels)
    )


def measure(
    name: str, pool: Pool, label: str, task: PretextTask, recipe_: Recipe, others: Floats, key_: str
) -> Row:
    """others (n,): the losses that those of the task are compared with."""
    pixels = torch.from_numpy(pool.pixels)
    begun = _core_seconds()
    training_ = _train(pixels, task, recipe_)
    minutes = (_core_seconds() - begun) / 60
    net, trained = training_.result.eval(), training_.watch()
    begun = _core_seconds()
    scored = [score.score(net, task, normalised(part)) for part in torch.split(pixels, _AT_ONCE)]
    seconds = _core_seconds() - begun
    losses = torch.cat([part.losses for part in scored]).numpy()
    embeddings = torch.cat([part.embeddings for part in scored]).numpy()
    variances = pool.pixels.reshape(len(pixels), -1).astype(np.float32).var(axis=1)
    return _row(
        name,
        label,
        key_,
        pool,
        embeddings,
        _embeddings(net.get_submodule("backbone"), pool.test_pixels),
        minutes=minutes,
        scored_per_s=len(pixels) / seconds,
        rho_supervised=_rho(losses, others),
        rho_variance=_rho(losses, variances),
        collapsed=collapse(training_.untrained, trained, _SAMPLE) is not None,
    )


def _core_seconds() -> float:
    """CPU seconds of this process, for each of its threads: what else the machine does hardly matters."""
    return time.process_time() / torch.get_num_threads()


def _train(pixels: Tensor, task: PretextTask, recipe_: Recipe) -> Training:
    torch.manual_seed(recipe_.seed)
    size = pixels.shape[-1]
    net = task.make_net(*make_backbone("small", False, size), Image(image_size=size))

    def prepare(batch: Tensor, generator: torch.Generator | None) -> Tensor:
        return normalised(augmented(batch, generator) if generator else batch)

    training_ = Training(
        net=net.to(memory_format=torch.channels_last),
        task=task,
        dataset=Dataset(len(pixels), lambda rows: pixels[torch.from_numpy(rows)]),
        recipe=recipe_,
        device=_CPU,
        prepare=prepare,
        sample=pixels[:_SAMPLE],  # the pool is shuffled
        save=lambda state: None,
        save_interval_s=float("inf"),
        report=lambda done, message: None,
        warn=print,
    )
    training_.run()
    return training_


@torch.no_grad()
def _embeddings(embed: nn.Module, pixels: Pixels) -> Floats:
    parts = torch.split(torch.from_numpy(pixels), _AT_ONCE)
    return torch.cat([embed(normalised(part)) for part in parts]).numpy()


def _row(
    pool_name: str,
    task: str,
    key_: str,
    pool: Pool,
    embeddings: Floats,
    test: Floats,
    *,
    minutes: float = 0.0,
    scored_per_s: float = float("nan"),
    rho_supervised: float = float("nan"),
    rho_variance: float = float("nan"),
    collapsed: bool = False,
) -> Row:
    mean, spread = embeddings.mean(0), np.maximum(embeddings.std(0), 1e-6)
    inputs, test_inputs = (embeddings - mean) / spread, (test - mean) / spread
    linear = LogisticRegression(C=0.1, max_iter=200, tol=1e-3).fit(inputs, pool.classes)
    knn = KNeighborsClassifier(_NEIGHBOURS, metric="cosine", weights="distance").fit(inputs, pool.classes)
    return Row(
        pool=pool_name,
        task=task,
        key=key_,
        minutes=minutes,
        scored_per_s=scored_per_s,
        linear=float(linear.score(test_inputs, pool.test_classes)),
        knn=float(knn.score(test_inputs, pool.test_classes)),
        rank_me=of_embeddings(torch.from_numpy(embeddings[:_SAMPLE]))["rank_me"],
        rho_supervised=rho_supervised,
        rho_variance=rho_variance,
        collapsed=collapsed,
    )


def _rho(losses: Floats, others: Floats) -> float:
    found = rank_correlation(losses, others)
    return found.rho if found is not None else float("nan")

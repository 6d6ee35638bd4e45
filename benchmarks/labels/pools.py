"""Pools made of Fashion-MNIST and CIFAR-10: clean, long-tailed, or with junk and near-duplicates."""

import gzip
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
from PIL import Image

from worker.arrays import Ints

Pixels = npt.NDArray[np.uint8]  # (n, 3, s, s)

FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")
CIFAR10 = Path(__file__).parents[3] / "shared" / "data" / "cifar10"
ITEMS = 8_000
TEST_ITEMS = 2_000
LARGEST = 3_000  # class of a long tail


class Missing(Exception):
    """The data of a pool are not on this machine; the sentence says where they come from."""


@dataclass(frozen=True, kw_only=True)
class Pool:
    """pixels (n, 3, s, s); classes (n,), -1 for junk, which an annotator would skip; groups (n,): near-duplicates
    share the row of their original, all others have their own row. Test items are clean and follow no original of the
    pool; where there are none (t = 0), each seed draws its own from the pool, whole groups at a time.
    """

    pixels: Pixels
    classes: Ints
    groups: Ints
    test_pixels: Pixels
    test_classes: Ints

    @property
    def n_classes(self) -> int:
        return int(self.classes.max()) + 1


@dataclass(frozen=True)
class Split:
    pixels: Pixels
    classes: Ints

    def keep(self, rows: Ints) -> "Split":
        return Split(self.pixels[rows], self.classes[rows])

    def sample(self, rng: np.random.Generator, items: int = TEST_ITEMS) -> "Split":
        return self.keep(rng.permutation(len(self.classes))[:items])


def fashion_mnist() -> tuple[Split, Split]:
    """60,000 and 10,000 grey images, 28 x 28 (Xiao et al. 2017, https://arxiv.org/abs/1708.07747)."""
    if not FASHION_MNIST.exists():
        raise Missing("Fashion-MNIST is missing: apt-get install dataset-fashion-mnist.")
    return _idx_split("train"), _idx_split("t10k")


def cifar10() -> tuple[Split, Split]:
    """50,000 and 10,000 colour images, 32 x 32 (Krizhevsky 2009), from Parquet files `label`, `image`."""
    if not CIFAR10.exists():
        raise Missing("CIFAR-10 is missing: train.parquet and test.parquet belong in ../shared/data/cifar10.")
    return _parquet_split("train"), _parquet_split("test")


def _idx_split(name: str) -> Split:
    images, classes = (
        _read_idx(next(FASHION_MNIST.glob(f"{name}-{kind}*"))) for kind in ("images", "labels")
    )
    return Split(np.repeat(images[:, None], 3, axis=1), classes.astype(np.int64))


def _read_idx(path: Path) -> Pixels:
    """An IDX file of bytes (http://yann.lecun.com/exdb/mnist, "file formats")."""
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    dimensions = data[3]
    shape = np.frombuffer(data, ">i4", dimensions, offset=4)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * dimensions).reshape(shape)


def _parquet_split(name: str) -> Split:
    table = pq.read_table(CIFAR10 / f"{name}.parquet", columns=["label", "image"])
    images = [np.asarray(Image.open(io.BytesIO(data)).convert("RGB")) for data in table["image"].to_pylist()]
    _, classes = np.unique(table["label"].to_numpy(), return_inverse=True)
    return Split(np.stack(images).transpose(0, 3, 1, 2), classes.astype(np.int64))


def clean(train: Split, test: Split, rng: np.random.Generator, items: int = ITEMS) -> Pool:
    part = train.keep(rng.permutation(len(train.classes))[:items])
    return _pool(part, test)


def long_tail(train: Split, test: Split, rng: np.random.Generator) -> Pool:
    """3000 · 50^(-c/9) items of class c: from 3,000 down to 60."""
    order = rng.permutation(len(train.classes))
    wanted = [round(LARGEST * 50 ** (-c / 9)) for c in range(10)]
    kept = [order[train.classes[order] == c][:count] for c, count in enumerate(wanted)]
    return _pool(train.keep(rng.permutation(np.concatenate(kept))), test)


def junk(train: Split, _: Split, rng: np.random.Generator, items: int = ITEMS) -> Pool:
    """A twentieth are images of nothing: noise, one fixed permutation of the pixels, flat. A quarter are
    near-duplicates of a fortieth, the originals. No test items: those drawn from the pool hold near-duplicates as
    the pool does.
    """
    noise, permuted, copies = items // 50, items * 3 // 200, items // 4
    nothing = noise + 2 * permuted
    order = rng.permutation(len(train.classes))
    part = train.keep(order[: items - copies - nothing])
    originals = rng.permutation(len(part.classes))[: items // 40]
    of = rng.choice(originals, copies)
    shape = part.pixels.shape[1:]
    permutation = rng.permutation(int(np.prod(shape[1:])))
    shuffled_pixels = part.pixels[rng.choice(len(part.pixels), permuted)].reshape(permuted, 3, -1)
    flat = rng.integers(256, size=(permuted, 1, 1, 1)) + rng.normal(0, 8, (permuted, *shape))
    pixels = [
        part.pixels,
        near_duplicates(part.pixels[of], rng),
        rng.integers(256, size=(noise, *shape), dtype=np.uint8),
        shuffled_pixels[:, :, permutation].reshape(permuted, *shape),
        _as_pixels(flat),
    ]
    classes = np.concatenate([part.classes, part.classes[of], np.full(nothing, -1)])
    groups = np.arange(items)
    groups[len(part.classes) : items - nothing] = of
    shuffled = rng.permutation(items)
    place = np.argsort(shuffled)  # of each row after shuffling
    return Pool(
        pixels=np.concatenate(pixels)[shuffled],
        classes=classes[shuffled],
        groups=place[groups[shuffled]],
        test_pixels=train.pixels[:0],
        test_classes=train.classes[:0],
    )


def near_duplicates(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    """Each image shifted by at most one pixel either way, its border repeated, plus noise N(0, 4)."""
    size = pixels.shape[-1]
    shifts = rng.integers(-1, 2, (2, len(pixels), 1))
    rows, columns = np.clip(np.arange(size) + shifts, 0, size - 1)
    image = np.arange(len(pixels))[:, None, None]
    shifted = pixels.transpose(0, 2, 3, 1)[image, rows[:, :, None], columns[:, None, :]].transpose(0, 3, 1, 2)
    return _as_pixels(shifted + rng.normal(0, 4, pixels.shape))


def _as_pixels(values: npt.NDArray[np.float64]) -> Pixels:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def _pool(part: Split, test: Split) -> Pool:
    return Pool(
        pixels=part.pixels,
        classes=part.classes,
        groups=np.arange(len(part.classes)),
        test_pixels=test.pixels,
        test_classes=test.classes,
    )

"""Time and memory of each strategy to select 1,000 items, and their growth with the pool.

The pool is random clusters of 256 dimensions whose spread falls from dimension to dimension, float16 and memory
mapped, with the probabilities of a linear head and 100 labels. Every selection runs in a process of its own, so
that its peak memory is its own. Then, where scikit-activeml is installed (`pip install -e '.[bench]'`) and has
the same strategy, both select from the same vectors with the same head, in turns, and what they selected is
measured by the same objective. MaxHerding there needs the whole kernel matrix, so that it is compared on 100 of
10,000 items.

`make bench-select`, or `python -m benchmarks.select --items 10000 --strategies coreset badge --peer-items 10000`.
"""

import argparse
import importlib.util
import math
import multiprocessing
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from benchmarks.report import Figure, write_report
from worker.arrays import Floats, Ints
from worker.selection.pool_view import PoolView
from worker.strategies import strategies

DIMENSIONS = 256
THUMBNAIL = 28**2 + 2  # bytes of an item's
CLASSES = 10
LABELS = 100
PICKS = 1_000
BLOCK = 65_536


@dataclass(frozen=True)
class Run:
    seconds: float
    peak_gb: float
    items: Ints


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--items", type=int, nargs="*", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--strategies", nargs="+", default=list(strategies()), choices=list(strategies()))
    parser.add_argument(
        "--peer-items", type=int, default=50_000, help="size of the pool for scikit-activeml, or 0"
    )
    parser.add_argument("--repeats", type=int, default=3, help="times both select from it, in turns")
    parser.add_argument("--no-write", action="store_true", help="leave benchmarks/results as it is")
    options = parser.parse_args()
    figures: dict[str, Figure] = {}
    with tempfile.TemporaryDirectory(prefix="shortlist-bench-") as folder:
        for items in options.items:
            pool = Path(folder) / f"{items}"
            alone(make_pool, pool, items)
            for name in options.strategies:
                run = alone(select, pool, name, PICKS)
                say(f"{name}: {PICKS} of {items:,} in {run.seconds:.2f} s, {run.peak_gb:.2f} GB")
                figures |= {
                    f"{name}_s_{size(items)}": run.seconds,
                    f"{name}_peak_gb_{size(items)}": run.peak_gb,
                }
        figures |= growth(figures, options.items, options.strategies)
        if options.peer_items:
            figures |= compare(Path(folder), options.peer_items, options.repeats, options.strategies)
        figures |= {"picks": PICKS, "dimensions": DIMENSIONS, "classes": CLASSES, "labels": LABELS}
        command = (
            f"python -m benchmarks.select --items {' '.join(map(str, options.items))} --strategies "
            f"{' '.join(options.strategies)} --peer-items {options.peer_items} --repeats {options.repeats}"
        )
        write_report("select", figures, command, *([Path(folder)] if options.no_write else []))


def alone(function: Callable[..., Any], *arguments: Any) -> Any:
    """The function's result, computed in a fresh process."""
    with multiprocessing.get_context("spawn").Pool(1) as process:
        return process.apply(function, arguments)


def say(sentence: str) -> None:
    Console(stderr=True).print(sentence)


def size(items: int) -> str:
    return f"{items // 1_000_000}m" if items % 1_000_000 == 0 else f"{items // 1000}k"


def growth(figures: dict[str, Figure], items: list[int], names: list[str]) -> dict[str, Figure]:
    """The exponent g of time ~ items^g between the two largest pools: 0 constant, 1 linear."""
    if len(items) < 2:
        return {}
    smaller, larger = sorted(items)[-2:]
    found: dict[str, Figure] = {}
    for name in names:
        before, after = (float(figures[f"{name}_s_{size(n)}"] or 0) for n in (smaller, larger))
        found[f"{name}_growth"] = math.log(after / before) / math.log(larger / smaller)
    return found


def make_pool(folder: Path, items: int) -> None:
    """Written block by block, as a score run writes it."""
    rng = np.random.default_rng(items)
    folder.mkdir()
    spread = (1 + np.arange(DIMENSIONS)) ** -0.5
    centers = rng.normal(size=(20 * CLASSES, DIMENSIONS)) * spread
    weights = rng.normal(size=(DIMENSIONS, CLASSES)).astype(np.float32)
    shape = (items, DIMENSIONS)
    embeddings = np.lib.format.open_memmap(folder / "embeddings.npy", "w+", np.float16, shape)
    thumbnails = np.lib.format.open_memmap(folder / "thumbnails.npy", "w+", np.uint8, (items, THUMBNAIL))
    probabilities = np.empty((items, CLASSES), np.float32)
    for start in range(0, items, BLOCK):
        cluster = rng.integers(len(centers), size=min(BLOCK, items - start))
        block = centers[cluster] + rng.normal(size=(len(cluster), DIMENSIONS)) * spread
        embeddings[start : start + BLOCK] = block
        thumbnails[start : start + BLOCK] = rng.integers(256, size=(len(cluster), THUMBNAIL), dtype=np.uint8)
        probabilities[start : start + BLOCK] = softmax(
            embeddings[start : start + BLOCK].astype(np.float32) @ weights
        )
    classes = np.full(items, -1)
    labeled = rng.permutation(items)[:LABELS]
    classes[labeled] = probabilities[labeled].argmax(axis=1)
    for name, array in {"probabilities": probabilities, "classes": classes, "weights": weights}.items():
        np.save(folder / f"{name}.npy", array)
    np.save(folder / "losses.npy", rng.gamma(2, 0.5, items).astype(np.float32))


def softmax(logits: Floats) -> Floats:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def open_pool(folder: Path) -> PoolView:
    classes = np.load(folder / "classes.npy")
    return PoolView(
        embeddings=np.load(folder / "embeddings.npy", mmap_mode="r"),
        appearance=np.load(folder / "thumbnails.npy", mmap_mode="r"),
        pretext_losses=np.load(folder / "losses.npy"),
        available=classes < 0,
        classes=classes,
        probabilities=np.load(folder / "probabilities.npy"),
        n_classes=CLASSES,
        round_size=LABELS,
        labels_used=LABELS,
    )


def select(folder: Path, name: str, picks: int) -> Run:
    pool, strategy = open_pool(folder), strategies()[name]()
    started = time.perf_counter()
    items = strategy.select(pool, picks, np.random.default_rng(0)).items
    return Run(time.perf_counter() - started, peak_gb(), items)


def peak_gb() -> float:
    """The peak memory of this process alone; on Linux getrusage also counts what the process was forked from."""
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e9  # macOS: in bytes
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024 / 1e9


def compare(folder: Path, items: int, repeats: int, names: list[str]) -> dict[str, Figure]:
    if importlib.util.find_spec("skactiveml") is None:
        say("scikit-activeml is not installed, so nothing is compared: pip install -e '.[bench]'")
        return {}
    from benchmarks import skactiveml_peers as peers

    figures: dict[str, Figure] = {"skactiveml_version": peers.version()}
    for name in sorted(set(names) & set(peers.PEERS)):
        count, picks = (items, PICKS) if name != "maxherding" else (min(items, 10_000), 100)
        pool = folder / f"peers-{count}"
        if not pool.exists():
            alone(make_pool, pool, count)
        ours, theirs = [], []
        for _ in range(repeats):
            ours.append(alone(select, pool, name, picks))
            theirs.append(alone(peers.select, pool, name, picks))
            say(
                f"{name}: {picks} of {count:,}: {ours[-1].seconds:.2f} s, scikit-activeml {theirs[-1].seconds:.2f} s"
            )
        quick, slow = (statistics.median(run.seconds for run in runs) for runs in (ours, theirs))
        figures |= {
            f"{name}_s_{picks}_of_{size(count)}": quick,
            f"{name}_skactiveml_s_{picks}_of_{size(count)}": slow,
            f"over_skactiveml_{name}": slow / quick,
        }
        found, theirs_found = (alone(peers.objectives, pool, name, runs[0].items) for runs in (ours, theirs))
        for objective, value in found.items():
            figures |= {
                f"{name}_{objective}": value,
                f"{name}_{objective}_skactiveml": theirs_found[objective],
            }
    return figures


if __name__ == "__main__":
    main()

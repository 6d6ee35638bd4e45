"""Recordings, videos, graphs, texts and pairs: probes, correlation of losses, label efficiency. Resumable.

.venv/bin/python -m benchmarks.modalities            all pools, five seeds, an hour and a half or so
.venv/bin/python -m benchmarks.modalities --quick    all but texts, fewer epochs, budgets and strategies
.venv/bin/python -m benchmarks.modalities --probes    pretrained weights, where extras bring some, against raw features
"""

import argparse
import json
import sys

import numpy as np
import torch

from benchmarks.labels.embeddings import CACHE
from benchmarks.modalities import measure
from benchmarks.modalities.page import write_page
from benchmarks.modalities.pools import POOLS, Missing, Pool, some_of
from benchmarks.report import RESULTS, Figure, write_report
from worker.arrays import Floats

_CACHE = CACHE / "modalities"
_BUDGETS = (20, 50, 100, 200, 500, 1_000)
_STRATEGIES = ("shortlist", "pt4al", "typiclust", "uherding", "margin")
_QUICK_POOLS = ("mutag", "proteins", "spoken_digits", "moving_fashion", "emoji")
_QUICK_BUDGETS = (20, 50, 100)
_QUICK_STRATEGIES = ("shortlist", "pt4al", "typiclust")
_QUICK_SEEN = {
    "audio": 8_000,
    "graph": 10_000,
    "text": 20_000,
    "video": 6_000,
    "pair": 12_000,
}  # items, in all epochs


def probed(name: str, items: int | None) -> dict[str, Figure]:
    """Few labels on raw features and on pretrained weights, of so many random items. Raises `Missing`."""
    pool = POOLS[name]() if items is None else some_of(POOLS[name](), items)
    embeddings = measure.pretrained(pool, _CACHE)
    if embeddings is None:
        return {}
    features = {"raw": _raw(pool), "pretrained": embeddings.astype(np.float32)}
    found = measure.few_label_probes(pool, features)
    probes: dict[str, Figure] = {f"probe_{name}_{what}": value for what, value in found.items()}
    return probes | {f"probed_items_{name}": len(pool.items)}


def _raw(pool: Pool) -> Floats:
    return pool.modality.raw_features(torch.split(pool.items, 64), np.random.default_rng(0))


def figures(name: str, quick: bool, seeds: int, tasks: list[str]) -> dict[str, Figure]:
    """Raises `Missing`."""
    pool = POOLS[name]()
    epochs = measure.epochs_for(pool, _QUICK_SEEN[pool.modality.name] if quick else None)
    default = pool.modality.default_task
    model = measure.pretext_model(pool, default, epochs, _CACHE)
    features = {
        "raw": _raw(pool),
        "untrained": model["untrained"],
        "trained": model["embeddings"],
    }
    for task in tasks:
        features[task] = measure.pretext_model(pool, task, epochs, _CACHE)["embeddings"]
    found: dict[str, Figure] = {f"task_{name}": default, f"epochs_{name}": epochs}
    found |= {f"probe_{name}_{what}": value for what, value in measure.probes(pool, features).items()}
    rho = measure.rho_supervised(pool, model["losses"], _CACHE)
    found |= {f"{what}_{name}": value for what, value in rho.items()}
    made = measure.embedded(pool, model, measure.key_of(pool, default, epochs))
    most = len(made.classes) // 2
    budgets = [budget for budget in (_QUICK_BUDGETS if quick else _BUDGETS) if budget <= most]
    strategies = _QUICK_STRATEGIES if quick else _STRATEGIES
    return found | measure.labeling(name, made, strategies, budgets, seeds, _CACHE)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.modalities")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--pools", default="", help="comma-separated; default: all")
    parser.add_argument("--probes", action="store_true", help="of pretrained weights only")
    parser.add_argument("--items", type=int, help="random ones of a pool, for --probes; default: all")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--tasks", default="", help="comma-separated: probed beside the default task")
    given = parser.parse_args()
    torch.set_num_threads(1)
    names = given.pools.split(",") if given.pools else list(_QUICK_POOLS if given.quick else POOLS)
    tasks = [task for task in given.tasks.split(",") if task]
    command = " ".join(["python -m benchmarks.modalities", *sys.argv[1:]])
    for name in names:
        try:
            found = (
                probed(name, given.items) if given.probes else figures(name, given.quick, given.seeds, tasks)
            )
        except Missing as missing:
            print(f"{name}: {missing}", file=sys.stderr)
            continue
        # Other pools keep their figures, so that a few of them can be run at a time.
        what = f"probes_{name}" if given.probes else name
        write_report("modalities", _kept() | found | {f"command_{what}": command}, command)
        write_page(_kept())


def _kept() -> dict[str, Figure]:
    path = RESULTS / "modalities.json"
    kept: dict[str, Figure] = json.loads(path.read_text()) if path.exists() else {}
    return kept


if __name__ == "__main__":
    main()

"""A pool's pretext model, what it is worth, and what strategies make of it. Each step is kept, so that a bench that was
stopped goes on.
"""

import hashlib
import inspect
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.labels import simulation
from benchmarks.labels.comparison import Run, compare
from benchmarks.labels.embeddings import Embedded
from benchmarks.labels.simulation import Row
from benchmarks.labels.split import draw
from benchmarks.modalities.pools import Pool
from benchmarks.report import Figure
from service.content import limits_of
from service.settings import Settings
from worker.arrays import Bytes, Floats, Halves, Ints
from worker.evaluation.metrics import rank_correlation
from worker.heads.calibration import scale_of
from worker.models.spec import ModelSpec, input_of
from worker.pool.dataset import Dataset
from worker.pretraining.recipe import Recipe
from worker.pretraining.train import Callbacks, train
from worker.scoring.duplicates import representatives, threshold
from worker.scoring.foundation_net import FoundationNet
from worker.scoring.score import score

_CPU = torch.device("cpu")
_AT_ONCE, _SAMPLE, _TWINS = 64, 512, 256
_MOST_EPOCHS = 30
_FEW = 100  # labels of the second probe
_FEWER = (50, 200)  # of the probe that is told of pretrained weights
_DECODED = 512  # items that are decoded at a time for them
_PROBES = 5
_SUPERVISED_EPOCHS, _SUPERVISED_RATE = 12, 2e-3
_LESS, _MORE = (5, 10), 4  # budgets at which random is measured, too


def epochs_for(pool: Pool, items_seen: int | None) -> int:
    """As a project on a CPU that sets none, unless `items_seen` does."""
    seen = items_seen or pool.modality.items_seen["cpu"]
    return min(max(math.ceil(seen / int((~pool.test).sum())), 2), _MOST_EPOCHS)


def pretext_model(pool: Pool, task: str, epochs: int, cache: Path) -> dict[str, Floats]:
    """`losses` (n,) and `embeddings` (n, d) of all items, by a network that was trained on those that are not tested;
    and `untrained` (n, d).
    """
    path = cache / f"{key_of(pool, task, epochs)}.npz"
    if not path.exists():
        spec = ModelSpec({"name": task}, pool.modality.default_backbone, input_of(pool.modality), seed=0)
        torch.manual_seed(0)
        made = spec.make_task()
        net = made.make_net(*pool.modality.make_backbone(spec.backbone, False), pool.modality)
        untrained = _scored(pool, net.eval(), spec)["embeddings"]
        items = pool.items[torch.from_numpy(~pool.test)]
        sample = items[torch.randperm(len(items), generator=torch.Generator().manual_seed(0))[:_SAMPLE]]
        callbacks = Callbacks(
            save=lambda state: None, save_interval_s=math.inf, report=lambda done, text: None, warn=print
        )
        trained = train(
            spec,
            Recipe(epochs=epochs, batch_size=64, seed=0),
            net.train(),
            Dataset(len(items), lambda rows: items[torch.from_numpy(rows)]),
            sample,
            {},
            _CPU,
            callbacks,
            None,
        )
        cache.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".tmp")
        with unfinished.open("wb") as file:
            np.savez(file, allow_pickle=False, untrained=untrained, **_scored(pool, trained.net.eval(), spec))
        unfinished.rename(path)
    with np.load(path) as arrays:
        return dict(arrays)


def _scored(pool: Pool, net: nn.Module, spec: ModelSpec) -> dict[str, Floats]:
    task = spec.make_task()
    parts = [score(net, task, pool.modality.prepare(part)) for part in torch.split(pool.items, _AT_ONCE)]
    return {
        "losses": torch.cat([part.losses for part in parts]).numpy(),
        "embeddings": torch.cat([part.embeddings for part in parts]).numpy(),
    }


def pretrained(pool: Pool, cache: Path) -> Halves | None:
    """(n, p) embeddings of all items by the weights that an extra brings; None where there are none, and why is
    printed.
    """
    foundation = pool.modality.foundation
    if foundation is None:
        return None
    search = foundation.find(Settings(pretrained="offline"))
    if search.weights is None:
        print(*search.tried, file=sys.stderr)
        return None
    path = cache / f"{key_of(pool, search.weights.sha256)}.npy"
    if not path.exists():
        net = FoundationNet.of(search.weights.data, pool.modality, _CPU)
        limits = limits_of(Settings())
        parts = [pool.data[start : start + _DECODED] for start in range(0, len(pool.data), _DECODED)]
        found = [
            net.embeddings(torch.stack([net.modality.decode(one, limits)[0] for one in part]))
            for part in parts
        ]
        cache.mkdir(parents=True, exist_ok=True)
        np.save(path, np.concatenate(found))
    embeddings: Halves = np.load(path)
    return embeddings


def few_label_probes(pool: Pool, features: dict[str, Floats]) -> dict[str, Figure]:
    """Accuracy of logistic regression on the test items by few random labels of the pool, the mean of five draws:
    `<what>_<labels>`. Features are scaled as heads scale embeddings.
    """
    found: dict[str, Figure] = {}
    shown = np.flatnonzero(~pool.test)
    for what, values in features.items():
        for few in _FEWER:
            drawn = [np.random.default_rng(seed).permutation(shown)[:few] for seed in range(_PROBES)]
            accuracies = [
                _accuracy(pool, (values - values[rows].mean(0)) / scale_of(values[rows]), rows, scaled=True)
                for rows in drawn
            ]
            found[f"{what}_{few}"] = round(float(np.mean(accuracies)), 4)
    return found


def key_of(pool: Pool, *more: object) -> str:
    """A hash of the items, the code of their modality, and `more`; 12 hex digits."""
    found = hashlib.sha256(repr((input_of(pool.modality), more)).encode())
    room = f"worker.modalities.{pool.modality.name}"
    for name, module in sorted(sys.modules.items()):
        if name == room or name.startswith(f"{room}."):
            found.update(inspect.getsource(module).encode())
    found.update(np.ascontiguousarray(pool.items.numpy()).data)
    found.update(pool.test.tobytes())
    return found.hexdigest()[:12]


def probes(pool: Pool, features: dict[str, Floats]) -> dict[str, Figure]:
    """Accuracy of logistic regression on the test items: `<what>` by all labels of the pool, `<what>_100` by a hundred
    random ones, the mean of five draws.
    """
    found: dict[str, Figure] = {}
    shown = np.flatnonzero(~pool.test)
    for what, values in features.items():
        found[what] = round(_accuracy(pool, values, shown), 4)
        if len(shown) > 2 * _FEW:
            drawn = [np.random.default_rng(seed).permutation(shown)[:_FEW] for seed in range(_PROBES)]
            found[f"{what}_{_FEW}"] = round(
                float(np.mean([_accuracy(pool, values, rows) for rows in drawn])), 4
            )
    return found


def _accuracy(pool: Pool, values: Floats, rows: Ints, scaled: bool = False) -> float:
    classifier = LogisticRegression(C=0.1, max_iter=300)
    probe = classifier if scaled else make_pipeline(StandardScaler(), classifier)
    probe.fit(values[rows], pool.classes[rows])
    return float(probe.score(values[pool.test], pool.classes[pool.test]))


def supervised_losses(pool: Pool, cache: Path) -> tuple[Floats, float]:
    """(m,) cross-entropy of each item that is not tested, by a network trained on the other half of them with their
    labels, and the accuracy of these networks.
    """
    path = cache / f"{key_of(pool, 'supervised')}.npz"
    shown = np.flatnonzero(~pool.test)
    if not path.exists():
        losses, right = np.zeros(len(shown), np.float32), np.zeros(len(shown), np.bool_)
        halves = np.array_split(np.random.default_rng(0).permutation(len(shown)), 2)
        for learned, judged in (halves, halves[::-1]):
            net = _supervised(pool, shown[learned])
            with torch.no_grad():
                parts = torch.split(pool.items[torch.from_numpy(shown[judged])], _AT_ONCE)
                logits = torch.cat([net(pool.modality.prepare(part)) for part in parts])
            classes = torch.from_numpy(pool.classes[shown[judged]])
            losses[judged] = functional.cross_entropy(logits, classes, reduction="none").numpy()
            right[judged] = (logits.argmax(1) == classes).numpy()
        cache.mkdir(parents=True, exist_ok=True)
        np.savez(path, losses=losses, accuracy=right.mean())
    with np.load(path) as arrays:
        return arrays["losses"], float(arrays["accuracy"])


def _supervised(pool: Pool, rows: Ints) -> nn.Module:
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    backbone, dimensions = pool.modality.make_backbone(pool.modality.default_backbone, False)
    net = nn.Sequential(backbone, nn.Linear(dimensions, pool.n_classes))
    optimizer = torch.optim.AdamW(net.parameters(), _SUPERVISED_RATE, weight_decay=0.05)
    items, classes = pool.items[torch.from_numpy(rows)], torch.from_numpy(pool.classes[rows])
    for _ in range(_SUPERVISED_EPOCHS):
        for part in torch.split(torch.randperm(len(rows), generator=generator), _AT_ONCE):
            loss = functional.cross_entropy(net(pool.modality.prepare(items[part])), classes[part])
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
    return net.eval()


def rho_supervised(pool: Pool, losses: Floats, cache: Path) -> dict[str, Figure]:
    hard, accuracy = supervised_losses(pool, cache)
    found = rank_correlation(losses[~pool.test], hard)
    return {
        "rho_supervised": None if found is None else round(found.rho, 3),
        "supervised_accuracy": round(accuracy, 4),
    }


def embedded(pool: Pool, found: dict[str, Floats], key: str) -> Embedded:
    """As the simulation of labeling takes it."""
    shown = torch.from_numpy(~pool.test)
    sketches, copies = _sketches(pool, pool.items[shown])
    return Embedded(
        key=key,
        embeddings=found["embeddings"][~pool.test].astype(np.float16),
        pretext_losses=found["losses"][~pool.test],
        classes=pool.classes[~pool.test],
        groups=np.arange(int(shown.sum())),
        copies=copies,
        thumbnails=sketches,
        test_embeddings=found["embeddings"][pool.test].astype(np.float16),
        test_classes=pool.classes[pool.test],
    )


def _sketches(pool: Pool, items: Tensor) -> tuple[Bytes, Ints]:
    """Appearance (n, a), constant where a sketch says nothing of it; and (m, 2) rows of near-duplicates, as found."""
    sketcher = pool.modality.sketcher
    nothing = np.zeros((len(items), 1), np.uint8)
    if sketcher is None:
        return nothing, np.empty((0, 2), np.int64)
    sketches = np.concatenate([sketcher.sketch(part) for part in torch.split(items, _AT_ONCE)])
    some = items[torch.randperm(len(items), generator=torch.Generator().manual_seed(0))[:_TWINS]]
    generator = torch.Generator().manual_seed(1)
    views = [sketcher.sketch(sketcher.changed_slightly(some, generator)) for _ in range(2)]
    own = np.arange(len(some))
    largest = threshold(
        sketcher,
        sketcher.differences(np.concatenate(views), own, own[:, None] + len(own))[:, 0],
        sketcher.differences(views[0], own, np.roll(own, 1)[:, None])[:, 0],
    )
    stands = representatives(sketcher, sketches, [None] * len(items), largest)
    copies = np.flatnonzero(stands != np.arange(len(items)))
    shown = sketcher.appearance(sketches)
    return nothing if shown is None else shown, np.column_stack([copies, stands[copies]])


def labeling(
    name: str, pool: Embedded, strategies: Sequence[str], budgets: Sequence[int], seeds: int, cache: Path
) -> dict[str, Figure]:
    """Labels that random needs for the same accuracy, by budget, of each strategy; where random's curve is too short to
    tell, the bound. And the area above random's curve in points.
    """
    kept = cache / "runs"
    kept.mkdir(parents=True, exist_ok=True)
    runs: dict[str, list[Run]] = {
        one: [_run(name, pool, one, seed, budgets, kept) for seed in range(seeds)]
        for one in ("random", *strategies)
    }
    found: dict[str, Figure] = {f"near_duplicates_{name}": len(pool.copies)}
    for arm in compare(runs, budgets, balanced=False):
        if arm.strategy == "random":
            found |= {f"accuracy_random_{name}_{b}": round(mean.value, 4) for b, mean in arm.accuracy.items()}
            continue
        of = name if arm.strategy == "shortlist" else f"{arm.strategy}_{name}"
        for budget, efficiency in arm.efficiency.items():
            found[f"label_efficiency_{of}_{budget}"] = round(efficiency.value, 3)
            if efficiency.bound:
                found[f"label_efficiency_{of}_{budget}_is_a_bound"] = efficiency.bound
        gain = arm.aulc_minus_random
        for suffix, value in (("", gain.value), ("_low", gain.low), ("_high", gain.high)):
            found[f"aulc_minus_random_{of}{suffix}"] = round(100 * value, 2)
    return found


def _run(
    name: str, pool: Embedded, strategy: str, seed: int, budgets: Sequence[int], kept: Path
) -> list[Row]:
    drawn = draw(pool, seed).pool
    budgets = [budget for budget in budgets if budget < len(drawn.classes)]
    if strategy == "random":
        last = min(_MORE * budgets[-1], len(drawn.classes))
        budgets = sorted({*_LESS, *budgets, *(b for b in (2 * budgets[-1], last) if b <= len(drawn.classes))})
    sources = inspect.getsource(inspect.getmodule(type(simulation.make_strategy(strategy)[0])))  # type: ignore[arg-type]
    made = hashlib.sha256(f"{pool.key}{budgets}{sources}".encode())
    made.update(np.ascontiguousarray(pool.thumbnails).data)
    path = kept / f"{name}-{strategy}-{seed}-{made.hexdigest()[:12]}.json"
    if not path.exists():
        rows, _ = simulation.run(name, drawn, strategy, seed, budgets)
        path.write_text(json.dumps([asdict(row) for row in rows]))
    return [Row(**row) for row in json.loads(path.read_text())]

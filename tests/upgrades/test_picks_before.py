"""Pins which items every strategy picked at commit 23285fa, and what the heads on embeddings said of them.

`before/picks.json` holds, for two pools of 400 items in six clusters, one of them lopsided, the first 40 rows that
each strategy picks without a head, or that it needs one (`ColdStart`), and with a head taught by 30 labels. Picks
must be the same exactly; so that heads on other CPUs change none, the probabilities that strategies see lie in the
file as well. What heads say is compared with rtol 1e-3, or 1e-6 with SHORTLIST_TEST_EXACT=1.
SHORTLIST_WRITE_FIXTURES=1 makes the tests write the file. What `shortlist` picks with a head was pinned anew when
doubt came to count once (docs/decisions/0025-doubt-counts-once.md), what `propagate` says of the lopsided pool when its
second search came to start near the first (0032, 0.0012 of a probability at most).
"""

import json
import re
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

from tests.upgrades.recorded import BEFORE, EXACT, WRITING
from worker.arrays import Floats
from worker.heads import heads
from worker.heads.labeled_view import LabeledView
from worker.heads.linear import LinearHead
from worker.heads.pool_graph import PoolGraph
from worker.selection.pool_view import PoolView
from worker.strategies import ColdStart, strategies

FILE = BEFORE / "picks.json"
ITEMS, DIMENSIONS, CLUSTERS, CLASSES, SIDE, LABELS, PICKS = 400, 16, 6, 3, 8, 30, 40
SHARES = {"even": [1 / CLUSTERS] * CLUSTERS, "lopsided": [0.5, 0.2, 0.15, 0.1, 0.04, 0.01]}
SHOWN = [0, 99, 198, 297, 396]  # rows whose probabilities are compared
HEADS = ("linear", "mlp", "propagate", "auto")
COLD_START = "ColdStart"

every_pool = pytest.mark.parametrize("pool", SHARES)


@cache
def recorded() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(FILE.read_text())
    return found


@cache
def elsewhere() -> dict[str, Any]:
    """The picks of commit 4bf5144 that are others on a CPU without AVX-512, which rounds gains that are nearly equal
    otherwise.
    """
    if torch.backends.cpu.get_cpu_capability() == "AVX512":
        return {}
    found: dict[str, Any] = json.loads((BEFORE / "picks-without-avx512.json").read_text())
    return found


def record(at: str, name: str, found: object) -> None:
    known = recorded() if FILE.exists() else {}
    known.setdefault(at, {})[name] = found
    text = json.dumps(known, indent=1, sort_keys=True)
    in_lines = re.sub(r"\[[^][]*\]", lambda numbers: " ".join(numbers[0].split()), text)
    FILE.write_text(in_lines + "\n")
    recorded.cache_clear()


@cache
def truth_of(pool: str) -> tuple[PoolView, np.ndarray]:
    """Nothing labeled, and the true classes (400,); each class is two clusters."""
    rng = np.random.default_rng(list(SHARES).index(pool))
    cluster = rng.choice(CLUSTERS, ITEMS, p=SHARES[pool])
    centers = rng.normal(size=(CLUSTERS, DIMENSIONS)) * 1.5
    embeddings = (centers[cluster] + rng.normal(size=(ITEMS, DIMENSIONS))).astype(np.float16)
    looks = rng.uniform(40, 215, (CLUSTERS, SIDE**2 + 2))
    thumbnails = (looks[cluster] + rng.normal(0, 25, (ITEMS, SIDE**2 + 2))).round().clip(0, 255)
    losses = (1 + 0.2 * cluster + rng.gamma(2, 0.3, ITEMS)).astype(np.float32)
    view = PoolView(
        embeddings=embeddings,
        pretext_losses=losses,
        available=np.ones(ITEMS, np.bool_),
        classes=np.full(ITEMS, -1),
        probabilities=None,
        n_classes=CLASSES,
        round_size=10,
        labels_used=0,
        appearance=thumbnails.astype(np.uint8),
    )
    return view, cluster % CLASSES


@cache
def labeled(pool: str) -> PoolView:
    """30 random items are, and 20 more are not to be had."""
    view, truth = truth_of(pool)
    order = np.random.default_rng(7).permutation(ITEMS)
    known = order[:LABELS]
    classes, available = view.classes.copy(), view.available.copy()
    classes[known] = truth[known]
    available[order[: LABELS + 20]] = False
    return replace(view, classes=classes, available=available, labels_used=LABELS, loss_weight=0.3)


def said_by(name: str, view: PoolView) -> Floats:
    """(400, 3) by a head of that name, taught by the labels of the pool."""
    graph = PoolGraph(view.embeddings, np.random.default_rng(0), appearance=view.appearance)
    known = view.labeled
    taught = LabeledView(view.embeddings[known], view.classes[known], view.n_classes, lambda: graph)
    fitted = heads()[name]().fit(taught, np.random.default_rng(0))
    return fitted.probabilities(view.embeddings)


def by_linear(view: PoolView) -> list[list[float]]:
    known = view.labeled
    taught = LabeledView(view.embeddings[known], view.classes[known], view.n_classes)
    fitted = LinearHead().fit(taught, np.random.default_rng(0))
    return [[round(float(value), 6) for value in row] for row in fitted.probabilities(view.embeddings)]


@every_pool
def test_a_linear_head_says_the_same_of_the_whole_pool(pool: str) -> None:
    found = by_linear(labeled(pool))
    if WRITING:
        record("probabilities", pool, found)
        return

    then = recorded()["probabilities"][pool]
    np.testing.assert_allclose(found, then, rtol=0 if EXACT else 1e-3, atol=2e-6)


@every_pool
@pytest.mark.parametrize("name", HEADS)
def test_heads_say_the_same(name: str, pool: str) -> None:
    found = said_by(name, labeled(pool))[SHOWN].tolist()
    if WRITING:
        record(f"heads on {pool}", name, found)
        return

    then = recorded()[f"heads on {pool}"][name]
    # `propagate` stops searching where a loss no longer falls by much, which rounding moves: on one CPU two threads of
    # torch and one say things that are 1.5 % of a probability apart.
    by_rounding = 1e-2 if name == "propagate" else 1e-3
    np.testing.assert_allclose(found, then, rtol=1e-6 if EXACT else by_rounding, atol=1e-6)


@every_pool
@pytest.mark.parametrize("head", [False, True], ids=["no head", "a head"])
@pytest.mark.parametrize("name", strategies())
def test_strategies_pick_the_same(name: str, head: bool, pool: str) -> None:
    at = f"picks from {pool}, {'a head' if head else 'no head'}"
    if not WRITING and name not in recorded()[at]:
        pytest.skip("the strategy is newer than the file")
    view = truth_of(pool)[0]
    if head:
        then = np.array(recorded()["probabilities"][pool], np.float32)
        view = replace(labeled(pool), probabilities=then)
    try:
        selection = strategies()[name]().select(view, PICKS, np.random.default_rng(0))
        found: object = selection.items.tolist()
    except ColdStart:
        found = COLD_START
    if WRITING:
        record(at, name, found)
        return

    assert found == elsewhere().get(at, {}).get(name, recorded()[at][name])


def test_all_strategies_and_heads_of_then_are_there() -> None:
    then = {name for at, found in recorded().items() if at.startswith("picks") for name in found}

    assert then <= set(strategies())
    assert len(then) == 16
    assert set(HEADS) <= set(heads())

"""Labels until 20 items of the rarest class are found, from three examples on: `python -m benchmarks.rare`.

The pools are the long tail of Fashion-MNIST (`benchmarks.labels`), where the rarest class is easy to tell (ankle
boots, 100 of 8,399), and the same with one that is hard to tell, thinned out: shirts, 60 of 8,238, on which the width
of the kernel of `rare` was chosen, and coats, 60 of 7,932, on which nothing was. Every arm begins with three examples
of the class and 20 random labels; each round labels 20 more and trains the head anew.
"""

import argparse
from dataclasses import replace

import numpy as np

from benchmarks.labels.catalogue import make_pool
from benchmarks.labels.embeddings import Embedded, embedded, load
from worker.arrays import Ints
from worker.heads.labeled_view import LabeledView
from worker.heads.linear import LinearHead
from worker.selection.pool_view import PoolView
from worker.strategies import strategies

WANTED, EXAMPLES, RANDOM, ROUND = 20, 3, 20, 20
CASES = {"ankle boots": (9, 100), "shirts": (6, 60), "coats": (4, 60)}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rare", description=__doc__)
    parser.add_argument("--strategies", default="random,margin,shortlist,rare")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--most", type=int, default=400, help="labels, then it is given up")
    options = parser.parse_args()
    pool = load(embedded(make_pool("long-tail"), epochs=2))
    for case, (rare, count) in CASES.items():
        thinned = thin(pool, rare, count)
        print(f"{case}: {count} of {len(thinned.classes):,}")
        for name in options.strategies.split(","):
            found = [labels_until(thinned, rare, name, seed, options.most) for seed in range(options.seeds)]
            print(
                f"  {name:12} labels {[each[0] for each in found]}, found {[each[1] for each in found]}",
                flush=True,
            )


def thin(pool: Embedded, rare: int, count: int) -> Embedded:
    """The pool with `count` items of the class left, the same every time."""
    members = np.random.default_rng(0).permutation(np.flatnonzero(pool.classes == rare))
    kept = np.setdiff1d(np.arange(len(pool.classes)), members[count:])
    return replace(
        pool,
        embeddings=pool.embeddings[kept],
        pretext_losses=pool.pretext_losses[kept],
        classes=pool.classes[kept],
        groups=pool.groups[kept],
        thumbnails=np.asarray(pool.thumbnails[kept]),
        copies=np.empty((0, 2), np.int64),
    )


def labels_until(pool: Embedded, rare: int, name: str, seed: int, most: int) -> tuple[int, int]:
    """Labels used when 20 items of the class were found, or at least `most` were used; and the items found."""
    start, rng = np.random.default_rng([seed, 0]), np.random.default_rng([seed, 1])
    known = np.full(len(pool.classes), -1)
    examples = start.permutation(np.flatnonzero(pool.classes == rare))[:EXAMPLES]
    _label(pool, known, np.concatenate([examples, start.permutation(len(known))[:RANDOM]]))
    while True:
        labeled = np.flatnonzero(known >= 0)
        found = int((known == rare).sum())
        if found >= WANTED or len(labeled) >= most:
            return len(labeled), found
        taught = LabeledView(pool.embeddings[labeled], known[labeled], pool.n_classes)
        head = LinearHead().fit(taught, np.random.default_rng([seed, 2]))
        view = PoolView(
            embeddings=pool.embeddings,
            pretext_losses=pool.pretext_losses,
            available=known < 0,
            classes=known.copy(),
            probabilities=head.probabilities(pool.embeddings),
            n_classes=pool.n_classes,
            round_size=ROUND,
            labels_used=len(labeled),
            appearance=pool.thumbnails,
            class_names=tuple(map(str, range(pool.n_classes))),
        )
        strategy = strategies()[name].model_validate({"class": str(rare)} if name == "rare" else {})
        _label(pool, known, strategy.select(view, ROUND, rng).items)


def _label(pool: Embedded, known: Ints, rows: Ints) -> None:
    known[rows] = pool.classes[rows]


if __name__ == "__main__":
    main()

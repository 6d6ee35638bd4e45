"""Labels that several classes an item take: `python -m benchmarks.several`, with `--bccd FOLDER` on blood cells, too.

Mosaics: 2 × 2 pictures of Fashion-MNIST (`examples/`) each, 1,500 to pick from and 500 to be measured on, whose classes
come in a long tail, each half as frequent as two before it; one picture in three is blank. BCCD: 364 photographs of
blood, by which of three kinds of cells are there (https://github.com/Shenggan/BCCD_Dataset), 244 to pick from.

Embeddings are the raw features that the service ranks by before there is a pretext model (HOG and a thumbnail, 128
principal components); the head is `linear`. Each budget is a round; all arms begin with nothing. Doubt of an item is
the mean over classes; `:max` behind a strategy takes that of the class in most doubt instead.
"""

import argparse
import io
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pyarrow.parquet as pq
from PIL import Image
from torch import Tensor

from service.content.contract import Limits
from worker.arrays import Floats, Ints
from worker.evaluation.metrics import measure_several, told_apart
from worker.heads.labeled_view import LabeledView
from worker.heads.linear import LinearHead
from worker.jobs.score_raw import DIMENSIONS
from worker.modalities import modalities
from worker.pool.reader import stacked
from worker.scoring.principal_components import principal_components
from worker.selection import uncertainty
from worker.selection.pool_view import PoolView
from worker.strategies import ColdStart, strategies

EXAMPLES = Path(__file__).parent.parent / "examples" / "fashion_mnist" / "pool.parquet"
MOSAICS, MEASURED, BLANK = 2_000, 500, 1 / 3
BUDGETS = (20, 40, 80, 160, 320)
BCCD_MEASURED = 120
LIMITS = Limits(max_pixels=10**8, max_text_bytes=2**20)
_PART = 256


@dataclass(frozen=True)
class Pool:
    """features (n, d), members (n, c), and how many of them are to be measured on, the last ones"""

    name: str
    features: Floats
    members: Ints
    measured: int


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.several", description=__doc__)
    parser.add_argument("--strategies", default="random,shortlist,shortlist:max")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--bccd", type=Path, help="folder with Annotations and JPEGImages")
    options = parser.parse_args()
    pools = [mosaics(), *([bccd(options.bccd)] if options.bccd else [])]
    names = options.strategies.split(",")
    for pool in pools:
        shares = ", ".join(f"{share:.2f}" for share in pool.members.mean(axis=0))
        print(f"{pool.name}: {len(pool.members):,} items, classes on {shares} of them", flush=True)
        curves = {name: np.array([run(pool, name, seed) for seed in range(options.seeds)]) for name in names}
        for name, curve in curves.items():
            print(f"  {name:13} " + "  ".join(f"{100 * mean:5.1f}" for mean in curve.mean(axis=0)))
            if name != names[0]:
                gain = curve - curves[names[0]]
                errors = 1.96 * gain.std(axis=0, ddof=1) / np.sqrt(len(gain))
                told = zip(gain.mean(axis=0), errors, strict=True)
                print(
                    f"    - {names[0]}: "
                    + "  ".join(f"{100 * mean:+.1f} ± {100 * error:.1f}" for mean, error in told)
                )
    print(
        f"Mean average precision, in percent, after {', '.join(map(str, BUDGETS))} labels; ±: 95 % over seeds."
    )


def largest(probabilities: Floats, measure: Callable[[Floats], Floats]) -> Floats:
    return np.asarray(measure(probabilities).max(axis=1))


def run(pool: Pool, wanted: str, seed: int) -> list[float]:
    """The mean average precision on what is measured, at each budget."""
    name, _, how = wanted.partition(":")
    picked_from = len(pool.members) - pool.measured
    order = np.random.default_rng([seed, 7]).permutation(
        len(pool.members)
    )  # other ones are measured on, each time
    features, members = pool.features[order], pool.members[order]
    labeled, rng = np.empty(0, np.int64), np.random.default_rng(seed)
    told: Floats | None = None
    reached = []
    for budget in BUDGETS:
        budget = min(budget, picked_from)
        view = view_of(features[:picked_from], members[:picked_from], labeled, told, budget - len(labeled))
        with patch.object(uncertainty, "_mean_of_questions", largest) if how == "max" else nullcontext():
            try:
                selection = strategies()[name]().select(view, budget - len(labeled), rng)
            except ColdStart:
                selection = strategies()["shortlist"]().select(view, budget - len(labeled), rng)
        labeled = np.concatenate([labeled, selection.items])
        taught = LabeledView(features[labeled], members[labeled], members.shape[1])
        if not told_apart(taught.classes):
            reached.append(float("nan"))
            continue
        fitted = LinearHead().fit(taught, np.random.default_rng([seed, budget]))
        told = fitted.probabilities(features[:picked_from])
        found = measure_several(
            fitted.probabilities(features[picked_from:]), members[picked_from:], np.random.default_rng(0)
        )
        reached.append(float(found.mean_average_precision or 0.0))
    return reached


def view_of(features: Floats, members: Ints, labeled: Ints, told: Floats | None, round_size: int) -> PoolView:
    known = np.zeros(len(features), np.bool_)
    known[labeled] = True
    return PoolView(
        embeddings=features.astype(np.float16),
        pretext_losses=np.zeros(len(features), np.float32),
        available=~known,
        classes=np.where(known, 0, -1),
        probabilities=told,
        n_classes=members.shape[1],
        round_size=max(round_size, 1),
        labels_used=len(labeled),
        members=np.where(known[:, None], members, 0),
    )


def mosaics() -> Pool:
    table = pq.read_table(EXAMPLES).to_pydict()
    names = sorted(set(table["class"]))
    of_class = [[i for i, name in enumerate(table["class"]) if name == each] for each in names]
    rng = np.random.default_rng(0)
    shares = 2.0 ** (-np.arange(len(names)) / 2)
    shares = (1 - BLANK) * shares / shares.sum()
    kinds = rng.choice(len(names) + 1, (MOSAICS, 4), p=[*shares, BLANK])
    members = np.array([[int(each in row) for each in range(len(names))] for row in kinds])

    def pictures() -> Iterator[bytes]:
        for row in kinds:
            whole = Image.new("L", (56, 56))
            for place, kind in enumerate(row):
                if kind < len(names):
                    data = table["image"][int(rng.choice(of_class[kind]))]
                    whole.paste(Image.open(io.BytesIO(data)), (28 * (place % 2), 28 * (place // 2)))
            yield png(whole)

    return Pool("mosaics", features_of(pictures(), 56), members, MEASURED)


def bccd(folder: Path) -> Pool:
    names = ["RBC", "WBC", "Platelets"]
    members, pictures = [], []
    for place in sorted((folder / "Annotations").glob("*.xml")):
        there = {each.findtext("name") for each in ET.parse(place).getroot().iter("object")}
        members.append([int(name in there) for name in names])
        with Image.open(folder / "JPEGImages" / f"{place.stem}.jpg") as picture:
            pictures.append(png(picture.resize((128, 96))))
    return Pool("bccd", features_of(iter(pictures), 96), np.array(members), BCCD_MEASURED)


def png(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def features_of(pictures: Iterator[bytes], side: int) -> Floats:
    modality = modalities()["image"]().for_raw_features([{"width": side, "height": side}])
    rng = np.random.default_rng(0)

    def parts() -> Iterator[Tensor]:
        decoded: list[Tensor] = []
        for data in pictures:
            decoded.append(modality.decode(data, LIMITS)[0])
            if len(decoded) == _PART:
                yield stacked(decoded, modality)
                decoded.clear()
        if decoded:
            yield stacked(decoded, modality)

    return principal_components(modality.raw_features(parts(), rng), DIMENSIONS, rng)


if __name__ == "__main__":
    main()

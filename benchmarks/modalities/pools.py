"""Pools of recordings, graphs and texts, decoded as a project decodes them by default."""

import csv
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from torch import Tensor

from service.content import contents, limits_of
from service.settings import Settings
from worker.arrays import Bools, Ints
from worker.modalities import Modality, modalities

DATA = Path(__file__).parents[3] / "shared" / "data"
_TESTED = 1 / 3  # of the items, where no group is
_UNHEARD = ("theo", "yweweler")  # speakers of the test items
_FACTS = 512


class Missing(Exception):
    """The data of a pool are not on this machine; the sentence says where they belong."""


@dataclass(frozen=True)
class Pool:
    """items (n, *item_shape) as decoded, classes (n,), test (n,) which are tested and never trained on."""

    modality: Modality
    items: Tensor
    classes: Ints
    test: Bools

    @property
    def n_classes(self) -> int:
        return int(self.classes.max()) + 1


def _file(name: str) -> Path:
    path = DATA / name
    if not path.exists():
        raise Missing(f"{path.name} is missing: it belongs in ../shared/data/{name}.")
    return path


def _pool(kind: str, data: list[bytes], labels: list[str], test: Bools | None = None) -> Pool:
    limits, device = limits_of(Settings()), torch.device("cpu")
    _, classes = np.unique(labels, return_inverse=True)
    rng = np.random.default_rng(0)
    if test is None:
        test = rng.permutation(len(data)) < round(_TESTED * len(data))
    some = rng.permutation(np.flatnonzero(~test))[:_FACTS]
    facts = [contents()[kind].inspect(data[row], limits) for row in some]
    modality = modalities()[kind]().resolved(facts, device)
    items = torch.stack([modality.decode(one, limits)[0] for one in data])
    return Pool(modality, items, classes.astype(np.int64), test)


def spoken_digits(by_speaker: bool = False) -> Pool:
    """3,000 digits by six speakers (Free Spoken Digit Dataset, CC BY-SA 4.0); tested by two that the pool has not."""
    rows = pq.read_table(_file("fsdd/recordings.parquet")).to_pylist()
    speakers = np.isin([row["speaker"] for row in rows], _UNHEARD) if by_speaker else None
    return _pool("audio", [row["audio"] for row in rows], [row["label"] for row in rows], speakers)


def graphs(name: str) -> Pool:
    """MUTAG (188 molecules) and PROTEINS (1,113), of two classes each (TU Dortmund, http://graphlearning.io)."""
    lines = iter(_file(f"graphs/{name}.txt").read_text().splitlines())
    made = [_graph(lines) for _ in range(int(next(lines)))]
    return _pool("graph", [data for data, _ in made], [label for _, label in made])


def _graph(lines: Iterator[str]) -> tuple[bytes, str]:
    """A line `nodes class`, then a line a node: `tag degree neighbour…`."""
    count, label = next(lines).split()[:2]
    nodes, edges = [], []
    for node in range(int(count)):
        tag, degree, *rest = map(int, next(lines).split())
        nodes.append({"id": node, "tag": str(tag)})
        edges += [[node, other] for other in rest[:degree] if node < other]
    return json.dumps({"nodes": nodes, "edges": edges}).encode(), label


def subjectivity() -> Pool:
    """10,000 sentences, subjective or objective (Pang and Lee 2004, CC BY 4.0)."""
    with _file("subjectivity/sentences.csv").open(newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    return _pool("text", [row["text"].encode() for row in rows], [row["label"] for row in rows])


POOLS: dict[str, Callable[[], Pool]] = {
    "mutag": lambda: graphs("MUTAG"),
    "proteins": lambda: graphs("PROTEINS"),
    "spoken_digits": spoken_digits,
    "spoken_digits_by_speaker": lambda: spoken_digits(by_speaker=True),
    "subjectivity": subjectivity,
}

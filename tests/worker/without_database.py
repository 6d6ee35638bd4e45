"""All of computing on a few pictures, from files to a measured head, with plain data between its steps.

``python -m tests.worker.without_database <folder>`` goes all the way.
"""

import importlib
import pkgutil
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from service.settings import Settings
from service.store.artifacts import Artifacts
from tests.pictures import picture
from worker.engines import Engine, engines
from worker.evaluation.metrics import measure
from worker.heads.labeled_view import LabeledView
from worker.heads.linear import LinearHead
from worker.modalities.image import Image
from worker.models.nets import as_safetensors, new_net
from worker.models.spec import ModelSpec, input_of
from worker.pool.cache_room import CacheNames
from worker.pool.dataset import Dataset
from worker.pool.reader import ItemReader
from worker.pretraining.recipe import Recipe
from worker.pretraining.train import Callbacks, Trained, train
from worker.scoring.pool_scoring import PoolScoring, Shard, ShardItem
from worker.selection.pool_view import PoolView
from worker.strategies.shortlist import Shortlist

ROOMS = (
    "models",
    "selection",
    "strategies",
    "pretext",
    "modalities",
    "scoring",
    "heads",
    "pool",
    "evaluation",
    "engines",
    "pretraining",
)
ITEMS = Image(image_size=12)
SPEC = ModelSpec({"name": "rotation", "params": {}}, "small", input_of(ITEMS), seed=0)
COUNT, WEIGHTS = 16, "models/1.safetensors"

Arrays = dict[str, npt.NDArray[Any]]


def write_jpegs(folder: Path) -> list[str]:
    folder.mkdir()
    paths = [folder / f"{number:02}.jpg" for number in range(COUNT)]
    for number, path in enumerate(paths):
        picture(number).save(path)
    return [str(path) for path in paths]


def scoring_of(settings: Settings, artifacts: Artifacts, folder: Path) -> tuple[PoolScoring, list[Shard]]:
    """Of pictures in the folder, the last of which cannot be read, by a net that was never trained."""
    uris = write_jpegs(folder / "pool")
    Path(uris[-1]).write_bytes(b"no picture")
    with artifacts.writing(WEIGHTS) as file:
        file.write(as_safetensors(new_net(SPEC), SPEC, {}))
    return work_of(settings), shards_of(uris)


def work_of(settings: Settings) -> PoolScoring:
    return PoolScoring(
        name="scores/1",
        token=1,
        spec=SPEC,
        weights=WEIGHTS,
        other_weights=None,
        settings=settings,
        cache=CacheNames("1", frozenset({"1"})),
        earlier=(),
        items=COUNT,
    )


def shards_of(uris: Sequence[str]) -> list[Shard]:
    """Four of them, of ids from 1 on."""
    items = [
        ShardItem(number, uri, key=Path(uri).name, in_pool=True, content_hash=None, half=0)
        for number, uri in enumerate(uris, 1)
    ]
    parts = [tuple(items[start : start + 4]) for start in range(0, len(items), 4)]
    return [Shard(part[0].id, part[-1].id, part, earlier=()) for part in parts]


def computed_shards(engine: Engine, work: PoolScoring, shards: list[Shard], artifacts: Artifacts) -> Arrays:
    """The arrays of all shards, in the order of the ids."""
    with closing(engine.map(work, iter(shards), device="cpu", processes=2)) as finished:
        stored = sorted(finished, key=lambda shard: shard.first)
    found: list[Arrays] = []
    for shard in stored:
        with np.load(artifacts.local_path(shard.artifact)) as arrays:
            found.append(dict(arrays))
    return {name: np.concatenate([part[name] for part in found]) for name in found[0]}


def import_all() -> list[str]:
    """Every module of the rooms that compute."""
    names = []
    for room in ROOMS:
        package = importlib.import_module(f"worker.{room}")
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            importlib.import_module(module.name)
            names.append(module.name)
    return names


def pretrain(uris: list[str], settings: Settings) -> Trained:
    """Two steps."""

    def unexpected(sentence: str) -> None:
        raise AssertionError(sentence)

    with ItemReader(settings) as reader:
        dataset = Dataset(COUNT, lambda rows: reader.stack([uris[row] for row in rows], ITEMS))
        recipe = Recipe(epochs=1, batch_size=COUNT // 2, seed=0)
        callbacks = Callbacks(
            save=lambda state: None,
            save_interval_s=60,
            report=lambda fraction, message: None,
            warn=unexpected,
        )
        sample = reader.stack(uris, ITEMS)
        return train(
            SPEC, recipe, new_net(SPEC), dataset, sample, {}, torch.device("cpu"), callbacks, resume=None
        )


def main(folder: Path) -> None:
    assert len(import_all()) > len(ROOMS)
    settings = Settings(data_dir=folder / "data", source_roots=(str(folder),), device="cpu", threads=1)
    artifacts = Artifacts(settings.artifacts, settings.data_dir / "cache")
    uris = write_jpegs(folder / "pool")

    trained = pretrain(uris, settings)
    assert len(trained.history) == 1
    with artifacts.writing(WEIGHTS) as file:
        file.write(as_safetensors(trained.net, SPEC, {}))

    work, shards = work_of(settings), shards_of(uris)
    by_engine = {name: computed_shards(kind(), work, shards, artifacts) for name, kind in engines().items()}
    scored = by_engine.pop("local")
    assert scored["ids"].tolist() == list(range(1, COUNT + 1))
    for name, others in by_engine.items():
        for array, values in scored.items():
            assert np.array_equal(others[array], values), f"{array} by {name}"

    classes = np.arange(COUNT) % 2
    pool = PoolView(
        embeddings=scored["embeddings"],
        pretext_losses=scored["losses"],
        available=np.ones(COUNT, np.bool_),
        classes=np.full(COUNT, -1),
        probabilities=None,
        n_classes=2,
        round_size=8,
        labels_used=0,
        appearance=ITEMS.sketcher.appearance(scored["sketches"]),
    )
    rng = np.random.default_rng(0)
    picks = Shortlist().select(pool, 8, rng).items
    assert len(set(picks.tolist())) == 8

    head = LinearHead().fit(LabeledView(scored["embeddings"][picks], classes[picks], 2), rng)
    measures = measure(head.probabilities(scored["embeddings"]), classes)
    assert measures.items == COUNT
    assert "sqlalchemy" not in sys.modules


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""A folder of generated JPEGs, and what scores it as job score_pool does, without a database."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from service.settings import Settings
from service.store.artifacts import Artifacts
from worker.models.nets import as_safetensors, new_net
from worker.models.spec import ModelSpec
from worker.pool.cache_room import CacheNames
from worker.scoring.pool_scoring import Loaded, OpenPoolScoring, PoolScoring, Shard, ShardItem, StoredShard

_QUALITY = 90
_CONTRAST = 50.0  # standard deviation, of 255 levels


def pictures(folder: Path, count: int, side: int) -> list[Path]:
    """JPEG files: noise with the spectrum of photographs (amplitude 1/f), which costs a decoder what these do."""
    folder.mkdir(parents=True)
    paths = [folder / f"{number:06}.jpg" for number in range(count)]

    def make(number: int) -> None:
        Image.fromarray(_picture(side, number)).save(paths[number], quality=_QUALITY)

    with ThreadPoolExecutor(os.cpu_count()) as threads:
        list(threads.map(make, range(count)))
    return paths


def _picture(side: int, seed: int) -> npt.NDArray[np.uint8]:
    rng = np.random.default_rng(seed)
    frequencies = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None])
    amplitudes = 1 / np.maximum(frequencies, 1 / side)[..., None]
    phases = np.exp(2j * np.pi * rng.random((side, side // 2 + 1, 3)))
    values = np.fft.irfft2(amplitudes * phases, s=(side, side), axes=(0, 1))
    levels: npt.NDArray[np.float64] = _CONTRAST * values / values.std() + 128
    return levels.clip(0, 255).astype(np.uint8)


@dataclass(frozen=True)
class Pool:
    paths: list[Path]
    settings: Settings
    artifacts: Artifacts

    @classmethod
    def of(cls, paths: list[Path], data_dir: Path, repeat: int = 1) -> Self:
        """repeat: of each file so many items, where a longer run is wanted than there are files."""
        roots = (str(paths[0].parent.resolve()),)
        settings = Settings(data_dir=data_dir, source_roots=roots)
        artifacts = Artifacts(settings.artifacts, settings.data_dir / "cache")
        return cls([path.resolve() for path in paths] * repeat, settings, artifacts)

    @property
    def uris(self) -> list[str]:
        return [str(path) for path in self.paths]

    def shards(self, size: int) -> list[Shard]:
        items = [ShardItem(n + 1, uri, uri, True, 0) for n, uri in enumerate(self.uris)]
        parts = [items[start : start + size] for start in range(0, len(items), size)]
        return [Shard(part[0].id, part[-1].id, tuple(part), ()) for part in parts]

    def scoring(self, spec: ModelSpec, device: str) -> PoolScoring:
        """By an untrained network: timing needs no other."""
        token = len(list(self.settings.data_dir.glob("artifacts/*.safetensors")))
        weights = f"{token}.safetensors"
        with self.artifacts.writing(weights) as file:
            file.write(as_safetensors(new_net(spec), spec, {}))
        return PoolScoring(
            name=f"scores/{token}",
            token=token,
            spec=spec,
            weights=weights,
            other_weights=None,
            settings=self.settings.model_copy(update={"device": device}),
            cache=CacheNames("none", frozenset()),
            earlier=(),
            items=len(self.paths),
        )

    def stored(self, shard: StoredShard) -> dict[str, npt.NDArray[Any]]:
        with np.load(self.artifacts.local_path(shard.artifact)) as arrays:
            return dict(arrays)


@dataclass(frozen=True)
class Opened:
    """A `Work` that is open already, and stays so: building and tuning are not what is timed."""

    running: OpenPoolScoring

    def open(self, device: str) -> Self:
        return self

    def load(self, shard: Shard) -> Loaded:
        return self.running.load(shard)

    def compute(self, loaded: Loaded) -> StoredShard:
        return self.running.compute(loaded)

    def close(self) -> None:
        """The next round goes on with it."""


def jpegs(paths: Sequence[Path]) -> list[torch.Tensor]:
    """Their bytes, (n,) uint8 each, as torchvision wants them."""
    return [torch.from_numpy(np.fromfile(path, np.uint8)) for path in paths]

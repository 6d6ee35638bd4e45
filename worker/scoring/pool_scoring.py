"""Scoring a pool, shard by shard: what runs where the device is, and knows no database.

Eval mode, no augmentation: an item's loss does not depend on what else is in its batch or shard. Out of fold an
item's loss is of the network that was not trained on it; all embeddings are of one network, or they would lie in two
spaces. What earlier runs of the same model know is copied.
"""

from dataclasses import dataclass, fields, replace

import numpy as np
import structlog
import torch
from torch import Tensor, nn

from service.errors import ItemNotFetched
from service.settings import Settings
from service.store.artifacts import Artifacts
from worker.arrays import Bools, Bytes, Floats, Halves, Ints, Spans, no_spans
from worker.device import Sent, available_cores, send, to_device
from worker.errors import JobFailed
from worker.models.fold_batch_norm import folded
from worker.models.nets import load_net, on_device
from worker.models.spec import ModelSpec
from worker.pool.cache_room import CacheNames, PoolCache
from worker.pool.items import ItemRef
from worker.pool.reader import Decoded, ItemReader, stacked
from worker.scoring.autotune import Way, quickest
from worker.scoring.foundation_net import FoundationNet
from worker.scoring.score import Scored, score
from worker.scoring.scored_items import (
    ScoredItems,
    open_marks,
    open_parts,
    open_sketches,
    open_spreads,
)

_BATCH = {"cpu": 64, "cuda": 512}
_BATCHES = {"cpu": (32, 128, 256), "cuda": (256, 1_024)}  # that may be quicker
_WORTH_TUNING = 4_096  # items; for fewer the search takes longer than it saves
_TUNING_S = 3.0

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class ShardItem(ItemRef):
    """half: of the pool, out of fold"""

    key: str
    in_pool: bool
    half: int


@dataclass(frozen=True)
class Shard:
    """Items of a range of ids, first and last included; it stays the same when the run is resumed. `earlier` (n,)
    each: by earlier run, the ids of equal items there, -1 where there is none.
    """

    first: int
    last: int
    items: tuple[ShardItem, ...]
    earlier: tuple[Ints, ...]


@dataclass(frozen=True)
class Loaded:
    """A shard ready for the device.

    `losses` and `spreads` (n,), `embeddings` (n, d), `pretrained` (n, p) and `marks` (n, k, 2) are filled where an
    earlier run knows them, `sketches` (n, f) everywhere; `decoded` (m, *item_shape) are the items of the rows `to_do`
    (m,), `for_foundation` the same as the foundation sees them, none where there is no foundation. What is in neither
    could not be decoded.
    """

    shard: Shard
    losses: Floats
    spreads: Floats
    embeddings: Halves
    pretrained: Halves
    sketches: Bytes
    marks: Spans
    known: Bools
    to_do: Ints
    decoded: Sent
    for_foundation: Tensor
    learned: dict[int, Decoded]  # by item id, without the item: what the database does not know yet


@dataclass(frozen=True)
class StoredShard:
    """artifact  npz: ids (n,) int64, pool (n,) bool, losses and spreads (n,) float32, embeddings (n, d) float16,
    pretrained (n, p) float16, p = 0 without a foundation, sketches (n, f) uint8, marks (n, k, 2) int32, k = 0 where
    losses are not of tokens
    """

    first: int
    last: int
    artifact: str
    items: int
    learned: dict[int, Decoded]


@dataclass(frozen=True, kw_only=True)
class PoolScoring:
    """A `Work`.

    name      of the folder of the shards' artifacts
    token     makes the names of this attempt its own
    weights   artifact of the network; other_weights: out of fold, of the one that was trained on the other half
    earlier   artifacts of complete runs of the same model
    foundation  artifact of the weights of the modality's foundation; None where the model stands alone
    items     to score, about: whether finding the quickest way to do it pays
    """

    name: str
    token: int
    spec: ModelSpec
    weights: str
    other_weights: str | None
    settings: Settings
    cache: CacheNames
    earlier: tuple[str, ...]
    items: int
    foundation: str | None = None

    def open(self, device: str) -> "OpenPoolScoring":
        return OpenPoolScoring(self, torch.device(device))


class OpenPoolScoring:
    def __init__(self, work: PoolScoring, device: torch.device) -> None:
        self._work, self._device = work, device
        settings = work.settings
        self._artifacts = Artifacts(settings.artifacts, settings.data_dir / "cache")
        self._task, self.modality = work.spec.make_task(), work.spec.make_modality()
        self._layer = work.spec.layer
        self.net = self._load(work.weights)
        # Out of fold: trained on the other half of the pool, so it scores the half that `net` was trained on.
        self._other_net = self._load(work.other_weights) if work.other_weights else None
        self._reader = ItemReader(settings)
        self._cache = PoolCache(settings, work.cache, self._reader, self.modality)
        self._earlier = [_EarlierRun.open(self._artifacts, artifact) for artifact in work.earlier]
        self._kind = "cpu" if device.type == "cpu" else "cuda"
        self.batch = _BATCH[self._kind]
        self._foundation = self._load_foundation(work.foundation) if work.foundation else None
        one = self.modality.dummy(1)
        scored = self._score(one, torch.ones(1))
        self.dimensions, self._marked = scored.embeddings.shape[1], scored.hardest.shape[1]
        sketcher = self.modality.sketcher
        self._sketch_width = sketcher.sketch(one).shape[1] if sketcher is not None else 0
        self._tune(work.items)

    def close(self) -> None:
        self._reader.__exit__()

    def _load(self, weights: str) -> nn.Module:
        """On the device, its batch norms folded."""
        with self._artifacts.open(weights) as file:
            net = load_net(self._work.spec, file.read(), torch.device("cpu"))
        some = self.modality.prepare(self.modality.dummy(4))

        def run(either: nn.Module) -> Tensor:
            found = score(either, self._task, some, self._layer)
            return torch.cat([found.losses, found.embeddings.flatten()])  # of a layer that folding may change

        return on_device(folded(net, run), self._device)

    def _load_foundation(self, weights: str) -> FoundationNet:
        return FoundationNet.open(self._artifacts, weights, self.modality, self._device)

    def _tune(self, items: int) -> None:
        """Find out how this device scores quickest, if there are enough items to score."""
        if items < _WORTH_TUNING:
            return
        threads = self._work.settings.threads or available_cores()
        dummies = send(self.modality.dummy(max(self.batch, *_BATCHES[self._kind])), self._device).arrived()

        def run(way: Way) -> None:
            torch.set_num_threads(way.threads)
            self._score(dummies[: way.batch], torch.ones(way.batch)).losses.cpu()

        fewer = () if self._work.settings.threads or self._kind != "cpu" else (max(1, threads // 2),)
        way = quickest(Way(self.batch, threads), _BATCHES[self._kind], fewer, run, _TUNING_S)
        torch.set_num_threads(way.threads)
        self.batch = way.batch
        log.info("scoring", batch=way.batch, threads=way.threads)

    def load(self, shard: Shard) -> Loaded:
        """Raises `ItemNotFetched` where bytes are out of reach: nobody's items are given up for that."""
        items = shard.items
        losses, spreads = np.zeros((2, len(items)), np.float32)
        embeddings = np.zeros((len(items), self.dimensions), np.float16)
        foundation = self._foundation
        pretrained = np.zeros((len(items), foundation.dimensions if foundation else 0), np.float16)
        sketches = np.zeros((len(items), self._sketch_width), np.uint8)
        marks = no_spans(len(items), self._marked)
        known = np.zeros(len(items), np.bool_)
        for earlier, theirs in zip(self._earlier, shard.earlier, strict=True):
            rows = earlier.scored.where(theirs)
            fill = (rows >= 0) & ~known
            losses[fill] = earlier.scored.losses[rows[fill]]
            spreads[fill] = earlier.spreads[rows[fill]]
            embeddings[fill] = earlier.trained[rows[fill]]
            if earlier.pretrained is not None and foundation is not None:
                pretrained[fill] = earlier.pretrained[rows[fill]]
            sketches[fill] = earlier.sketches[rows[fill]]
            if earlier.marks is not None and earlier.marks.shape[1:] == marks.shape[1:]:
                marks[fill] = earlier.marks[rows[fill]]
            known |= fill
        open_rows = np.flatnonzero(~known)
        decoded = self._decode([items[row] for row in open_rows])
        for row, one in zip(open_rows, decoded, strict=True):
            if not one.fetched:
                raise ItemNotFetched(key=items[row].key, reason=str(one.reason).rstrip("."))
        to_do = open_rows[[one.item is not None for one in decoded]]
        good = stacked([one.item for one in decoded if one.item is not None], self.modality)
        sketcher = self.modality.sketcher
        if len(to_do) and sketcher is not None:
            sketches[to_do] = sketcher.sketch(good)
        return Loaded(
            shard,
            losses,
            spreads,
            embeddings,
            pretrained,
            sketches,
            marks,
            known,
            to_do=to_do,
            decoded=send(good, self._device),
            for_foundation=self._decode_again([items[row] for row in to_do]),
            learned={
                items[row].id: replace(one, item=None)
                for row, one in zip(open_rows, decoded, strict=True)
                if one.item is None or items[row].content_hash is None
            },
        )

    def _decode_again(self, items: list[ShardItem]) -> Tensor:
        """(m, *item_shape) as the foundation sees them. They were readable a moment ago."""
        if self._foundation is None:
            return torch.empty(0)
        decoded = self._reader.decode([item.uri for item in items], self._foundation.modality)
        for item, one in zip(items, decoded, strict=True):
            if one.item is None:
                raise ItemNotFetched(key=item.key, reason=str(one.reason).rstrip("."))
        return stacked([one.item for one in decoded if one.item is not None], self._foundation.modality)

    def _decode(self, items: list[ShardItem]) -> list[Decoded]:
        """From the cache where the database knows all that decoding would tell."""
        told = [row for row, item in enumerate(items) if item.content_hash is not None]
        cached = {
            told[place]: item for place, item in self._cache.known([items[row] for row in told]).items()
        }
        others = [item for row, item in enumerate(items) if row not in cached]
        decoded = iter(self._reader.decode_items(others, self.modality))
        return [
            Decoded(cached[row], None, item.content_hash) if row in cached else next(decoded)
            for row, item in enumerate(items)
        ]

    def compute(self, loaded: Loaded) -> StoredShard:
        """Raises `JobFailed` for an item whose loss or embedding is not a number."""
        shard, scored = loaded.shard, loaded.known.copy()
        scored[loaded.to_do] = True
        if len(loaded.to_do):
            self._fill(loaded)
            if self._foundation is not None:
                loaded.pretrained[loaded.to_do] = self._foundation.embeddings(loaded.for_foundation)
        name = f"{self._work.name}/shard-{shard.first}-{self._work.token}.npz"
        with self._artifacts.writing(name) as file:
            np.savez(
                file,
                ids=np.array([item.id for item in shard.items], np.int64)[scored],
                pool=np.array([item.in_pool for item in shard.items], np.bool_)[scored],
                losses=loaded.losses[scored],
                spreads=loaded.spreads[scored],
                embeddings=loaded.embeddings[scored],
                pretrained=loaded.pretrained[scored],
                sketches=loaded.sketches[scored],
                marks=loaded.marks[scored],
            )
        return StoredShard(shard.first, shard.last, name, int(scored.sum()), loaded.learned)

    def _fill(self, loaded: Loaded) -> None:
        """With what the network says; it is copied from the device once, so that no batch is waited for."""
        rows, items = loaded.to_do, loaded.decoded.arrived()
        halves = torch.tensor([loaded.shard.items[row].half for row in rows])
        parts: list[Scored] = []
        start = 0
        while start < len(rows):
            part = items[start : start + self.batch]
            try:
                parts.append(self._score(part, halves[start : start + self.batch]))
            except torch.OutOfMemoryError:
                self.batch = len(part) // 2
                torch.cuda.empty_cache()
                log.warning("out of memory, scoring goes on in smaller batches", batch=self.batch)
                continue
            start += len(part)
        losses, spreads, embeddings, hardest = (
            torch.cat([getattr(part, field.name) for part in parts]).cpu() for field in fields(Scored)
        )
        finite = losses.isfinite() & embeddings.isfinite().all(1)
        if not finite.all():
            item = loaded.shard.items[rows[~finite.numpy()][0]]
            raise JobFailed(
                f"The pretext model gives no number for the item {item.key!r}. Look at it and withdraw it, or "
                "pretrain again with another backbone."
            )
        loaded.losses[rows], loaded.spreads[rows] = losses.numpy(), spreads.numpy()
        loaded.embeddings[rows] = embeddings.numpy()
        if self._marked:
            scored = [loaded.shard.items[row] for row in rows]
            loaded.marks[rows] = self._reader.spans(scored, self.modality, hardest.numpy())

    def _score(self, items: Tensor, halves: Tensor) -> Scored:
        """Decoded items (b, *item_shape), (b,) the half of each -> on the device, embeddings as float16.

        Raises `JobFailed` where not even one item fits into the device's memory.
        """
        try:
            return self._scored(items, halves)
        except torch.OutOfMemoryError as error:
            if len(items) > 1:
                raise
            raise JobFailed(
                "Scoring a single item needs more memory than the device has. Set smaller items (image_size) or a "
                "smaller backbone, and pretrain again."
            ) from error

    def _scored(self, items: Tensor, halves: Tensor) -> Scored:
        batch = self.modality.prepare(to_device(items, self._device))
        found = score(self.net, self._task, batch, self._layer)
        losses, spreads, hardest = found.losses, found.spreads, found.hardest
        known = torch.nonzero(halves == 0)[:, 0].to(self._device)
        if self._other_net is not None and len(known):
            unseen = score(self._other_net, self._task, batch[known])
            losses[known], spreads[known], hardest[known] = unseen.losses, unseen.spreads, unseen.hardest
        return Scored(losses, spreads, found.embeddings.half(), hardest)


@dataclass(frozen=True)
class _EarlierRun:
    """trained (n, d): by the pretext model; pretrained (n, p), None where the run had no foundation."""

    scored: ScoredItems
    trained: Halves
    pretrained: Halves | None
    spreads: Floats
    sketches: Bytes
    marks: Spans | None

    @staticmethod
    def open(artifacts: Artifacts, artifact: str) -> "_EarlierRun":
        scored = ScoredItems.open(artifacts, artifact)
        parts = open_parts(artifacts, artifact)
        trained, pretrained = parts if parts is not None else (scored.embeddings, None)
        return _EarlierRun(
            scored,
            trained,
            pretrained,
            open_spreads(artifacts, artifact),
            open_sketches(artifacts, artifact),
            open_marks(artifacts, artifact),
        )

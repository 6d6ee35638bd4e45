"""Scoring one shard of a score run: what an engine calls for each."""

from dataclasses import dataclass, replace

import numpy as np
import sqlalchemy as sa
import structlog
import torch
from torch import Tensor, nn

from service.errors import ItemNotFetched
from service.store.tables import Item, PretextModel, ScoreRun
from worker.arrays import Bools, Floats, Halves, Ints
from worker.device import available_cores, to_device
from worker.jobs.context import JobContext, JobFailed
from worker.jobs.pretext_net import load_net, on_device, task_of
from worker.jobs.specs import ScoredItems, open_spreads, open_thumbnails
from worker.jobs.train_pretext.pool import half_of
from worker.modalities.image.pixels import normalised
from worker.modalities.image.sketches import Thumbnails, thumbnails, width
from worker.models.fold_batch_norm import folded
from worker.pool.cache_room import PoolPixels
from worker.pool.reader import Decoded, ItemPixels
from worker.scoring.autotune import Way, quickest
from worker.scoring.score import Scored, score

SCORED_STATES = ("available", "done", "broken")
_BATCH = {"cpu": 64, "cuda": 512}
_BATCHES = {"cpu": (32, 128, 256), "cuda": (256, 1_024)}  # that may be quicker
_WORTH_TUNING = 4_096  # items; for fewer the search takes longer than it saves
_TUNING_S = 3.0

log = structlog.get_logger()

_ItemRow = sa.Row[int, str, str, str, str | None, int]  # id, key, uri, split, content_hash, shuffle


@dataclass(frozen=True)
class Shard:
    """A range of item ids, first and last included. It stays the same when the run is resumed."""

    first: int
    last: int


@dataclass(frozen=True)
class Loaded:
    """A shard ready for the device.

    `losses` and `spreads` (n,), `embeddings` (n, d) and `thumbnails` (n, f) are filled where an earlier run knows
    them; `pixels` (m, 3, s, s) are those of the rows `to_do` (m,). What is in neither could not be decoded.
    """

    shard: Shard
    items: list[_ItemRow]
    losses: Floats
    spreads: Floats
    embeddings: Halves
    thumbnails: Thumbnails
    known: Bools
    to_do: Ints
    pixels: Tensor
    learned: dict[int, Decoded]  # by item id, without pixels: what the database does not know yet


@dataclass(frozen=True)
class Stored:
    shard: Shard
    # npz: ids (n,) int64, pool (n,) bool, losses and spreads (n,) float32, embeddings (n, d) float16,
    # thumbnails (n, f) uint8
    artifact: str
    items: int
    learned: dict[int, Decoded]


class ShardScorer:
    """Eval mode, no augmentation: an item's loss does not depend on what else is in its batch or shard.

    Out of fold an item's loss is of the network that was not trained on it; all embeddings are of one network,
    or they would lie in two spaces.
    """

    def __init__(
        self,
        context: JobContext,
        score_run: ScoreRun,
        model: PretextModel,
        item_pixels: ItemPixels,
        device: torch.device,
    ) -> None:
        self._context = context
        self._score_run = score_run
        self._task = task_of(model)
        self._layer: str | None = model.config.get("layer")
        self.image_size: int = model.config["image_size"]
        self._device = device
        self.net = self._load(model)
        # Out of fold: trained on the other half of the pool, so it scores the half that `net` was trained on.
        self._other_net = self._load(model, other_half=True) if model.config.get("out_of_fold") else None
        self._pixels, self._mapped = item_pixels, PoolPixels(context, item_pixels, self.image_size)
        self._kind = "cpu" if device.type == "cpu" else "cuda"
        self.batch = _BATCH[self._kind]
        self._earlier = _earlier_runs(context, score_run)
        self.dimensions = self._score(self._noise(1), torch.ones(1)).embeddings.shape[1]

    def _load(self, model: PretextModel, other_half: bool = False) -> nn.Module:
        """On the device, its batch norms folded."""
        net = load_net(model, self._context.artifacts, torch.device("cpu"), other_half)
        some = normalised(self._noise(4))

        def run(either: nn.Module) -> Tensor:
            found = score(either, self._task, some, self._layer)
            return torch.cat([found.losses, found.embeddings.flatten()])  # of a layer that folding may change

        return on_device(folded(net, run), self._device)

    def tune(self, items: int) -> None:
        """Find out how this device scores quickest, if there are enough items to score."""
        if items < _WORTH_TUNING:
            return
        threads = self._context.settings.threads or available_cores()
        noise = self._noise(max(self.batch, *_BATCHES[self._kind]))

        def run(way: Way) -> None:
            torch.set_num_threads(way.threads)
            self._score(noise[: way.batch], torch.ones(way.batch))

        fewer = () if self._context.settings.threads or self._kind != "cpu" else (max(1, threads // 2),)
        way = quickest(Way(self.batch, threads), _BATCHES[self._kind], fewer, run, _TUNING_S)
        torch.set_num_threads(way.threads)
        self.batch = way.batch
        log.info("scoring", batch=way.batch, threads=way.threads)

    def _noise(self, items: int) -> Tensor:
        """(n, 3, s, s) uint8"""
        generator = torch.Generator().manual_seed(0)
        shape = (items, 3, self.image_size, self.image_size)
        return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)

    def load(self, shard: Shard) -> Loaded:
        """Raises `ItemNotFetched` where bytes are out of reach: nobody's items are given up for that."""
        with self._context.read() as session:
            items = list(
                session.execute(
                    sa.select(Item.id, Item.key, Item.uri, Item.split, Item.content_hash, Item.shuffle)
                    .where(Item.project_id == self._score_run.project_id, Item.state.in_(SCORED_STATES))
                    .where(Item.id.between(shard.first, min(shard.last, self._score_run.last_item_id)))
                    .order_by(Item.id)
                )
            )
        losses, spreads = np.zeros((2, len(items)), np.float32)
        embeddings = np.zeros((len(items), self.dimensions), np.float16)
        small = np.zeros((len(items), width(self.image_size)), np.uint8)
        known = np.zeros(len(items), np.bool_)
        for earlier in self._earlier:
            rows = earlier.rows(self._context, self._score_run.project_id, shard, items)
            fill = (rows >= 0) & ~known
            losses[fill] = earlier.scored.losses[rows[fill]]
            spreads[fill] = earlier.spreads[rows[fill]]
            embeddings[fill] = earlier.scored.embeddings[rows[fill]]
            small[fill] = earlier.thumbnails[rows[fill]]
            known |= fill
        open_rows = np.flatnonzero(~known)
        decoded = self._decode([items[row] for row in open_rows])
        for row, one in zip(open_rows, decoded, strict=True):
            if not one.fetched:
                raise ItemNotFetched(key=items[row].key, reason=str(one.reason).rstrip("."))
        good = [one.pixels for one in decoded if one.pixels is not None]
        return Loaded(
            shard,
            items,
            losses,
            spreads,
            embeddings,
            small,
            known,
            to_do=open_rows[[one.pixels is not None for one in decoded]],
            pixels=torch.stack(good) if good else torch.empty(0),
            learned={
                items[row].id: replace(one, pixels=None)
                for row, one in zip(open_rows, decoded, strict=True)
                if one.pixels is None or items[row].content_hash is None
            },
        )

    def _decode(self, items: list[_ItemRow]) -> list[Decoded]:
        """From the map where the database knows all that decoding would tell."""
        told = [row for row, item in enumerate(items) if item.content_hash is not None]
        mapped = {
            told[place]: pixels for place, pixels in self._mapped.known([items[row] for row in told]).items()
        }
        others = [item.uri for row, item in enumerate(items) if row not in mapped]
        decoded = iter(self._pixels.decode(others, self.image_size))
        return [
            Decoded(mapped[row], None, item.content_hash) if row in mapped else next(decoded)
            for row, item in enumerate(items)
        ]

    def compute(self, loaded: Loaded) -> Stored:
        """Raises `JobFailed` for an item whose loss or embedding is not a number."""
        scored = loaded.known.copy()
        scored[loaded.to_do] = True
        if len(loaded.to_do):
            loaded.thumbnails[loaded.to_do] = thumbnails(loaded.pixels)
        start = 0
        while start < len(loaded.to_do):
            rows = loaded.to_do[start : start + self.batch]
            halves = torch.tensor([half_of(loaded.items[row].shuffle) for row in rows])
            try:
                found = self._score(loaded.pixels[start : start + self.batch], halves)
            except torch.OutOfMemoryError:
                self.batch //= 2
                torch.cuda.empty_cache()
                log.warning("out of memory, scoring goes on in smaller batches", batch=self.batch)
                continue
            start += len(rows)
            finite = found.losses.isfinite() & found.embeddings.isfinite().all(1)
            if not finite.all():
                item = loaded.items[rows[~finite.numpy()][0]]
                raise JobFailed(
                    f"The pretext model gives no number for the item {item.key!r}. Look at its image and "
                    "withdraw it, or pretrain again with another backbone."
                )
            loaded.losses[rows] = found.losses.numpy()
            loaded.spreads[rows] = found.spreads.numpy()
            loaded.embeddings[rows] = found.embeddings.numpy()
        name = f"scores/{self._score_run.id}/shard-{loaded.shard.first}-{self._context.job.token}.npz"
        with self._context.artifacts.writing(name) as file:
            np.savez(
                file,
                ids=np.array([item.id for item in loaded.items], np.int64)[scored],
                pool=np.array([item.split == "pool" for item in loaded.items], np.bool_)[scored],
                losses=loaded.losses[scored],
                spreads=loaded.spreads[scored],
                embeddings=loaded.embeddings[scored],
                thumbnails=loaded.thumbnails[scored],
            )
        return Stored(loaded.shard, name, int(scored.sum()), loaded.learned)

    def _score(self, pixels: Tensor, halves: Tensor) -> Scored:
        """(b, 3, s, s) uint8, (b,) the half of each -> on the CPU, embeddings as float16.

        Raises `JobFailed` where not even one item fits into the device's memory.
        """
        try:
            return self._scored(normalised(to_device(pixels, self._device)), halves)
        except torch.OutOfMemoryError as error:
            if len(pixels) > 1:
                raise
            raise JobFailed(
                f"Scoring one image of {self.image_size} pixels needs more memory than the device has. Set a "
                "smaller image_size or backbone, and pretrain again."
            ) from error

    def _scored(self, batch: Tensor, halves: Tensor) -> Scored:
        found = score(self.net, self._task, batch, self._layer)
        losses, spreads = found.losses.cpu(), found.spreads.cpu()
        known = halves == 0
        if self._other_net is not None and known.any():
            unseen = score(self._other_net, self._task, batch[known.to(batch.device)])
            losses[known], spreads[known] = unseen.losses.cpu(), unseen.spreads.cpu()
        return Scored(losses, spreads, found.embeddings.half().cpu())


@dataclass(frozen=True)
class _EarlierRun:
    """A complete run of the same pretext model, of this project or of the model's own."""

    project_id: int
    scored: ScoredItems
    spreads: Floats
    thumbnails: Thumbnails

    def rows(self, context: JobContext, project_id: int, shard: Shard, items: list[_ItemRow]) -> Ints:
        """(n,) the rows of equal items, -1 where there is none."""
        ids = np.array([item.id for item in items], np.int64)
        if project_id != self.project_id:
            theirs = self._equal_items(context, project_id, shard)
            ids = np.array([theirs.get(item_id, -1) for item_id in ids.tolist()], np.int64)
        return self.scored.where(ids)

    def _equal_items(self, context: JobContext, project_id: int, shard: Shard) -> dict[int, int]:
        mine, theirs = sa.orm.aliased(Item), sa.orm.aliased(Item)
        with context.read() as session:
            pairs = session.execute(
                sa.select(mine.id, theirs.id)
                .join(theirs, mine.content_hash == theirs.content_hash)
                .where(mine.project_id == project_id, mine.id.between(shard.first, shard.last))
                .where(theirs.project_id == self.project_id, theirs.state.in_(SCORED_STATES))
            )
            return {pair[0]: pair[1] for pair in pairs}


def _earlier_runs(context: JobContext, score_run: ScoreRun) -> list[_EarlierRun]:
    """The newest of each project."""
    with context.read() as session:
        model = session.get_one(PretextModel, score_run.pretext_model_id)
        complete = (
            sa.select(ScoreRun)
            .where(ScoreRun.pretext_model_id == model.id, ScoreRun.state == "complete")
            .order_by(ScoreRun.id)
        )
        newest = {run.project_id: run for run in session.scalars(complete)}
    return [
        _EarlierRun(
            project_id,
            ScoredItems.open(context.artifacts, newest[project_id]),
            open_spreads(context.artifacts, str(newest[project_id].artifact)),
            open_thumbnails(context.artifacts, str(newest[project_id].artifact)),
        )
        for project_id in dict.fromkeys((score_run.project_id, model.project_id))
        if project_id in newest
    ]

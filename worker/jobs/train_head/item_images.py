"""Scored items as images, and the backbone that embedded them: what heads that train on images are given."""

from collections.abc import Callable
from contextlib import closing

import numpy as np
import sqlalchemy as sa
import torch
from torch import Tensor, nn

from service.store.tables import Item, PretextModel, ScoreRun
from worker.arrays import Floats, Ints
from worker.device import choose_device
from worker.heads.images import FittedImageHead, Images
from worker.jobs.context import JobContext, JobFailed
from worker.jobs.pretext_net import load_net, task_of
from worker.jobs.specs import ScoredItems
from worker.models.layers import at_layer
from worker.pool.dataset import ahead
from worker.pool.reader import ItemPixels

_READ_AT_A_TIME = 512  # at 224 x 224 pixels, 77 MB
_PARTS_AHEAD = 2


class ItemImages:
    """rows are those of the scored items. Reads with the threads of `item_pixels`."""

    def __init__(
        self, context: JobContext, score_run: ScoreRun, scored: ScoredItems, item_pixels: ItemPixels
    ) -> None:
        with context.read() as session:
            self._model = session.get_one(PretextModel, score_run.pretext_model_id)
        self._context, self._ids, self._pixels = context, scored.ids, item_pixels
        self._device = choose_device(context.settings.device)
        self._image_size: int = self._model.config["image_size"]

    def for_training(self, labeled: Ints, report: Callable[[float, str], None]) -> Images:
        """With the labeled rows (n,). Raises `JobFailed` where none of their images can be read any more."""
        pixels = self.read(labeled)
        if not pixels.any():
            raise JobFailed(
                "No image of a labeled item can be read any more, and the project's head trains on images. "
                "Bring the source back, or choose a head that trains on embeddings."
            )
        return Images(
            labeled=pixels,
            read=self.read,
            backbone=self.backbone,
            device=self._device,
            flips=task_of(self._model).flips,
            report=report,
        )

    def backbone(self) -> nn.Module:
        net = load_net(self._model, self._context.artifacts, self._device)
        return at_layer(net.get_submodule("backbone"), self._model.config.get("layer"))

    def read(self, rows: Ints) -> Tensor:
        """(b,) -> (b, 3, s, s) uint8; black where an image cannot be read any more."""
        side = self._image_size
        pixels = torch.zeros((len(rows), 3, side, side), dtype=torch.uint8)
        for start in range(0, len(rows), _READ_AT_A_TIME):
            ids = self._ids[rows[start : start + _READ_AT_A_TIME]].tolist()
            with self._context.read() as session:
                found = session.execute(sa.select(Item.id, Item.uri).where(Item.id.in_(ids)))
                uris = {row.id: row.uri for row in found}
            known = [(start + place, uris[item]) for place, item in enumerate(ids) if item in uris]
            decoded = self._pixels.decode([uri for _, uri in known], side)
            for (place, _), one in zip(known, decoded, strict=True):
                if one.pixels is not None:
                    pixels[place] = one.pixels
        return pixels

    def probabilities_by(self, fitted: FittedImageHead, report: Callable[[float, str], None]) -> Floats:
        """(n, c) of all scored items: one pass over their images, of which only some are in memory."""
        n = len(self._ids)
        parts = (np.arange(start, min(start + _READ_AT_A_TIME, n)) for start in range(0, n, _READ_AT_A_TIME))
        found: list[Floats] = []
        done = 0
        with closing(ahead(map(self.read, parts), _PARTS_AHEAD)) as ready:
            for pixels in ready:
                found.append(fitted.probabilities_of(pixels))
                done += len(pixels)
                report(done / n, f"predicting, {done:,} of {n:,} items")
        return np.concatenate(found)

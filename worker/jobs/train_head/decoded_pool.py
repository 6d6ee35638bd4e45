"""Scored items themselves, decoded, and the network that embedded them: for heads that need items."""

from collections.abc import Callable
from contextlib import closing

import numpy as np
import torch
from torch import nn

from service.store.tables import PretextModel, ScoreRun
from worker.arrays import Floats, Ints
from worker.device import choose_device
from worker.errors import JobFailed
from worker.heads import FittedHead
from worker.heads.labeled_view import Decoded, ItemNetwork, LabeledItems
from worker.jobs.context import JobContext
from worker.jobs.specs import open_net, refs_of, spec_of
from worker.models.layers import at_layer
from worker.pool.dataset import ahead
from worker.pool.reader import ItemReader
from worker.scoring.scored_items import ScoredItems

_READ_AT_A_TIME = 512  # images of 224 x 224 pixels: 77 MB
_PARTS_AHEAD = 2


class DecodedPool:
    """Rows are those of the scored items. Reads with the threads of `reader`."""

    def __init__(
        self, context: JobContext, score_run: ScoreRun, scored: ScoredItems, reader: ItemReader
    ) -> None:
        with context.read() as session:
            self._model = session.get_one(PretextModel, score_run.pretext_model_id)
        self._context, self._ids, self._reader = context, scored.ids, reader
        self._modality = spec_of(self._model).make_modality()

    def labeled(self, rows: Ints, report: Callable[[float, str], None]) -> LabeledItems:
        """With the labeled rows (n,). Raises `JobFailed` where none of their items can be read any more."""
        labeled = self.read(rows)
        if not labeled.readable.any():
            raise JobFailed(
                "No labeled item can be read any more, and the project's head trains on the items themselves. "
                "Bring the source back, or choose a head that trains on embeddings."
            )
        device = choose_device(self._context.settings.device)
        return LabeledItems(
            network=ItemNetwork(
                backbone=lambda: self._backbone(device), prepare=self._modality.prepare, device=device
            ),
            labeled=labeled,
            read=self.read,
            augment=self._modality.augment,
            report=report,
        )

    def _backbone(self, device: torch.device) -> nn.Module:
        net = open_net(self._model, self._context.artifacts, device)
        return at_layer(net.get_submodule("backbone"), self._model.config.get("layer"))

    def read(self, rows: Ints) -> Decoded:
        """(b,) -> the b items."""
        items = torch.zeros((len(rows), *self._modality.item_shape), dtype=self._modality.dtype)
        readable = np.zeros(len(rows), np.bool_)
        for start in range(0, len(rows), _READ_AT_A_TIME):
            ids = self._ids[rows[start : start + _READ_AT_A_TIME]].tolist()
            with self._context.read() as session:
                refs = refs_of(session, np.array(ids, np.int64))
            known = [(start + place, refs[item]) for place, item in enumerate(ids) if item in refs]
            decoded = self._reader.decode_items([ref for _, ref in known], self._modality)
            for (place, _), one in zip(known, decoded, strict=True):
                if one.item is not None:
                    items[place], readable[place] = one.item, True
        return Decoded(items, readable)

    def probabilities_by(self, fitted: FittedHead, report: Callable[[float, str], None]) -> Floats:
        """(n, c) Probabilities of all scored items: one pass over them, of which only some are in memory. They mean
        nothing for an item that cannot be read any more.
        """
        n = len(self._ids)
        parts = (np.arange(start, min(start + _READ_AT_A_TIME, n)) for start in range(0, n, _READ_AT_A_TIME))
        found: list[Floats] = []
        done = 0
        with closing(ahead(map(self.read, parts), _PARTS_AHEAD)) as ready:
            for part in ready:
                found.append(fitted.probabilities(part.items))
                done += len(part.items)
                report(done / n, f"predicting, {done:,} of {n:,} items")
        return np.concatenate(found)

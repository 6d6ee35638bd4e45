"""A foundation that computes: decoded items to embeddings."""

from typing import Self

import numpy as np
import safetensors.torch
import torch
from torch import Tensor, nn

from service.store.artifacts import Artifacts
from worker.arrays import Halves
from worker.device import autocast, to_device
from worker.errors import JobFailed, Unsuited
from worker.modalities import Modality
from worker.modalities.foundation import usable
from worker.models.fold_batch_norm import folded
from worker.models.nets import on_device

_TOLERANCE = 1e-4  # of folding dozens of norms; embeddings are stored as float16


class FoundationNet:
    """modality: as it decodes items for this network; dimensions: of its embeddings"""

    def __init__(self, net: nn.Module, modality: Modality, batch: int, device: torch.device) -> None:
        self.modality, self._batch, self._device = modality, batch, device
        few = modality.dummy(2)
        self._net = on_device(folded(net, lambda either: either(few), _TOLERANCE), device)
        self.dimensions = self.embeddings(few[:1]).shape[1]

    @classmethod
    def open(cls, artifacts: Artifacts, weights: str, modality: Modality, device: torch.device) -> Self:
        """weights: safetensors, an artifact"""
        with artifacts.open(weights) as file:
            return cls.of(file.read(), modality, device)

    @classmethod
    def of(cls, weights: bytes, modality: Modality, device: torch.device) -> Self:
        """Raises `Unsuited` where the network cannot compute here."""
        foundation = modality.foundation
        if foundation is None:
            raise JobFailed(f"This worker has no pretrained network for items of modality {modality.name!r}.")
        if not usable(foundation):
            raise Unsuited(
                f"This worker has not what the pretrained network {foundation.name} needs: "
                f"{', '.join(foundation.packages)}.",
                missing=[f"foundation:{modality.name}"],
            )
        net = foundation.make(safetensors.torch.load(weights))
        batch = foundation.batch["cpu" if device.type == "cpu" else "cuda"]
        return cls(net, modality.for_foundation(), batch, device)

    @torch.no_grad()
    def embeddings(self, items: Tensor) -> Halves:
        """(n, *item_shape), decoded -> (n, p) float16. Raises `JobFailed` for one that is not finite."""
        found = []
        for part in torch.split(items, self._batch):
            with autocast(self._device):
                found.append(self._net(to_device(part, self._device)).half())
        embeddings = torch.cat(found).cpu()
        if not embeddings.isfinite().all():
            raise JobFailed(
                "The pretrained weights give embeddings that are not finite numbers: set SHORTLIST_PRETRAINED to off "
                "on the workers, or name other weights, and pretrain again."
            )
        return np.asarray(embeddings.numpy())

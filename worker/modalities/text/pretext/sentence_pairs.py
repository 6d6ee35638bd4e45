"""Find a text again that was read with other values of the network dropped."""

from typing import ClassVar, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from worker.modalities.text.backbones import SmallTextBackbone
from worker.pretext.simclr import SimCLR, SimCLRNet


class SentencePairs(SimCLR):
    """Find a text again among others, when the network reads it twice and drops other values each time: no word is
    taken away, so that both readings say the same. While training the others are the rest of the batch; an item's loss
    compares with up to 2,048 items of the pool that stay the same for all, less the most similar one, which may be the
    item itself.

    Gao et al. 2021, "SimCSE: Simple Contrastive Learning of Sentence Embeddings", https://arxiv.org/abs/2104.08821.
    """

    name: ClassVar[str] = "sentence_pairs"
    modalities: ClassVar[frozenset[str] | None] = frozenset({"text"})

    temperature: float = Field(0.05, gt=0, description="Lower looks harder at the most similar texts.")
    dropped: float = Field(0.1, gt=0, lt=1, description="Share of the values that is dropped at each place.")

    def views(self, net: nn.Module, batch: Tensor, generator: torch.Generator) -> Tensor:
        return torch.cat([self._read(cast(SimCLRNet, net), batch, generator) for _ in range(2)])

    def _read(self, net: SimCLRNet, batch: Tensor, generator: torch.Generator) -> Tensor:
        """(n, L) -> (n, 128). While training each window of a text has values of its own that are dropped; in scoring
        all have the same, whatever the longest text of the batch is.
        """
        backbone = cast(SmallTextBackbone, net.backbone)
        length = min(batch.shape[1], backbone.window)

        def drop(values: Tensor) -> Tensor:
            draw = torch.rand(
                (len(values) if net.training else 1, length, values.shape[2]),
                generator=generator,
                device=values.device,
                dtype=torch.float32,
            )
            kept = (draw[:, : values.shape[1]] >= self.dropped).to(values.dtype)
            return values * kept / (1 - self.dropped)

        return net.projected(backbone.dropped(batch, drop))

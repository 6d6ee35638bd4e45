"""Tell which half belongs to which, as which text to which image."""

from typing import ClassVar, cast

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from worker import collectives
from worker.modalities import Modality
from worker.modalities.pair.backbones import PairBackbone
from worker.pretext import PretextTask
from worker.pretext.projection import hidden, mlp

_BANK = 2_048
_WIDTH = 128
_CHUNK = 64


class MatchingNet(nn.Module):
    """Pairs -> projections (n, 2, 128) of length 1, of the first and of the second half. The first `banked` rows of the
    bank are what scoring compares with; before the training has ended they are random.
    """

    bank: Tensor
    banked: Tensor

    def __init__(self, backbone: nn.Module, modality: Modality) -> None:
        super().__init__()
        self.backbone = backbone
        self.modality = modality
        widths = cast(PairBackbone, backbone).widths
        self.projections = nn.ModuleList(mlp(width, hidden(width), _WIDTH) for width in widths)
        self.register_buffer("bank", functional.normalize(torch.randn(_BANK, 2, _WIDTH), dim=2))
        self.register_buffer("banked", torch.tensor(_BANK))

    def forward(self, batch: Tensor) -> Tensor:
        joined = self.backbone(batch)
        both = joined.split(cast(PairBackbone, self.backbone).widths, 1)
        projected = [net(one) for net, one in zip(self.projections, both, strict=True)]
        return functional.normalize(torch.stack(projected, 1).float(), dim=2)


class ViewMatching(PretextTask):
    """Find the text of an image among the texts of others, and the image of a text among the images; or the halves of
    pairs of other kinds. While training these are the rest of the batch, seen in random views. An item's loss is the
    mean of both ways; it compares with up to 2,048 pairs of the pool that stay the same for all, less the most similar
    one, which may be the item itself. High: the two do not belong together, or say nothing of each other.

    Radford et al. 2021, "Learning Transferable Visual Models From Natural Language Supervision" (CLIP),
    https://arxiv.org/abs/2103.00020.
    """

    name: ClassVar[str] = "view_matching"
    modalities: ClassVar[frozenset[str] | None] = frozenset({"pair"})
    largest_batch: ClassVar[int | None] = 1_024

    temperature: float = Field(0.1, gt=0, description="Lower looks harder at the most similar ones.")

    def make_net(self, backbone: nn.Module, dimensions: int, modality: Modality) -> nn.Module:
        return MatchingNet(backbone, modality)

    def losses(self, net: nn.Module, batch: Tensor, generator: torch.Generator) -> Tensor:
        net = cast(MatchingNet, net)
        if net.training:
            batch = net.modality.view(batch, generator, each=True, share=(0.5, 1.0))
        first, second = net(batch).unbind(1)
        with torch.autocast(batch.device.type, enabled=False):
            if net.training:
                ways = [
                    self._among(one, other, collectives.all_gather(other))
                    for one, other in ((first, second), (second, first))
                ]
            else:
                known = net.bank[: net.banked]
                ways = [
                    self._against(first, second, known[:, 1]),
                    self._against(second, first, known[:, 0]),
                ]
        return torch.stack(ways).mean(0)

    def _among(self, one: Tensor, other: Tensor, others: Tensor) -> Tensor:
        own = torch.arange(len(one), device=one.device) + collectives.row_offset(one)
        return functional.cross_entropy(one @ others.T / self.temperature, own, reduction="none")

    def _against(self, one: Tensor, other: Tensor, bank: Tensor) -> Tensor:
        """(n,) the loss of matching, among what is its own and the bank less the row that is most like its own."""
        own = (one * other).sum(1, keepdim=True)
        nearest = (other @ bank.T).argmax(1, keepdim=True)
        strangers = (one @ bank.T).scatter(1, nearest, -torch.inf)
        logits = torch.cat([own, strangers], 1) / self.temperature
        return logits.logsumexp(1) - logits[:, 0]

    @torch.no_grad()
    def finalise(self, net: nn.Module, sample: Tensor, generator: torch.Generator) -> None:
        net = cast(MatchingNet, net)
        kept = sample[:_BANK]
        for start in range(0, len(kept), _CHUNK):
            part = kept[start : start + _CHUNK]
            net.bank[start : start + len(part)] = net(part)
        net.banked.fill_(len(kept))

    def diagnostics(self, net: nn.Module, batch: Tensor) -> dict[str, float]:
        """Share of the first halves that find their second one among those of these items."""
        first, second = net(batch).unbind(1)
        right = (first @ second.T).argmax(1) == torch.arange(len(batch), device=batch.device)
        return {"matching_accuracy": right.float().mean().item()}

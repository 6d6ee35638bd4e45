"""Guess the words behind masks."""

from typing import ClassVar, cast

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from worker.modalities import BackboneUnusable, Modality
from worker.modalities.text.backbones import SmallTextBackbone
from worker.modalities.text.tokens import MASK, PADDING, lengths
from worker.pretext import PretextTask, mean_over_tokens

_TOKENS_AT_ONCE = 4_096  # of which logits are held in scoring: 128 MB
_SHARES = (0.75, 1.25)  # of the share that is masked, while training


class TokensNet(nn.Module):
    """Ids (n, L) -> hidden states (n, L, c), from which words are guessed. The output layer is the table of
    embeddings, as in BERT.
    """

    def __init__(self, backbone: nn.Module, modality: Modality) -> None:
        super().__init__()
        self.backbone = backbone
        self.modality = modality
        known = cast(SmallTextBackbone, backbone)
        width = known.embedding.embedding_dim
        self.head = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.LayerNorm(width))
        self.bias = nn.Parameter(torch.zeros(known.embedding.num_embeddings))

    def forward(self, ids: Tensor) -> Tensor:
        hidden: Tensor = cast(SmallTextBackbone, self.backbone).tokens(ids)
        return hidden

    def logits(self, hidden: Tensor) -> Tensor:
        """(m, c) -> (m, ids) float32."""
        table = cast(SmallTextBackbone, self.backbone).embedding.weight
        return functional.linear(self.head(hidden), table, self.bias).float()

    def losses(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """(m, c), (m,) ids -> (m,) float32, cross-entropies. In scoring few logits are held at a time."""
        at_once = max(len(targets), 1) if self.training else _TOKENS_AT_ONCE
        parts = zip(torch.split(hidden, at_once), torch.split(targets, at_once), strict=True)
        return torch.cat(
            [functional.cross_entropy(self.logits(part), those, reduction="none") for part, those in parts]
        )

    def accuracy(self, hidden: Tensor, targets: Tensor) -> float:
        """Share of (m,) ids that are guessed right."""
        parts = zip(torch.split(hidden, _TOKENS_AT_ONCE), torch.split(targets, _TOKENS_AT_ONCE), strict=True)
        right = sum(int((self.logits(part).argmax(1) == those).sum()) for part, those in parts)
        return right / max(len(targets), 1)


def tokens_net(backbone: nn.Module, modality: Modality, *, causal: bool) -> TokensNet:
    """The net of a task that guesses words from those around them or, `causal`, from those before. Raises
    `BackboneUnusable` where the backbone is made for the other one.
    """
    make = getattr(backbone, "make_tokens_net", None)
    if make is None:
        cast(SmallTextBackbone, backbone).causal = causal
        return TokensNet(backbone, modality)
    if backbone.causal != causal:
        wanted = "next_token" if backbone.causal else "masked_tokens"
        reads = "forwards only" if backbone.causal else "both ways"
        raise BackboneUnusable(f"This backbone reads {reads}: set the project's pretext_task to {wanted}.")
    made: TokensNet = make(modality)
    return made


class MaskedTokens(PretextTask):
    """Guess words behind masks from the words around them. An item's loss is the cross-entropy of its masked tokens,
    their mean over several masks, so that long texts have no higher losses than short ones.

    Yuan et al. 2020, "Cold-start Active Learning through Self-supervised Language Modeling" (ALPS),
    https://arxiv.org/abs/2010.09535; the task: Devlin et al. 2019, "BERT", https://arxiv.org/abs/1810.04805.
    """

    name: ClassVar[str] = "masked_tokens"
    modalities: ClassVar[frozenset[str] | None] = frozenset({"text"})
    largest_batch: ClassVar[int | None] = 512
    scoring_views: ClassVar[int] = 4

    masked: float = Field(
        0.2, gt=0, le=0.5, description="Share of a text's tokens that is masked, at least one token."
    )

    def make_net(self, backbone: nn.Module, dimensions: int, modality: Modality) -> nn.Module:
        return tokens_net(backbone, modality, causal=False)

    def losses(self, net: nn.Module, batch: Tensor, generator: torch.Generator) -> Tensor:
        return mean_over_tokens(*self.token_losses(net, batch, generator))

    def token_losses(
        self, net: nn.Module, batch: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        net = cast(TokensNet, net)
        mask = self.masks(batch, generator, each=net.training)
        found = net.losses(net(batch.masked_fill(mask, MASK))[mask], batch[mask])
        return torch.zeros(mask.shape, device=batch.device).masked_scatter(mask, found), mask

    def masks(self, batch: Tensor, generator: torch.Generator, *, each: bool) -> Tensor:
        """(n, L) bool, true where masked: the tokens of a text whose random numbers are lowest.

        each: one set of numbers an item, and its own share, from 3/4 to 5/4 of `masked`; else one for the whole
        batch, so that what is masked of a text follows from its length and the generator alone.
        """
        rows = len(batch) if each else 1
        draw = torch.rand((rows, batch.shape[1] + 1), generator=generator, device=batch.device)
        low, high = _SHARES if each else (1.0, 1.0)
        share = self.masked * (low + (high - low) * draw[:, 0])
        count = (share * lengths(batch)).round().clamp_min(1)
        order = draw[:, 1:].expand(batch.shape).masked_fill(batch == PADDING, 2.0)
        rank = order.argsort(stable=True, dim=1).argsort(1)
        return (rank < count[:, None]) & (batch != PADDING)

    def diagnostics(self, net: nn.Module, batch: Tensor) -> dict[str, float]:
        """Share of the masked tokens that are guessed right."""
        net = cast(TokensNet, net)
        mask = self.masks(batch, torch.Generator(batch.device).manual_seed(0), each=False)
        return {"masked_token_accuracy": net.accuracy(net(batch.masked_fill(mask, MASK))[mask], batch[mask])}

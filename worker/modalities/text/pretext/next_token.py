"""Guess each word from those before it."""

from typing import ClassVar, cast

import torch
from torch import Tensor, nn

from worker.modalities import Modality
from worker.modalities.text.backbones import SmallTextBackbone
from worker.modalities.text.pretext.masked_tokens import TokensNet, tokens_net
from worker.modalities.text.tokens import MASK, PADDING
from worker.pretext import PretextTask, mean_over_tokens


class NextToken(PretextTask):
    """Guess each word of a text from the words before it, the first one from nothing. An item's loss is the mean
    cross-entropy of its tokens, so that long texts have no higher losses than short ones: the logarithm of its
    perplexity. It needs no masks, so that one pass is enough; embeddings are of a network that reads forwards only.

    Radford et al. 2018, "Improving Language Understanding by Generative Pre-Training",
    https://cdn.openai.com/research-covers/language-unsupervised/language_understanding_paper.pdf.
    """

    name: ClassVar[str] = "next_token"
    modalities: ClassVar[frozenset[str] | None] = frozenset({"text"})
    largest_batch: ClassVar[int | None] = 128  # texts, of all tokens of which logits are held in training

    def make_net(self, backbone: nn.Module, dimensions: int, modality: Modality) -> nn.Module:
        return tokens_net(backbone, modality, causal=True)

    def losses(self, net: nn.Module, batch: Tensor, generator: torch.Generator) -> Tensor:
        return mean_over_tokens(*self.token_losses(net, batch, generator))

    def token_losses(
        self, net: nn.Module, batch: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        there = batch != PADDING
        found = cast(TokensNet, net).losses(self._before(net, batch)[there], batch[there])
        return torch.zeros(there.shape, device=batch.device).masked_scatter(there, found), there

    def _before(self, net: nn.Module, batch: Tensor) -> Tensor:
        """(n, L) -> (n, L, c): at the place of each token what is known of it by those before. A mask stands before
        the first of each window.
        """
        before = torch.cat([torch.full_like(batch[:, :1], MASK), batch[:, :-1]], 1)
        window = cast(SmallTextBackbone, net.get_submodule("backbone")).window
        if batch.shape[1] > window:
            # Of a text that ends with a window nothing stands in the next one.
            first = batch[:, window::window]
            before[:, window::window] = torch.where(first == PADDING, PADDING, MASK)
        hidden: Tensor = net(before)
        return hidden

    def diagnostics(self, net: nn.Module, batch: Tensor) -> dict[str, float]:
        """Share of the tokens that are guessed right."""
        there = batch != PADDING
        right = cast(TokensNet, net).accuracy(self._before(net, batch)[there], batch[there])
        return {"next_token_accuracy": right}

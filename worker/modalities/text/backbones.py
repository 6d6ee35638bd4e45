"""Backbones of texts: networks from token ids to an embedding."""

import difflib
from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from worker.modalities import BackboneUnusable
from worker.modalities.text.tokens import BUCKETS, PADDING

_NAMES = ("small",)
_WIDTH = 128

# From values (n, l, c) inside the network to those with some of them dropped.
Drop = Callable[[Tensor], Tensor]


def make_backbone(name: str, pretrained: bool, length: int) -> tuple[nn.Module, int]:
    """The network, (n, L) ids -> (n, d) float, for L up to `length`, and d. Raises `BackboneUnusable`."""
    if name not in _NAMES:
        close = difflib.get_close_matches(name, _NAMES, n=1, cutoff=0.4)
        raise BackboneUnusable(
            f"There is no backbone {name!r} for texts. {'Close' if close else 'There is'}: {', '.join(_NAMES)}."
        )
    if pretrained:
        raise BackboneUnusable("The backbone `small` has no pretrained weights: unset `pretrained`.")
    return SmallTextBackbone(length), SmallTextBackbone.dimensions


class SmallTextBackbone(nn.Module):
    """A transformer of two blocks that trains in minutes on a CPU. The embedding is the mean over a text's tokens.

    Vaswani et al. 2017, "Attention Is All You Need", https://arxiv.org/abs/1706.03762, with the norm before each
    part (Xiong et al. 2020, https://arxiv.org/abs/2002.04745) and no dropout: a pool is seen a few times only.
    Convolutions in place of attention guessed more masked tokens and knew less about classes: 76 % against 81 %
    of a linear probe after as many epochs over 10,000 sentences. They learn which function words stand together.

    causal: a token sees those before it and itself only; `next_token` makes it so
    """

    width: ClassVar[int] = _WIDTH
    dimensions: ClassVar[int] = _WIDTH
    # As in timm: the modules that an embedding may be taken from, and their channels.
    feature_info: ClassVar[list[dict[str, object]]] = [
        {"module": f"layer{depth}", "num_chs": _WIDTH} for depth in range(3)
    ]

    def __init__(self, length: int) -> None:
        super().__init__()
        self.causal = False
        self.embedding = nn.Embedding(BUCKETS, self.width)
        self.position = nn.Parameter(torch.empty(length, self.width))
        nn.init.normal_(self.embedding.weight, std=self.width**-0.5)
        nn.init.normal_(self.position, std=0.3 * self.width**-0.5)
        self.norm = nn.LayerNorm(self.width)
        self.block1 = _Block(self.width)
        self.block2 = _Block(self.width)
        # Without parameters: hooks on them see (n, c) of each depth, over tokens only and not over padding.
        self.layer0, self.layer1, self.layer2 = _Mean(), _Mean(), _Mean()

    def forward(self, ids: Tensor) -> Tensor:
        """(n, L) ids -> (n, 128)."""
        found: Tensor = self._run(ids)[1]
        return found

    def tokens(self, ids: Tensor) -> Tensor:
        """(n, L) ids -> (n, L, 128), 0 where there is padding."""
        found = self._run(ids)[0]
        return functional.pad(found, (0, 0, 0, ids.shape[1] - found.shape[1]))

    def dropped(self, ids: Tensor, drop: Drop) -> Tensor:
        """(n, L) ids -> (n, 128), with values dropped after the embedding and in each block. No hook sees it."""
        found: Tensor = self._run(ids, drop)[1]
        return found

    def _run(self, ids: Tensor, drop: Drop | None = None) -> tuple[Tensor, Tensor]:
        """(n, l, 128) and the mean over tokens (n, 128); l is the longest text's."""
        shown = ids != PADDING
        if ids.device.type == "cpu":  # on CUDA it would wait for the device, and gain little
            longest = max(int(shown.sum(1).max()), 1) if len(ids) else 1
            ids, shown = ids[:, :longest], shown[:, :longest]
        # A text of padding only looks at padding: a softmax over nothing would be NaN.
        seen = (shown | ~shown.any(1, keepdim=True))[:, None, None, :]
        if self.causal:
            seen = seen & torch.ones(2 * ids.shape[1:], dtype=torch.bool, device=ids.device).tril()
        drop = drop or _kept
        first = drop(self.norm(self.embedding(ids) + self.position[: ids.shape[1]]))
        middle = self.block1(first, seen, drop)
        last = self.block2(middle, seen, drop)
        self.layer0(first, shown)
        self.layer1(middle, shown)
        return last * shown[:, :, None], self.layer2(last, shown)


class _Block(nn.Module):
    """Attention among a text's tokens, then two linear layers, both beside a shortcut."""

    def __init__(self, width: int, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width)
        self.attention = nn.Linear(width, 3 * width)
        self.joined = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.inner = nn.Linear(width, 2 * width)
        self.outer = nn.Linear(2 * width, width)

    def forward(self, x: Tensor, seen: Tensor, drop: Drop) -> Tensor:
        """x (n, l, c), seen (n, 1, 1 or l, l) bool, by whom and of whom -> (n, l, c)."""
        n, length, width = x.shape
        split = self.attention(self.norm1(x)).view(n, length, 3, self.heads, width // self.heads)
        query, key, value = split.permute(2, 0, 3, 1, 4)
        found = functional.scaled_dot_product_attention(query, key, value, attn_mask=seen)
        x = x + drop(self.joined(found.transpose(1, 2).reshape(n, length, width)))
        inner = drop(self.outer(functional.gelu(self.inner(self.norm2(x)))))
        return x + inner


class _Mean(nn.Module):
    def forward(self, x: Tensor, shown: Tensor) -> Tensor:
        """x (n, l, c), shown (n, l) bool -> (n, c)."""
        weights = shown[:, :, None].to(x.dtype)
        return (x * weights).sum(1) / weights.sum(1).clamp_min(1)


def _kept(values: Tensor) -> Tensor:
    return values

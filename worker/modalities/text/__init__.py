"""Texts: bytes to token ids, and all that the rest of the worker asks about them."""

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np
import torch
from pydantic import Field, field_validator
from torch import Tensor, nn

from service.content.contract import Facts, Limits
from service.content.text import decoded, facts_of
from worker.arrays import Floats, Ints
from worker.modalities import Batch, Modality, Sketcher
from worker.modalities.text.backbones import make_backbone
from worker.modalities.text.features import raw_features
from worker.modalities.text.foundation import LENGTH, TextFoundation, piece_ids
from worker.modalities.text.sketches import MinHash
from worker.modalities.text.spans import spans_of, spans_of_pieces
from worker.modalities.text.tokens import FIRST, lengths, piece_ids_of, token_ids
from worker.modalities.text.views import one_window, view

if TYPE_CHECKING:
    from worker.modalities.text.hugging_face import Vocabulary

_SMALL = "small"
_PIECES = 1.2  # word pieces a token
_SHORTEST = 8
_LONGEST = {"cpu": 128, "cuda": 256}  # of a window
_WINDOWS = {"cpu": 4, "cuda": 8}
_COVERED = 0.95  # of the texts are read to their end, if as many windows allow it
_PUNCTUATION = 1.15  # tokens a word
_UNKNOWN = 64  # tokens, where nothing is known about the pool


class Text(Modality):
    """Sentences and documents. A longer one is read in `windows` parts of `tokens` words and punctuation marks, spread
    from its beginning to its end; its loss and embedding are the mean over the tokens of all. So a book costs no more
    than a chapter, and is not judged by its title page.

    Decoded, the windows lie one after the other, all of them full but the last, so that whatever does not ask for
    windows sees one text without gaps.
    """

    name: ClassVar[str] = "text"
    dtype: ClassVar[torch.dtype] = torch.int32
    default_task: ClassVar[str] = "masked_tokens"
    foundation: ClassVar[TextFoundation] = TextFoundation()
    # Eight epochs over 10,000 sentences: 3 minutes of a core, and 81 instead of 64 % with 100 labels (Subjectivity).
    items_seen: ClassVar[dict[str, int]] = {"cpu": 80_000, "cuda": 2_000_000}
    # A trained transformer's embeddings share a direction, which an untrained one's do not: good ones keep 0.58 to 0.8
    # of the spread, and those of `next_token` 0.47 of the rank (Subjectivity: 77 % with 100 labels, 65 % untrained).
    least_spread: ClassVar[float] = 0.25
    least_rank: ClassVar[float] = 0.25

    # As BERT's authors fine-tune it (https://arxiv.org/abs/1810.04805); that of an untrained network would undo it.
    pretrained_rate: ClassVar[float | None] = 5e-5

    tokens: int | None = Field(
        None, ge=1, le=4_096, description="Tokens of a window. Left out, 95 % of the pool fit into one."
    )
    windows: int | None = Field(
        None, ge=1, le=64, description="Windows of a text that are read; of models that know of none, one."
    )

    backbone: str = Field(
        _SMALL,
        max_length=200,
        description="Model of Hugging Face whose word pieces are read in place of words.",
    )

    @field_validator("backbone")
    @classmethod
    def _trained(cls, name: str) -> str:
        """`auto` trains the small one."""
        return _SMALL if name == "auto" else name

    @property
    def _vocabulary(self) -> "Vocabulary | None":
        """None where words are read. Raises `BackboneUnusable` and `Unsuited`."""
        if self.backbone == _SMALL:
            return None
        from worker.modalities.text.hugging_face import (
            vocabulary,  # only those who ask for it have the library
        )

        return vocabulary(self.backbone)

    def resolved(self, facts: Sequence[Facts], device: torch.device) -> Self:
        vocabulary = self._vocabulary
        longest = vocabulary.longest if vocabulary is not None else 4_096
        kind = "cpu" if device.type == "cpu" else "cuda"
        words = [fact["words"] for fact in facts if "words" in fact]
        needed = float(np.quantile(words, _COVERED)) * _PUNCTUATION if words else _UNKNOWN
        needed *= 1 if vocabulary is None else _PIECES
        tokens = self.tokens or min(max(8 * math.ceil(needed / 8), _SHORTEST), _LONGEST[kind])
        tokens = min(tokens, longest)
        windows = self.windows or min(max(math.ceil(needed / tokens), 1), _WINDOWS[kind])
        return self.model_copy(update={"tokens": tokens, "windows": windows})

    @property
    def item_shape(self) -> tuple[int, ...]:
        return (self._length * self._windows,)

    @property
    def _length(self) -> int:
        if self.tokens is None:
            raise ValueError("`tokens` is open: ask `resolved` first")
        return self.tokens

    @property
    def _windows(self) -> int:
        return self.windows or 1

    def decode(self, data: bytes, limits: Limits) -> tuple[Tensor, Facts]:
        text, encoding = decoded(data, limits.max_text_bytes)
        if (vocabulary := self._vocabulary) is not None:
            ids = piece_ids_of(vocabulary.encode(text)[0], self._length, self._windows)
            return ids, facts_of(text, encoding)
        return token_ids(text, self._length, self._windows), facts_of(text, encoding)

    def prepare(self, items: Tensor) -> Batch:
        """(n, L) int32 -> int64, as embeddings and losses take ids."""
        return items.long()

    def augment(self, items: Tensor, generator: torch.Generator) -> Tensor:
        """One window of each text: an epoch over long texts costs no more than over short ones, and the next one sees
        others of their windows.
        """
        return items if self._windows == 1 else one_window(items, self._length, generator)

    def view(
        self,
        batch: Batch,
        generator: torch.Generator,
        *,
        each: bool,
        strength: float = 0.5,
        share: tuple[float, float] = (0.2, 1.0),
        size: int | None = None,
    ) -> Batch:
        return view(batch, generator, each=each, strength=strength, share=share)

    def dummy(self, n: int) -> Tensor:
        """Made-up texts of all lengths; as in real ones, some ids are frequent."""
        (length,) = self.item_shape
        generator = torch.Generator().manual_seed(0)
        draw = torch.rand((n, length), generator=generator)
        vocabulary = self._vocabulary
        most = 1_000 if vocabulary is None else min(1_000, vocabulary.size - 1)
        ids = (FIRST + most * draw**3).int()
        long = 1 + (torch.rand((n, 1), generator=generator) * length).int()
        return ids * (torch.arange(length) < long)

    def make_backbone(self, name: str, pretrained: bool) -> tuple[nn.Module, int]:
        if name == self.backbone and name != _SMALL:
            from worker.modalities.text import hugging_face

            return hugging_face.make_backbone(name, pretrained, self._length)
        return make_backbone(name, pretrained, self._length)

    def for_foundation(self) -> "Text":
        return _WordPieces(tokens=LENGTH, windows=self.windows)

    def for_raw_features(self, facts: Sequence[Facts] = ()) -> Self:
        whole = self.model_copy(update={"tokens": self.tokens or _LONGEST["cpu"], "backbone": _SMALL})
        return whole.resolved(facts, torch.device("cpu"))

    def raw_features(self, items: Iterable[Tensor], rng: np.random.Generator) -> Floats:
        return raw_features(items, rng)

    def spans(self, data: bytes, limits: Limits, places: Ints) -> Ints:
        text, _ = decoded(data, limits.max_text_bytes)
        if (vocabulary := self._vocabulary) is not None:
            return spans_of_pieces(vocabulary.encode(text)[1], places, self._length, self._windows)
        return spans_of(text, places, self._length, self._windows)

    def traits(self, items: Tensor, sizes: Ints) -> dict[str, Floats]:
        """tokens: a text's length; rare: the share of its tokens that no other of these texts has."""
        there = items >= FIRST
        tokens = lengths(items)
        texts = torch.zeros(int(items.max()) + 1 if len(items) else 1, dtype=torch.int64)
        for row in items:
            texts[row.unique().long()] += 1
        rare = ((texts[items.long()] == 1) & there).sum(1) / tokens.clamp_min(1)
        return {
            "tokens": tokens.numpy().astype(np.float32),
            "rare": rare.numpy().astype(np.float32),
            "file_size": sizes.astype(np.float32),
        }

    @property
    def sketcher(self) -> Sketcher:
        return MinHash()


class _WordPieces(Text):
    """Cut as the texts were that pretrained weights come from; ids and padding are as those of words."""

    def decode(self, data: bytes, limits: Limits) -> tuple[Tensor, Facts]:
        text, encoding = decoded(data, limits.max_text_bytes)
        return piece_ids(text, self._windows), facts_of(text, encoding)

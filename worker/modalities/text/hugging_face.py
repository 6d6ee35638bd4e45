"""Backbones of texts by name or local folder: encoders and causal models of the library `transformers`.

It comes with the extra `[text]`. Only configurations, tokenizers and safetensors are read: no code of a model's author
runs. A stored pretext model holds its weights; its configuration and word pieces are read anew, from the folder, the
hub's cache or the hub.
"""

import importlib
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from worker.errors import Unsuited
from worker.modalities import BackboneUnusable, Modality
from worker.modalities.text.backbones import HUGGING_FACE, Drop, Windows, windows_of
from worker.modalities.text.pretext.masked_tokens import TokensNet
from worker.modalities.text.tokens import FIRST, MASK, PADDING

T = TypeVar("T")

_HUB_S = 10.0  # of silence
_DOWNLOAD_S = 3_600.0  # of weights, from a hub that has just answered
_LONGEST = 4_096  # tokens of a window, where a model names no limit
_LOGITS_AT_ONCE = 2**24  # 64 MB
_SAME = 1e-3  # between logits of the whole model and of its parts


@dataclass(frozen=True)
class Vocabulary:
    """The word pieces of a model. An item's ids are those of its pieces plus `FIRST`, so that padding and masks are as
    those of words.

    before, after  ids that stand at the ends of each window
    mask           of a masked piece; for a causal model what stands before the first one
    longest        pieces of a window at most
    causal         whether a piece sees only those before it
    """

    pieces: Any
    before: tuple[int, ...]
    after: tuple[int, ...]
    mask: int
    size: int
    longest: int
    causal: bool

    def encode(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Ids of the pieces, and the characters that each stands for."""
        found = self.pieces.encode(text, add_special_tokens=False)
        return found.ids, found.offsets


@cache
def vocabulary(name: str) -> Vocabulary:
    """Raises `BackboneUnusable`, and `Unsuited` where this worker lacks the extra."""
    return _loaded(name, lambda local: _vocabulary(name, local), _HUB_S)


def make_backbone(name: str, pretrained: bool, length: int) -> tuple[nn.Module, int]:
    """The network, (n, W · length) ids -> (n, d) float, and d. Raises as `vocabulary` does."""
    words = vocabulary(name)
    model = _loaded(name, lambda local: _model(name, words.causal, pretrained, local), _DOWNLOAD_S)
    try:
        backbone = HuggingFaceBackbone(model, words, length)
    except Exception as error:  # its output layer does not stand after its network, …
        raise BackboneUnusable(f"The backbone {name!r} cannot be used: {error}") from error
    return backbone, backbone.dimensions


def _vocabulary(name: str, local: bool) -> Vocabulary:
    library = importlib.import_module("transformers")
    config = library.AutoConfig.from_pretrained(name, local_files_only=local)
    tokenizer = library.AutoTokenizer.from_pretrained(name, local_files_only=local)
    if not tokenizer.is_fast:
        raise BackboneUnusable(
            f"The backbone {name!r} has no fast tokenizer (tokenizer.json): save it with one, or name another."
        )
    masked = type(config) in library.MODEL_FOR_MASKED_LM_MAPPING and tokenizer.mask_token_id is not None
    if not masked and type(config) not in library.MODEL_FOR_CAUSAL_LM_MAPPING:
        raise BackboneUnusable(
            f"The backbone {name!r} is of the type {config.model_type!r}, which guesses no words: name an encoder with "
            "masks, as BERT, or a causal model, as GPT-2."
        )
    start = next((one for one in (tokenizer.bos_token_id, tokenizer.eos_token_id) if one is not None), 0)
    pieces = tokenizer.backend_tokenizer
    pieces.no_truncation()
    pieces.no_padding()
    bare = pieces.encode("a", add_special_tokens=False).ids
    ends = pieces.encode("a").ids if masked else bare
    place = next((at for at in range(len(ends)) if ends[at : at + len(bare)] == bare), 0)
    before, after = tuple(ends[:place]), tuple(ends[place + len(bare) :])
    # RoBERTa counts places from behind its padding's id.
    places = getattr(config, "max_position_embeddings", None) or _LONGEST
    shifted = config.pad_token_id + 1 if "roberta" in config.model_type and config.pad_token_id else 0
    return Vocabulary(
        pieces=pieces,
        before=before,
        after=after,
        mask=tokenizer.mask_token_id if masked else start,
        size=config.vocab_size,
        longest=min(places - shifted - len(before) - len(after), _LONGEST),
        causal=not masked,
    )


def _model(name: str, causal: bool, pretrained: bool, local: bool) -> nn.Module:
    library = importlib.import_module("transformers")
    kind = library.AutoModelForCausalLM if causal else library.AutoModelForMaskedLM
    config = library.AutoConfig.from_pretrained(name, local_files_only=local)
    config.use_cache = False  # of what a causal model would write next
    if not pretrained:
        made: nn.Module = kind.from_config(config)
        return made.float()
    options = {"local_files_only": local, "use_safetensors": True, "dtype": torch.float32}
    made = kind.from_pretrained(name, config=config, **options)
    return made


def _loaded(name: str, load: Callable[[bool], T], seconds: float) -> T:
    """From a folder or the hub's cache, else from the hub, which is left behind when it is silent."""
    if find_spec("transformers") is None:
        raise Unsuited(
            f"This worker has no library for the backbone {name!r}: pip install 'shortlist[text]', or set the "
            "project's backbone to small.",
            missing=[HUGGING_FACE],
        )
    library = importlib.import_module("transformers")
    library.logging.set_verbosity_error()
    library.logging.disable_progress_bar()
    try:
        return load(True)
    except BackboneUnusable:
        raise
    except Exception as error:  # not there, or broken: libraries raise nearly anything
        if Path(name).is_dir():
            raise BackboneUnusable(f"The backbone {name!r} cannot be read: {error}") from error
    answers: list[T | Exception] = []

    def ask() -> None:
        try:
            answers.append(load(False))
        except Exception as error:
            answers.append(error)

    asking = threading.Thread(target=ask, name="hub", daemon=True)
    asking.start()
    asking.join(seconds)
    if not answers:
        raise BackboneUnusable(_not_found(name, f"the hub was silent for {seconds:.0f} s"))
    answer = answers[0]
    if isinstance(answer, BackboneUnusable):
        raise answer
    if isinstance(answer, Exception):
        raise BackboneUnusable(_not_found(name, f"the hub gave none ({type(answer).__name__})")) from answer
    return answer


def _not_found(name: str, why: str) -> str:
    return (
        f"There is no backbone {name!r} for texts: it is no folder on the worker, not in the hub's cache, and {why}. "
        "There is: small, or any encoder or causal model of Hugging Face by its name or folder."
    )


class HuggingFaceBackbone(nn.Module):
    """A network of `transformers`. It reads each window of a text on its own, between the pieces that mark its ends;
    the embedding is the mean over the text's pieces of the last layer.

    causal: a piece sees those before it and itself only; that is the model's own
    """

    def __init__(self, model: nn.Module, words: Vocabulary, length: int) -> None:
        super().__init__()
        whole: Any = model
        self.network: nn.Module = whole.base_model
        self.dimensions = int(whole.config.get_text_config().hidden_size)
        self.causal, self.window, self.words = words.causal, length, words
        # Not a part of this module: its output layer goes into the net of a task.
        self.output = [_Output(model, self.dimensions)]

    def make_tokens_net(self, modality: Modality) -> TokensNet:
        return OwnWordsNet(self, modality)

    def forward(self, ids: Tensor) -> Tensor:
        """(n, W · window) ids, or fewer of one window, -> (n, d)."""
        windows = windows_of(ids, self.window)
        return self._mean(self._run(windows), windows)

    def tokens(self, ids: Tensor) -> Tensor:
        """(n, L) ids -> (n, L, d), 0 where there is padding."""
        windows = windows_of(ids, self.window)
        return windows.joined(self._run(windows))

    def dropped(self, ids: Tensor, drop: Drop) -> Tensor:
        """(n, L) ids -> (n, d), with values of the last layer dropped, beside what the network drops in training."""
        windows = windows_of(ids, self.window)
        return self._mean(drop(self._run(windows)), windows)

    def _mean(self, values: Tensor, windows: Windows) -> Tensor:
        shown = windows.ids[:, : values.shape[1]] != PADDING
        return windows.mean(values, shown)

    def _run(self, windows: Windows) -> Tensor:
        """(k, l, d), 0 where there is padding; l is the longest window's."""
        counts = (windows.ids != PADDING).sum(1)
        longest = max(int(counts.max()), 1) if len(counts) else 1
        ids = windows.ids[:, :longest]
        shown = ids != PADDING
        words, k = self.words, len(ids)
        inner = (
            (ids - FIRST).clamp(0, words.size - 1).masked_fill(ids == MASK, words.mask).masked_fill(~shown, 0)
        )
        before, after = (ids.new_tensor(ends).expand(k, -1) for ends in (words.before, words.after))
        given = torch.cat([before, inner, torch.zeros_like(after)], 1)
        first = before.shape[1] + counts.clamp_min(1)
        given = given.scatter(1, first[:, None] + torch.arange(after.shape[1], device=ids.device), after)
        length = first + after.shape[1]
        mask = (torch.arange(given.shape[1], device=ids.device) < length[:, None]).long()
        hidden: Tensor = self.network(input_ids=given, attention_mask=mask).last_hidden_state
        return hidden[:, before.shape[1] : before.shape[1] + longest] * shown[:, :, None]


class _Output(nn.Module):
    """A model's output layer alone: hidden states (m, d) -> logits (m, pieces). In the place of its network stands one
    that gives what it is handed, so that any model's own output layer serves. Raises `ValueError` where these are not
    the logits of the whole model.
    """

    def __init__(self, model: nn.Module, width: int) -> None:
        super().__init__()
        whole: Any = model
        network = whole.base_model
        ids = torch.tensor([[1, 2, 3]])
        model.eval()
        with torch.no_grad():
            expected = whole(input_ids=ids).logits
            hidden = network(input_ids=ids).last_hidden_state
        given = _Given()
        setattr(model, whole.base_model_prefix, given)
        self.model, self.given = model, given
        with torch.no_grad():
            found = self(hidden[0])
        if not torch.allclose(found, expected[0], rtol=_SAME, atol=_SAME):
            raise ValueError("its words are not guessed from its last hidden states alone")
        model.train()

    def forward(self, hidden: Tensor) -> Tensor:
        self.given.hidden = hidden[None]
        ids = torch.zeros((1, len(hidden)), dtype=torch.int64, device=hidden.device)
        logits: Tensor = self.model(input_ids=ids).logits[0]
        self.given.hidden = None
        return logits


class _Given(nn.Module):
    hidden: Tensor | None = None

    def forward(self, *_: object, **__: object) -> Any:
        outputs = importlib.import_module("transformers.modeling_outputs")
        return outputs.BaseModelOutputWithPastAndCrossAttentions(last_hidden_state=self.hidden)


class OwnWordsNet(TokensNet):
    """As `TokensNet`, with the output layer of the model itself, which knows what it learned before."""

    def __init__(self, backbone: HuggingFaceBackbone, modality: Modality) -> None:
        nn.Module.__init__(self)
        self.backbone = backbone
        self.modality = modality
        self.output = backbone.output[0]

    def logits(self, hidden: Tensor) -> Tensor:
        """(m, d) -> (m, pieces) float32."""
        return cast(Tensor, self.output(hidden)).float()

    def losses(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """(m, d), (m,) ids -> (m,) float32. Logits of a vocabulary of 50,000 pieces would fill the memory: few are held
        at a time, and in training made again for the gradient.
        """
        size = cast(HuggingFaceBackbone, self.backbone).words.size
        at_once = max(_LOGITS_AT_ONCE // size, 1)

        def part_of(part: Tensor, those: Tensor) -> Tensor:
            return functional.cross_entropy(self.logits(part), those, reduction="none")

        found = [hidden.new_zeros(0, dtype=torch.float32)]
        for part, those in zip(
            torch.split(hidden, at_once), torch.split(targets - FIRST, at_once), strict=True
        ):
            again = self.training and len(hidden) > at_once
            found.append(
                checkpoint(part_of, part, those, use_reentrant=False) if again else part_of(part, those)
            )
        return torch.cat(found)

    def accuracy(self, hidden: Tensor, targets: Tensor) -> float:
        return super().accuracy(hidden, targets - FIRST)

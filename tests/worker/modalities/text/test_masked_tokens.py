"""A text's loss is its own: of its masked tokens, and of nothing else in the batch."""

from typing import cast

import pytest
import torch
from torch import nn
from torch.nn import functional

from tests.worker.modalities.text.texts import TEXT, decoded, seeded, texts
from worker.modalities.text.pretext.masked_tokens import MaskedTokens, TokensNet
from worker.modalities.text.tokens import MASK, PADDING, lengths
from worker.scoring.score import score

TASK = MaskedTokens()
BATCH = TEXT.prepare(decoded([*texts(11), "one", "one two"]))


def net() -> TokensNet:
    torch.manual_seed(0)
    return cast(TokensNet, TASK.make_net(*TEXT.make_backbone("small", False), TEXT))


@pytest.mark.parametrize("each", [True, False])
def test_every_text_has_a_mask_and_no_padding_is_masked(each: bool) -> None:
    masks = TASK.masks(BATCH, seeded(), each=each)
    share = masks.sum(1) / lengths(BATCH)

    assert masks.any(1).all()
    assert not (masks & (BATCH == PADDING)).any()
    assert share[lengths(BATCH) > 10].max() <= 0.3
    assert torch.equal(masks, TASK.masks(BATCH, seeded(), each=each))


def test_masks_of_scoring_follow_from_the_length_alone() -> None:
    same = BATCH[:1].expand(5, -1).contiguous()

    assert (TASK.masks(same, seeded(), each=False) == TASK.masks(same, seeded(), each=False)[0]).all()
    assert (masks := TASK.masks(same, seeded(), each=True)).ne(masks[0]).any()


@torch.no_grad()
def test_a_loss_does_not_depend_on_its_batch() -> None:
    made = net().eval()
    losses = TASK.losses(made, BATCH, seeded())

    assert losses.shape == (len(BATCH),)
    assert losses.dtype == torch.float32
    assert torch.equal(losses, TASK.losses(made, BATCH, seeded()))
    for row in range(len(BATCH)):
        assert torch.allclose(TASK.losses(made, BATCH[row : row + 1], seeded())[0], losses[row], atol=1e-4)


@torch.no_grad()
def test_it_is_the_mean_cross_entropy_of_a_plain_loop() -> None:
    made = net().eval()
    masks = TASK.masks(BATCH, seeded(), each=False)
    losses = TASK.losses(made, BATCH, seeded())
    for row in range(len(BATCH)):
        places = [place for place in range(BATCH.shape[1]) if masks[row, place]]
        covered = BATCH[row].clone()
        covered[places] = MASK
        hidden = made(covered[None])[0]
        slowly = [
            float(functional.cross_entropy(made.logits(hidden[None, place]), BATCH[row, place][None]))
            for place in places
        ]
        assert float(losses[row]) == pytest.approx(sum(slowly) / len(slowly), abs=1e-3)


@torch.no_grad()
def test_the_hardest_tokens_are_those_of_a_plain_loop_over_the_views() -> None:
    made = net().eval()
    found = score(made, TASK, BATCH).hardest
    for row in range(len(BATCH)):
        losses: dict[int, list[float]] = {}
        for view in range(TASK.scoring_views):
            of_tokens, asked = TASK.token_losses(made, BATCH, seeded(view))
            for place in asked[row].nonzero()[:, 0].tolist():
                losses.setdefault(place, []).append(float(of_tokens[row, place]))
        ordered = sorted(losses, key=lambda place: -sum(losses[place]) / len(losses[place]))
        marked = [place for place in found[row].tolist() if place >= 0]
        assert marked == ordered[: min(5, -(-len(losses) // 5))]


def test_it_learns() -> None:
    made = net().train()
    strings = [f"the {one} sat on the {one} and the {one} saw it" for one in ("cat", "dog", "owl", "fox")] * 4
    batch, generator = TEXT.prepare(decoded(strings)), seeded()
    optimizer = torch.optim.AdamW(made.parameters(), lr=2e-3)
    before = TASK.diagnostics(made.eval(), batch)["masked_token_accuracy"]
    made.train()
    for _ in range(60):
        loss = TASK.losses(made, batch, generator).mean()
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()

    assert before < 0.1
    assert TASK.diagnostics(made.eval(), batch)["masked_token_accuracy"] > 0.5
    assert all(parameter.grad is not None for parameter in made.parameters())


def test_a_stored_net_holds_the_table_of_embeddings_once() -> None:
    made: nn.Module = net()
    tables = [name for name, value in made.state_dict().items() if value.shape == (8_192, 128)]

    assert tables == ["backbone.embedding.weight"]
    assert cast(TokensNet, made).modality is TEXT

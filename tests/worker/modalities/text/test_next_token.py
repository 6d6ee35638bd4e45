"""A text's loss is the mean over its tokens, each guessed from those before it."""

from typing import cast

import pytest
import torch
from torch import nn
from torch.nn import functional

from tests.worker.modalities.text.texts import TEXT, decoded, seeded, texts
from worker.modalities.text.backbones import SmallTextBackbone
from worker.modalities.text.pretext.masked_tokens import TokensNet
from worker.modalities.text.pretext.next_token import NextToken
from worker.modalities.text.tokens import MASK, lengths
from worker.scoring.score import score

TASK = NextToken()
BATCH = TEXT.prepare(decoded([*texts(11), "one", "one two"]))


def net() -> TokensNet:
    torch.manual_seed(0)
    return cast(TokensNet, TASK.make_net(*TEXT.make_backbone("small", False), TEXT))


@torch.no_grad()
def test_no_token_sees_those_after_it() -> None:
    backbone = cast(SmallTextBackbone, net().eval().backbone)
    tokens = decoded(["a b c d e f", "a b c x y z"]).long()
    first, second = backbone.tokens(tokens)

    torch.testing.assert_close(first[:3], second[:3])
    assert not torch.allclose(first[3:6], second[3:6], atol=1e-3)
    backbone.causal = False
    first, second = backbone.tokens(tokens)
    assert not torch.allclose(first[:3], second[:3], atol=1e-3)


@torch.no_grad()
def test_a_loss_does_not_depend_on_its_batch() -> None:
    made = net().eval()
    losses = TASK.losses(made, BATCH, seeded())

    assert losses.shape == (len(BATCH),)
    assert losses.dtype == torch.float32
    for row in range(len(BATCH)):
        assert torch.allclose(TASK.losses(made, BATCH[row : row + 1], seeded())[0], losses[row], atol=1e-4)


@torch.no_grad()
def test_it_is_the_mean_cross_entropy_of_a_plain_loop() -> None:
    made = net().eval()
    losses = TASK.losses(made, BATCH, seeded())
    for row, count in enumerate(lengths(BATCH).tolist()):
        slowly = 0.0
        for place in range(count):
            before = torch.cat([torch.tensor([MASK]), BATCH[row, :place]])
            logits = made.logits(made(before[None])[0, -1:])
            slowly += float(functional.cross_entropy(logits, BATCH[row, place][None]))
        assert float(losses[row]) == pytest.approx(slowly / count, abs=1e-3)


def test_it_learns_what_follows_what() -> None:
    """The last word follows from the one before; where it does not, the loss is higher."""
    made = net().train()
    pairs = (("cat", "dog"), ("owl", "fox"), ("bee", "ant"), ("elk", "ape"))
    strings = [f"the {one} saw the {other}" for one, other in pairs] * 4
    batch, generator = TEXT.prepare(decoded(strings)), seeded()
    optimizer = torch.optim.AdamW(made.parameters(), lr=2e-3)
    for _ in range(60):
        loss = TASK.losses(made, batch, generator).mean()
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()

    assert all(parameter.grad is not None for parameter in made.parameters())
    assert TASK.diagnostics(made.eval(), batch)["next_token_accuracy"] > 0.7
    with torch.no_grad():
        usual, strange = TASK.losses(
            made, TEXT.prepare(decoded(["the cat saw the dog", "the cat saw the ape"])), generator
        )
    assert strange > usual + 0.5
    hardest = score(made.eval(), TASK, TEXT.prepare(decoded(["the cat saw the ape"]))).hardest
    assert hardest.tolist() == [[4, -1, -1, -1, -1]]  # of five tokens one


def test_a_network_that_is_read_back_reads_forwards_too() -> None:
    made: nn.Module = net()
    assert cast(TokensNet, made).backbone.causal
    assert "causal" not in made.state_dict()

"""A text is compared with itself, read with other values dropped."""

from typing import cast

import torch

from tests.worker.modalities.text.texts import TEXT, decoded, seeded, texts
from worker.modalities.text.pretext.sentence_pairs import SentencePairs
from worker.pretext.simclr import SimCLRNet
from worker.scoring.score import score

TASK = SentencePairs()
BATCH = TEXT.prepare(decoded([*texts(11), "one", "one two"]))


def net() -> SimCLRNet:
    torch.manual_seed(0)
    return cast(SimCLRNet, TASK.make_net(*TEXT.make_backbone("small", False), TEXT))


@torch.no_grad()
def test_both_readings_are_of_the_same_words_and_differ() -> None:
    made = net().eval()
    first, second = torch.split(TASK.views(made, BATCH, seeded()), len(BATCH))
    own = (first * second).sum(1)

    assert not torch.allclose(first, second, atol=1e-3)
    assert own.min() > 0.5
    assert torch.equal(TASK.views(made, BATCH, seeded())[: len(BATCH)], first)


@torch.no_grad()
def test_in_scoring_what_is_dropped_of_a_text_does_not_depend_on_its_batch() -> None:
    made = net().eval()
    losses = TASK.losses(made, BATCH, seeded())
    for row in range(len(BATCH)):  # the longest text of a batch is another each time
        alone = TASK.losses(made, BATCH[row : row + 1], seeded())
        torch.testing.assert_close(alone[0], losses[row], rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_in_training_each_text_has_values_of_its_own_dropped() -> None:
    made = net().train()
    for module in made.projection:
        module.eval()  # batch norm aside
    twice = BATCH[:1].repeat(2, 1)
    one, other = TASK.views(made, twice, seeded())[:2]

    assert not torch.allclose(one, other, atol=1e-3)


@torch.no_grad()
def test_embeddings_are_of_the_whole_network() -> None:
    made = net().eval()
    found = score(made, TASK, BATCH)

    torch.testing.assert_close(found.embeddings, made.backbone(BATCH))


def test_it_learns_to_find_a_text_again() -> None:
    made, generator = net().train(), seeded()
    optimizer = torch.optim.AdamW(made.parameters(), lr=1e-3)
    found = []
    for _ in range(30):
        loss = TASK.losses(made, BATCH, generator).mean()
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        found.append(float(loss.detach()))

    assert sum(found[-5:]) < 0.8 * sum(found[:5])
    assert all(parameter.grad is not None for parameter in made.parameters())


@torch.no_grad()
def test_a_text_that_is_like_none_is_found_most_easily() -> None:
    """Against a bank of texts that are all about one thing."""
    made = net().eval()
    alike = TEXT.prepare(decoded([f"the cat sat on the mat w{number}" for number in range(40)]))
    TASK.finalise(made, alike, seeded())
    losses = TASK.losses(
        made,
        torch.cat([alike[:1], TEXT.prepare(decoded(["zebras run far from quiet rivers now"]))]),
        seeded(),
    )

    assert losses[0] > losses[1]

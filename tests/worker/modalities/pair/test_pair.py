"""Pairs in one tensor: what both halves were, they are again; those that do not belong together are told."""

import numpy as np
import torch

from service.content.contract import Limits
from service.content.pair import packed
from tests.journeys.captions import caption, picture
from worker.modalities.image import Image
from worker.modalities.pair import Pair, parts
from worker.modalities.pair.pretext.view_matching import MatchingNet, ViewMatching
from worker.modalities.text import Text
from worker.scoring.score import score

CPU = torch.device("cpu")
LIMITS = Limits(max_pixels=10**6, max_text_bytes=10**6)
PAIR = Pair(image_size=24, tokens=16)
GENERATOR = torch.Generator()


def decoded(*pairs: tuple[bytes, str]) -> torch.Tensor:
    return torch.stack([PAIR.decode(packed(image, text.encode()), LIMITS)[0] for image, text in pairs])


def test_both_halves_decide_what_is_open() -> None:
    facts = [{"width": 40, "height": 30, "words": 5, "characters": 20, "encoding": "utf-8"}] * 9
    assert Pair().resolved(facts, CPU) == Pair(image_size=30, tokens=8)
    assert Pair(image_size=16, tokens=12).resolved(facts, CPU) == Pair(image_size=16, tokens=12)


def test_the_halves_come_back() -> None:
    image, text = picture("red", 1), caption("red", 1)
    items = decoded((image, text), (picture("green", 2), "x"))
    pixels, ids = PAIR.halves(items)

    assert torch.equal(pixels[0], Image(image_size=24).decode(image, LIMITS)[0])
    assert torch.equal(ids[0], Text(tokens=16).decode(text.encode(), LIMITS)[0])
    images, words = parts(PAIR.prepare(items), 24)
    assert torch.equal(images, Image(image_size=24).prepare(pixels))
    assert torch.equal(words, ids.long())


def test_a_copy_is_one_of_both_halves() -> None:
    image, other, text = picture("red", 1), picture("red", 2), "somebody painted a red square here"
    items = decoded((image, text), (image, text), (image, "nothing of that is true"), (other, text))
    same, other_text, other_image = PAIR.sketcher.differences(
        PAIR.sketcher.sketch(items), np.array([0]), np.array([[1, 2, 3]])
    )[0]

    assert same == 0
    assert min(other_text, other_image) > PAIR.sketcher.most_of_strangers


def test_no_half_outweighs_the_other() -> None:
    raw = PAIR.raw_features(torch.split(PAIR.dummy(60), 16), np.random.default_rng(0))
    of_image = (
        Image(image_size=24).raw_features([PAIR.halves(PAIR.dummy(60))[0]], np.random.default_rng(0)).shape[1]
    )
    torch.manual_seed(0)
    net, width = PAIR.make_backbone("small", False)
    with torch.no_grad():
        found = net.eval()(PAIR.prepare(PAIR.dummy(8)))

    assert np.allclose([raw[:, :of_image].var(0).sum(), raw[:, of_image:].var(0).sum()], 1, rtol=1e-3)
    assert found.shape == (8, width)
    assert torch.allclose(found.square().mean(), torch.tensor(1.0), rtol=0.05)


def net_of(seed: int) -> MatchingNet:
    torch.manual_seed(seed)
    net = ViewMatching().make_net(*PAIR.make_backbone("small", False), PAIR)
    assert isinstance(net, MatchingNet)
    return net


def test_the_loss_compares_with_the_bank_less_what_is_most_like_its_own() -> None:
    """As a plain loop has it; and whether an item is in the bank itself makes little difference."""
    task, net = ViewMatching(temperature=0.5), net_of(0).eval()
    batch = PAIR.prepare(PAIR.dummy(12))
    task.finalise(net, batch[:8], GENERATOR)
    assert int(net.banked) == 8
    with torch.no_grad():
        found = task.losses(net, batch, GENERATOR)
        sides = net(batch)
    for row in range(12):
        ways = []
        for one, other in ((0, 1), (1, 0)):
            bank = net.bank[:8, other]
            kept = torch.arange(8) != (bank @ sides[row, other]).argmax()
            logits = (
                torch.cat([(sides[row, one] @ sides[row, other])[None], bank[kept] @ sides[row, one]]) / 0.5
            )
            ways.append(-logits.log_softmax(0)[0])
        torch.testing.assert_close(found[row], torch.stack(ways).mean(), rtol=1e-4, atol=1e-4)
    assert not (net.bank[:8, 0] @ sides[:8, 0].T).argmax(0).ne(torch.arange(8)).any()


def test_noisy_pairs_have_the_highest_losses() -> None:
    """96 pairs whose text says the colour, and 8 more whose text says the other one."""
    said = [(colour, colour) for colour in ("red", "green") * 48] + [("red", "green"), ("green", "red")] * 4
    items = decoded(*((picture(seen, seed), f"it is {words}") for seed, (seen, words) in enumerate(said)))
    task, net, batch = ViewMatching(), net_of(1), PAIR.prepare(items)
    optimizer = torch.optim.AdamW(net.parameters(), 3e-3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        loss = task.losses(net.train(), batch, generator).mean()
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
    task.finalise(net.eval(), batch, generator)

    losses = score(net, task, batch).losses
    assert losses[96:].min() > losses[:96].quantile(0.9)

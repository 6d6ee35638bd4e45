"""Pairs in one tensor: what both halves were, they are again; those that do not belong together are told."""

import json

import numpy as np
import pytest
import torch

from service.content.contract import Limits
from service.content.pair import Kinds, packed
from tests.journeys.captions import caption, picture
from tests.worker.test_modalities_contract import SMALL
from worker.modalities.image import Image
from worker.modalities.pair import Pair
from worker.modalities.pair.pretext.view_matching import MatchingNet, ViewMatching
from worker.modalities.pair.tensors import prepared_halves
from worker.modalities.text import Text
from worker.models.spec import ModelSpec, input_of
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
    images, words = prepared_halves(PAIR.prepare(items), PAIR.parts)
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


@pytest.mark.parametrize(
    "kinds", [("text", "text"), ("audio", "text"), ("image", "image"), ("video", "graph")], ids=str
)
def test_halves_of_any_two_kinds(kinds: Kinds) -> None:
    """Each comes back as it was, is read back as it was stored, is trained on, scored, sketched and told apart."""
    pair = Pair(pair_of=kinds, first=SMALL[kinds[0]], second=SMALL[kinds[1]]).resolved([], CPU)
    stored = json.loads(json.dumps(input_of(pair)))
    assert ModelSpec({"name": "view_matching"}, "small", stored, seed=0).make_modality() == pair
    items = pair.dummy(9)
    alone = [part.dummy(9) for part in pair.parts]
    assert all(map(torch.equal, pair.halves(items), alone))
    assert all(map(torch.equal, pair.halves(items[1:2]), (alone[0][1:2], alone[1][1:2])))
    batch = pair.prepare(items)
    prepared = [part.prepare(half) for part, half in zip(pair.parts, alone, strict=True)]
    assert all(map(torch.equal, prepared_halves(batch, pair.parts), prepared))

    task = ViewMatching()
    torch.manual_seed(0)
    net = task.make_net(*pair.make_backbone("small", False), pair)
    losses = task.losses(net.train(), batch, GENERATOR)
    torch.autograd.backward(losses.mean())
    assert losses.shape == (9,)
    task.finalise(net.eval(), batch, GENERATOR)
    found, one = score(net, task, batch), score(net, task, batch[3:4])
    torch.testing.assert_close(found.losses[3:4], one.losses, rtol=1e-4, atol=1e-4)
    assert found.embeddings.isfinite().all()

    sketches = pair.sketcher.sketch(torch.cat([items, items[:1]]))
    sketcher = Pair(pair_of=kinds).sketcher  # of a ranking, which reads sketches and makes none
    apart = sketcher.differences(sketches, np.array([0]), np.array([[9, 1]]))[0]
    assert apart[0] == 0 < apart[1]
    assert np.array_equal(sketcher.places(sketches), pair.sketcher.places(sketches))
    raw = pair.raw_features(iter(torch.split(items, 4)), np.random.default_rng(0))
    assert np.isfinite(raw).all()
    assert raw.shape[0] == 9
    traits = pair.traits(items, np.arange(9))
    assert (
        len(traits)
        == sum(len(part.traits(half, np.arange(9))) - 1 for part, half in zip(pair.parts, alone, strict=True))
        + 1
    )

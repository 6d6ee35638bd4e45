"""Backbones of Hugging Face from a local folder: tiny ones of random weights, with a tokenizer made here."""

import importlib
import json
import threading
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.worker.modalities.text.texts import LIMITS, decoded, seeded
from worker.errors import Unsuited
from worker.modalities import BackboneUnusable
from worker.modalities.text import Text, hugging_face
from worker.modalities.text.tokens import FIRST, PADDING, token_ids
from worker.models.nets import as_safetensors, load_net, new_net
from worker.models.spec import ModelSpec, input_of
from worker.pretext import pretext_tasks
from worker.scoring.score import score

CPU = torch.device("cpu")
WORDS = ["the", "cat", "dog", "owl", "saw", "sat", "ran", "big", "##s", "a"]
needs_extra = pytest.mark.skipif(
    find_spec("transformers") is None, reason="The extra [text] is not installed."
)


def made(folder: Path, kind: str) -> str:
    """kind: encoder or causal"""
    transformers: Any = importlib.import_module("transformers")
    tokenizers: Any = importlib.import_module("tokenizers")
    vocabulary = {
        word: place for place, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS])
    }
    pieces = tokenizers.Tokenizer(tokenizers.models.WordPiece(vocabulary, unk_token="[UNK]"))
    pieces.normalizer = tokenizers.normalizers.Lowercase()
    pieces.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "mask_token": "[MASK]", "eos_token": "[SEP]"}
    if kind == "encoder":
        pieces.post_processor = tokenizers.processors.TemplateProcessing(
            single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
        )
        config = transformers.BertConfig(
            vocab_size=15, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
            max_position_embeddings=24,
        )  # fmt: skip
        model = transformers.AutoModelForMaskedLM.from_config(config)
    else:
        special.pop("mask_token")
        config = transformers.GPT2Config(
            vocab_size=15, n_embd=32, n_layer=2, n_head=2, n_positions=24, bos_token_id=3, eos_token_id=3
        )
        model = transformers.AutoModelForCausalLM.from_config(config)
    model.save_pretrained(folder)
    transformers.PreTrainedTokenizerFast(tokenizer_object=pieces, **special).save_pretrained(folder)
    return str(folder)


@needs_extra
@pytest.mark.parametrize(("kind", "task"), [("encoder", "masked_tokens"), ("causal", "next_token")])
def test_it_is_trained_and_scored_and_stored(kind: str, task: str, tmp_path: Path) -> None:
    name = made(tmp_path / kind, kind)
    modality = Text(backbone=name, tokens=8, windows=3).resolved([], CPU)
    spec = ModelSpec({"name": task, "params": {}}, name, input_of(modality), seed=0, pretrained=True)
    chosen = pretext_tasks("text")[task]()
    strings = ["The cat saw the dogs", "a big owl sat", "the dog ran", "the cat saw the owl " * 12] * 2
    batch = modality.prepare(decoded(strings, modality))
    net = new_net(spec)
    optimizer = torch.optim.AdamW(net.parameters(), lr=5e-3)
    generator, losses = seeded(), []
    for _ in range(25):
        loss = chosen.losses(net.train(), batch, generator).mean()
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        losses.append(float(loss.detach()))
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])

    found = score(net.eval(), chosen, batch)
    again = score(load_net(spec, as_safetensors(net, spec, {}), CPU), chosen, batch)
    alone = score(net, chosen, batch[1:2])
    assert found.embeddings.shape == (8, 32)
    torch.testing.assert_close(again.losses, found.losses)
    torch.testing.assert_close(alone.losses[0], found.losses[1], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(alone.embeddings[0], found.embeddings[1], rtol=1e-4, atol=1e-4)
    spans = modality.spans(strings[0].encode(), LIMITS, found.hardest[0].numpy())
    assert strings[0][slice(*spans[0])] in ("The", "cat", "saw", "the", "dog", "s")


@needs_extra
def test_it_reads_its_own_pieces_between_its_own_ends(tmp_path: Path) -> None:
    modality = Text(backbone=made(tmp_path, "encoder"), tokens=99).resolved([], CPU)
    words = hugging_face.vocabulary(str(tmp_path))
    ids = modality.decode(b"The cats", LIMITS)[0]

    assert modality.item_shape[0] % 22 == 0  # of 24 places two are the ends
    assert (words.before, words.after, words.mask, words.causal) == ((2,), (3,), 4, False)
    assert ids[:4].tolist() == [FIRST + 5, FIRST + 6, FIRST + 13, PADDING]
    backbone = modality.make_backbone(modality.backbone, pretrained=True)[0].eval()
    network: Any = backbone.get_submodule("network")
    with torch.no_grad():
        whole = network(input_ids=torch.tensor([[2, 5, 6, 13, 3]])).last_hidden_state[0, 1:4]
        found = backbone(ids[None].long())[0]
    torch.testing.assert_close(found, whole.mean(0), rtol=1e-4, atol=1e-5)
    assert (
        modality.for_raw_features([]).decode(b"The cats", LIMITS)[0][:2].tolist()
        == token_ids("the cats", 2).tolist()
    )


@needs_extra
def test_what_cannot_be_had_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    causal = Text(backbone=made(tmp_path / "causal", "causal"), tokens=8)
    backbone = causal.make_backbone(causal.backbone, pretrained=False)
    with pytest.raises(BackboneUnusable, match="forwards only: set the project's pretext_task to next_token"):
        pretext_tasks("text")["masked_tokens"]().make_net(*backbone, causal)
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "config.json").write_text(json.dumps({"model_type": "no_such_kind"}))
    with pytest.raises(BackboneUnusable, match="cannot be read"):
        Text(backbone=str(tmp_path / "odd")).resolved([], CPU)
    over = threading.Event()

    def hangs(name: str, local: bool) -> Any:
        if local or over.wait(30):
            raise OSError(name)

    monkeypatch.setattr(hugging_face, "_vocabulary", hangs)
    monkeypatch.setattr(hugging_face, "_HUB_S", 0.1)
    with pytest.raises(
        BackboneUnusable, match=r"There is no backbone 'nobody/none' for texts: .* was silent"
    ):
        Text(backbone="nobody/none").resolved([], CPU)
    over.set()
    monkeypatch.setattr(hugging_face, "_HUB_S", 10.0)
    with pytest.raises(BackboneUnusable, match=r"the hub gave none \(OSError\). There is: small, or any"):
        Text(backbone="nobody/none").resolved([], CPU)


def test_a_worker_without_the_library_leaves_the_job_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hugging_face, "find_spec", lambda _: None)
    with pytest.raises(Unsuited, match=r"pip install 'shortlist\[text\]'") as raised:
        Text(backbone="some/model").resolved([], CPU)
    assert raised.value.missing == ("backbones:hugging-face",)
    assert Text(backbone="auto") == Text(backbone="small") == Text()

"""Pretrained weights of images: from the first place that has usable ones, with a sentence for each that has not."""

import hashlib
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import safetensors.torch
import timm
import torch
from torch import Tensor

from service.settings import Settings
from worker.modalities.foundation import NoWeights, Search
from worker.modalities.image import Image, foundation
from worker.modalities.image.foundation import ImageFoundation

State = dict[str, Tensor]


@pytest.fixture(scope="module")
def state() -> State:
    torch.manual_seed(1)
    found: State = timm.create_model("tf_efficientnet_lite2", pretrained=False).state_dict()
    return found


@pytest.fixture(autouse=True)
def nothing_else(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Neither the extra nor a hub; a hub that is asked all the same answers nothing until the test is over."""
    over = threading.Event()
    monkeypatch.setattr(foundation, "_PACKAGE", "no_such_package")
    monkeypatch.setattr(foundation, "HUB_S", 0.05)
    monkeypatch.setattr(foundation, "_downloaded", lambda cached: over.wait(60))
    yield
    over.set()


def found(file: Path | None = None, sha256: str | None = None, where: str = "offline") -> Search:
    settings = Settings(pretrained=where, pretrained_file=file, pretrained_sha256=sha256)
    return ImageFoundation().find(settings)


def written(path: Path, state: object) -> Path:
    torch.save(state, path)
    return path


def test_a_file_by_the_names_of_timm(tmp_path: Path, state: State) -> None:
    path = written(tmp_path / "lite2.pth", state)
    search = found(path, hashlib.sha256(path.read_bytes()).hexdigest())

    assert search.weights is not None
    assert (search.weights.source, search.tried) == ("file", ())
    read = safetensors.torch.load(search.weights.data)
    assert torch.equal(read["conv_stem.weight"], state["conv_stem.weight"])
    assert not any(name.startswith("classifier") for name in read)


def test_a_file_by_other_names_in_the_same_order_is_the_same(tmp_path: Path, state: State) -> None:
    kept = {name: value for name, value in state.items() if not name.endswith("num_batches_tracked")}
    renamed = {f"_blocks.{number}": value for number, value in enumerate(kept.values())}
    one = found(written(tmp_path / "one.pth", renamed)).weights
    safetensors.torch.save_file(kept, tmp_path / "two.safetensors")
    two = found(tmp_path / "two.safetensors").weights

    assert one is not None
    assert two is not None
    assert one.sha256 == two.sha256


def test_the_network_takes_items_as_they_are_decoded_for_it(state: State, tmp_path: Path) -> None:
    weights = found(written(tmp_path / "lite2.pth", state)).weights
    assert weights is not None
    net = ImageFoundation().make(safetensors.torch.load(weights.data))
    items = Image(image_size=28).for_foundation().dummy(2)

    assert items.shape == (2, 3, 160, 160)
    with torch.no_grad():
        assert net(items).shape == (2, 1280)


def test_a_wrong_hash(tmp_path: Path, state: State) -> None:
    search = found(written(tmp_path / "lite2.pth", state), "0" * 64)

    assert search.weights is None
    assert "SHORTLIST_PRETRAINED_FILE: lite2.pth has the sha256" in search.tried[0]
    assert "not 000000000000…" in search.tried[0]
    assert str(tmp_path) not in " ".join(search.tried)


def test_a_file_that_is_missing_broken_or_of_something_else(tmp_path: Path, state: State) -> None:
    (tmp_path / "broken.pth").write_bytes(b"nothing of the kind")
    first = next(iter(state))
    sentences = {
        "missing.pth": "missing.pth cannot be read (no such file or directory)",
        "broken.pth": "broken.pth holds no weights",
        "list.pth": "holds weights of another network",
        "other.pth": "holds weights of another network",
        "nan.pth": "holds weights that are not finite",
    }
    written(tmp_path / "list.pth", [1, 2])
    written(tmp_path / "other.pth", {"weight": torch.zeros(3)})
    written(tmp_path / "nan.pth", state | {first: torch.full_like(state[first], torch.nan)})
    for name, sentence in sentences.items():
        search = found(tmp_path / name)
        assert search.weights is None
        assert sentence in search.tried[0]


def test_code_in_a_file_is_not_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return Path.mkdir, (Path(tmp_path / "ran"),)  # type: ignore[return-value]

    search = found(written(tmp_path / "evil.pth", {"a": Evil()}))
    assert search.weights is None
    assert not (tmp_path / "ran").exists()


def test_the_next_place_is_asked_and_the_hub_last(
    tmp_path: Path, state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    def downloaded(cached: bool) -> State:
        if cached:
            raise NoWeights("Nothing is cached.")
        return foundation._fitted(state, "The hub")

    monkeypatch.setattr(foundation, "_downloaded", downloaded)
    monkeypatch.setattr(foundation, "HUB_S", 60)
    search = found(tmp_path / "missing.pth", where="auto")

    assert search.weights is not None
    assert search.weights.source == "hub"
    assert len(search.tried) == 3
    assert "[pretrained] is not installed" in search.tried[1]
    assert search.tried[2] == "Nothing is cached."


def test_a_hub_that_hangs_is_left_behind() -> None:
    search = found(where="auto")

    assert search.weights is None
    assert [sentence for sentence in search.tried if "silent" in sentence] == [
        "The hub was silent for 0 s."
    ] * 2


def test_without_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def downloaded(cached: bool) -> State:
        raise ConnectionError("Name or service not known")

    monkeypatch.setattr(foundation, "_downloaded", downloaded)
    monkeypatch.setattr(foundation, "HUB_S", 60)
    tried = found(where="auto").tried

    assert tried[-1] == "The hub cannot be reached (ConnectionError)."


def test_switched_off() -> None:
    assert found(where="off") == Search(
        None, ("Pretrained weights are switched off (SHORTLIST_PRETRAINED).",)
    )


def test_the_extra_is_known_by_its_hash(
    tmp_path: Path, state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A package of that name with another file in it."""
    package = tmp_path / "some_weights"
    (package / "models").mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('nothing of it is imported')")
    path = written(package / foundation._IN_PACKAGE, state)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(foundation, "_PACKAGE", "some_weights")

    assert "The extra [pretrained]: efficientnet-lite2-9656183e.pth has the sha256" in found().tried[0]
    monkeypatch.setattr(foundation, "_SHA256", hashlib.sha256(path.read_bytes()).hexdigest())
    weights = found().weights
    assert weights is not None
    assert weights.source == "extra"

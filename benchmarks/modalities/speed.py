"""Scoring of each kind of items, against the bare network and the fastest decoder of its kind that is well kept.

- ours: `PoolScoring` with the local engine, as job score_pool uses it: from items where they lie to stored losses,
  embeddings and sketches
- bare: the same network in the same batches for as many passes as losses and embeddings need, on prepared items that
  lie in memory; and, before that, its decoder alone, of the same bytes to what the network takes: libsndfile and
  `torch.stft`, PyAV, simplejpeg, Hugging Face's tokenizers, `json`

Both are timed in turns, by the CPU time of one core, so that whatever else the machine does is unfair to none; the
median of the rounds counts. Items are made up, and texts and graphs are as long and large as those of AG News and
PROTEINS.

.venv/bin/python -m benchmarks.modalities.speed              all kinds, two or three minutes of a core
.venv/bin/python -m benchmarks.modalities.speed --kinds text
"""

import argparse
import importlib
import importlib.util
import io
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import simplejpeg
import soundfile
import torch
from PIL import Image, ImageFilter
from torch import Tensor

from benchmarks.report import RESULTS, Figure, write_report
from service.content import contents, limits_of
from service.content.pair import packed
from service.settings import Settings
from service.store.artifacts import Artifacts
from worker.engines.local import LocalEngine
from worker.modalities import Modality, modalities
from worker.models.nets import as_safetensors, new_net
from worker.models.spec import ModelSpec, input_of
from worker.pool.cache_room import CacheNames
from worker.scoring.pool_scoring import Loaded, OpenPoolScoring, PoolScoring, Shard, ShardItem, StoredShard
from worker.scoring.score import score

_CPU = torch.device("cpu")
_SHARD = 128
_ROUNDS = 5
_WORDS = 40  # of a text, as in AG News
_VOCABULARY = 5_000
_NODES = 39  # of a graph, as in PROTEINS
_SECONDS, _RATE = 1.5, 16_000  # of a recording
_FILM = (96, 128, 25, 50)  # height, width, frames a second, frames
_PHOTO = 128  # pixels a side


@dataclass(frozen=True)
class Kind:
    """made: the bytes of item number n; items: of the pool; decode: bytes of a batch, by the fastest decoder, to what
    the network takes or as near to it as that decoder comes
    """

    made: Callable[[int], bytes]
    items: int
    decode: Callable[[Modality, Sequence[bytes]], object]
    needs: str | None = None


# ---- the items ----


def _text(number: int) -> bytes:
    rng = np.random.default_rng(number)
    words = (rng.random(int(rng.integers(_WORDS // 2, 2 * _WORDS))) ** 3 * _VOCABULARY).astype(int)
    return " ".join(f"w{word}" + ("," if word % 9 == 0 else "") for word in words.tolist()).encode() + b"."


def _recording(number: int) -> bytes:
    rng = np.random.default_rng(number)
    samples = 0.1 * rng.standard_normal(round(_SECONDS * _RATE))
    samples += 0.3 * np.sin(2 * np.pi * rng.uniform(100, 3_000) * np.arange(len(samples)) / _RATE)
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, _RATE, format="FLAC")
    return buffer.getvalue()


def _photo(number: int, kind: str = "JPEG") -> bytes:
    rng = np.random.default_rng(number)
    coarse = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))
    picture = coarse.resize((_PHOTO, _PHOTO), Image.Resampling.BICUBIC).filter(ImageFilter.SMOOTH)
    buffer = io.BytesIO()
    picture.save(buffer, kind, quality=90)
    return buffer.getvalue()


def _film(number: int) -> bytes:
    height, width, rate, frames = _FILM
    still = np.asarray(Image.open(io.BytesIO(_photo(number))).resize((width, height)))
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as file:
        stream = file.add_stream("libx264", rate=rate, options={"preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.thread_count = 1
        for shift in range(frames):
            moved = np.ascontiguousarray(np.roll(still, 2 * shift, axis=1))
            file.mux(stream.encode(av.VideoFrame.from_ndarray(moved, format="rgb24")))
        file.mux(stream.encode(None))
    return buffer.getvalue()


def _graph(number: int) -> bytes:
    rng = np.random.default_rng(number)
    count = int(rng.integers(_NODES // 2, 3 * _NODES // 2))
    nodes = [{"id": node, "tag": str(int(rng.integers(3)))} for node in range(count)]
    pairs = {(int(rng.integers(node)), node) for node in range(1, count)}
    pairs |= {(int(one), int(other)) for one, other in rng.integers(0, count, (count, 2)) if one != other}
    return json.dumps({"nodes": nodes, "edges": [list(pair) for pair in sorted(pairs)]}).encode()


def _pair(number: int) -> bytes:
    return packed(_photo(number), _text(number))


# ---- the fastest decoders ----


@cache
def _tokenizer() -> Any:
    tokenizers = importlib.import_module("tokenizers")

    words = {f"w{word}": word + 3 for word in range(_VOCABULARY)} | {"<unk>": 0, ",": 1, ".": 2}
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="<unk>"))
    made.normalizer = tokenizers.normalizers.Lowercase()
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    return made


def _tokenized(_: Modality, data: Sequence[bytes]) -> object:
    return [torch.tensor(one.ids) for one in _tokenizer().encode_batch([one.decode() for one in data])]


def _heard(modality: Modality, data: Sequence[bytes]) -> object:
    """Log-mel spectrograms of as many frames and bands as ours have."""
    _, bands, _ = modality.item_shape
    hop, width = round(0.02 * _RATE), 1_024
    window, filters = torch.hann_window(width), torch.rand(bands, width // 2 + 1)
    found = []
    for one in data:
        samples = torch.from_numpy(soundfile.read(io.BytesIO(one), dtype="float32")[0])
        spectrum = torch.stft(samples, width, hop, window=window, return_complex=True)
        found.append((filters @ spectrum.abs().square() + 1e-10).log10())
    return found


def _pictures(modality: Modality, data: Sequence[bytes]) -> Tensor:
    side = modality.item_shape[-1]
    found = []
    for one in data:
        picture = Image.fromarray(simplejpeg.decode_jpeg(one, min_width=side, min_height=side))
        found.append(torch.from_numpy(np.array(picture.resize((side, side), Image.Resampling.BILINEAR))))
    return torch.stack(found)


def _seen(modality: Modality, data: Sequence[bytes]) -> object:
    """As many frames as ours are, all from the beginning on."""
    clips, frames, _, side, _ = modality.item_shape
    found = []
    for one in data:
        pictures: list[npt.NDArray[Any]] = []
        with av.open(io.BytesIO(one), "r") as file:
            file.streams.video[0].codec_context.thread_count = 1
            for number, frame in enumerate(file.decode(video=0)):
                if number % 2 == 0 and len(pictures) < clips * frames:
                    pictures.append(frame.reformat(side, side, "rgb24").to_ndarray())
        found.append(torch.from_numpy(np.stack(pictures)))
    return found


def _parsed(_: Modality, data: Sequence[bytes]) -> object:
    found = []
    for one in data:
        graph = json.loads(one)
        found.append(
            (torch.tensor([int(node["tag"]) for node in graph["nodes"]]), torch.tensor(graph["edges"]))
        )
    return found


def _both(modality: Modality, data: Sequence[bytes]) -> object:
    start = len(packed(b"", b""))
    lengths = [int.from_bytes(one[start - 8 : start], "big") for one in data]
    images = [one[start : start + length] for one, length in zip(data, lengths, strict=True)]
    texts = [one[start + length :] for one, length in zip(data, lengths, strict=True)]
    image = modalities()["image"].model_validate({"image_size": modality.model_dump()["image_size"]})
    return _pictures(image, images), _tokenized(modality, texts)


KINDS = {
    "image": Kind(_photo, 256, _pictures),
    "text": Kind(_text, 512, _tokenized, "tokenizers"),
    "audio": Kind(_recording, 128, _heard),
    "video": Kind(_film, 24, _seen),
    "graph": Kind(_graph, 512, _parsed),
    "pair": Kind(_pair, 256, _both, "tokenizers"),
}


# ---- the measures ----


@dataclass(frozen=True)
class _Opened:
    """Work that is open already, and stays so: building it is not what is timed."""

    running: OpenPoolScoring

    def open(self, device: str) -> "_Opened":
        return self

    def load(self, shard: Shard) -> Loaded:
        return self.running.load(shard)

    def compute(self, loaded: Loaded) -> StoredShard:
        return self.running.compute(loaded)

    def close(self) -> None:
        pass


def _timed(run: Callable[[], object]) -> float:
    """Seconds of CPU, of all threads."""
    begun = time.process_time()
    run()
    return time.process_time() - begun


def measured(name: str, folder: Path, rounds: int) -> dict[str, Figure]:
    kind = KINDS[name]
    data = [kind.made(number) for number in range(kind.items)]
    settings = Settings(data_dir=folder, source_roots=(str(folder),), threads=1)
    limits = limits_of(settings)
    facts = [contents()[name].inspect(one, limits) for one in data[:64]]
    modality = modalities()[name]().resolved(facts, _CPU)
    spec = ModelSpec({"name": modality.default_task}, modality.default_backbone, input_of(modality), seed=0)
    artifacts = Artifacts(settings.artifacts, settings.data_dir / "cache")
    net, task = new_net(spec).eval(), spec.make_task()
    prepared = modality.prepare(torch.stack([modality.decode(one, limits)[0] for one in data]))
    task.finalise(net, prepared[:256], torch.Generator().manual_seed(0))
    with artifacts.writing("net.safetensors") as file:
        file.write(as_safetensors(net, spec, {}))
    shards = _shards(name, folder, data)
    work = _Opened(
        PoolScoring(
            name="scores",
            token=1,
            spec=spec,
            weights="net.safetensors",
            other_weights=None,
            settings=settings,
            cache=CacheNames(name, frozenset({name})),
            earlier=(),
            items=kind.items,
        ).open("cpu")
    )
    batches = prepared.split(work.running.batch)
    folded = work.running.net
    parts = [data[start : start + _SHARD] for start in range(0, len(data), _SHARD)]

    def ours() -> None:
        stored = sum(one.items for one in LocalEngine().map(work, shards, device="cpu"))
        assert stored == len(data), f"{len(data) - stored} {name}s could not be read"

    def forward() -> None:
        with torch.no_grad():
            for batch in batches:
                score(folded, task, batch)

    def decoder() -> None:
        for part in parts:
            kind.decode(modality, part)

    def our_decoder() -> None:
        for one in data:
            modality.decode(one, limits)

    stages = {"ours": ours, "forward": forward, "decoder": decoder, "our_decoder": our_decoder}
    seconds: dict[str, list[float]] = {stage: [] for stage in stages}
    for number in range(rounds + 1):
        for stage, run in stages.items():
            took = _timed(run)
            if number:  # the first round warms up
                seconds[stage].append(took)
    ratios = [
        (forward + decoder) / all_of_it
        for all_of_it, forward, decoder in zip(
            seconds["ours"], seconds["forward"], seconds["decoder"], strict=True
        )
    ]
    found: dict[str, Figure] = {f"{name}_of_bare": round(median(ratios), 3)}
    for stage, each in seconds.items():
        found[f"{name}_{stage}_items_per_s"] = round(len(data) / median(each), 1)
    return found


def _shards(name: str, folder: Path, data: Sequence[bytes]) -> list[Shard]:
    """As people have them: texts, graphs and pairs in a table, recordings, pictures and videos in files."""
    uris = []
    if name in ("text", "graph", "pair"):
        table = folder / f"{name}.jsonl"
        with table.open("w") as file:
            for number, one in enumerate(data):
                row = {"text": one.decode()} if name != "pair" else _row_of_pair(folder, number)
                file.write(json.dumps(row) + "\n")
        column = "@image,text" if name == "pair" else "text"
        uris = [f"{table}#row={number}&column={column}" for number in range(len(data))]
    else:
        for number, one in enumerate(data):
            path = folder / f"{name}-{number}"
            path.write_bytes(one)
            uris.append(str(path))
    items = [
        ShardItem(number, uri, key=str(number), in_pool=True, half=0) for number, uri in enumerate(uris, 1)
    ]
    return [
        Shard(part[0].id, part[-1].id, tuple(part), ())
        for part in (items[start : start + _SHARD] for start in range(0, len(items), _SHARD))
    ]


def _row_of_pair(folder: Path, number: int) -> dict[str, str]:
    (folder / f"pair-{number}.jpg").write_bytes(_photo(number))
    return {"image": f"pair-{number}.jpg", "text": _text(number).decode()}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.modalities.speed")
    parser.add_argument("--kinds", default=",".join(KINDS), help="comma-separated; default: all")
    parser.add_argument("--rounds", type=int, default=_ROUNDS)
    parser.add_argument("--no-write", action="store_true", help="leave benchmarks/results as it is")
    given = parser.parse_args()
    torch.set_num_threads(1)
    path = RESULTS / "modality_speed.json"
    found: dict[str, Figure] = json.loads(path.read_text()) if path.exists() else {}
    command = " ".join(["python -m benchmarks.modalities.speed", *sys.argv[1:]])
    with tempfile.TemporaryDirectory(prefix="shortlist-bench-") as name:
        for kind in given.kinds.split(","):
            needed = KINDS[kind].needs
            if needed is not None and importlib.util.find_spec(needed) is None:
                print(f"{kind}: its decoder is not here: pip install {needed}", file=sys.stderr)
                continue
            folder = Path(name) / kind
            folder.mkdir()
            found |= measured(kind, folder, given.rounds)
        write_report("modality_speed", found, command, Path(name) if given.no_write else RESULTS)


if __name__ == "__main__":
    main()

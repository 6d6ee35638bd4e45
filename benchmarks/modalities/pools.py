"""Pools of recordings, videos, graphs, texts and pairs, decoded as a project decodes them by default."""

import csv
import io
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from benchmarks.labels.pools import FASHION_MNIST, fashion_mnist
from service.content import contents, limits_of
from service.content.pair import packed
from service.settings import Settings
from worker.arrays import Bools, Ints
from worker.modalities import Modality, modalities

DATA = Path(__file__).parents[3] / "shared" / "data"
_TESTED = 1 / 3  # of the items, where no group is
_UNHEARD = ("theo", "yweweler")  # speakers of the test items
_FACTS = 512
_EMOJI_FONT = Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf")
_EMOJI_NAMES = Path("/usr/share/unicode/emoji/emoji-test.txt")
_EMOJI_LINE = re.compile(r"(?P<points>[0-9A-F ]+?) *; fully-qualified +# \S+ E[\d.]+ (?P<name>.+)")
_EMOJI_SIDE, _DRAWN = 48, 109  # pixels; the only size that the font has
_MOVING, _SIDE, _FRAMES, _RATE = 1_200, 32, 32, 16  # videos, pixels a side, frames, frames a second
_MOTIONS = ("left", "right", "up", "down", "grow", "shrink", "clockwise", "anticlockwise")


class Missing(Exception):
    """The data of a pool are not on this machine; the sentence says where they belong."""


@dataclass(frozen=True)
class Pool:
    """items (n, *item_shape) as decoded, from `data`; classes (n,), test (n,) which are tested and never trained on."""

    modality: Modality
    data: list[bytes]
    items: Tensor
    classes: Ints
    test: Bools

    @property
    def n_classes(self) -> int:
        return int(self.classes.max()) + 1


def some_of(pool: Pool, items: int) -> Pool:
    """A random part of the pool, tested items among them."""
    rows = np.random.default_rng(1).permutation(len(pool.data))[:items]
    data = [pool.data[row] for row in rows.tolist()]
    return Pool(pool.modality, data, pool.items[torch.from_numpy(rows)], pool.classes[rows], pool.test[rows])


def _file(name: str) -> Path:
    path = DATA / name
    if not path.exists():
        raise Missing(f"{path.name} is missing: it belongs in ../shared/data/{name}.")
    return path


def _pool(kind: str, data: list[bytes], labels: list[str], test: Bools | None = None) -> Pool:
    limits, device = limits_of(Settings()), torch.device("cpu")
    _, classes = np.unique(labels, return_inverse=True)
    rng = np.random.default_rng(0)
    if test is None:
        test = rng.permutation(len(data)) < round(_TESTED * len(data))
    some = rng.permutation(np.flatnonzero(~test))[:_FACTS]
    facts = [contents()[kind].inspect(data[row], limits) for row in some]
    modality = modalities()[kind]().resolved(facts, device)
    items = torch.stack([modality.decode(one, limits)[0] for one in data])
    return Pool(modality, data, items, classes.astype(np.int64), test)


def spoken_digits(by_speaker: bool = False) -> Pool:
    """3,000 digits by six speakers (Free Spoken Digit Dataset, CC BY-SA 4.0); tested by two that the pool has not."""
    rows = pq.read_table(_file("fsdd/recordings.parquet")).to_pylist()
    speakers = np.isin([row["speaker"] for row in rows], _UNHEARD) if by_speaker else None
    return _pool("audio", [row["audio"] for row in rows], [row["label"] for row in rows], speakers)


def graphs(name: str) -> Pool:
    """MUTAG (188 molecules) and PROTEINS (1,113), of two classes each (TU Dortmund, http://graphlearning.io)."""
    lines = iter(_file(f"graphs/{name}.txt").read_text().splitlines())
    made = [_graph(lines) for _ in range(int(next(lines)))]
    return _pool("graph", [data for data, _ in made], [label for _, label in made])


def _graph(lines: Iterator[str]) -> tuple[bytes, str]:
    """A line `nodes class`, then a line a node: `tag degree neighbour…`."""
    count, label = next(lines).split()[:2]
    nodes, edges = [], []
    for node in range(int(count)):
        tag, degree, *rest = map(int, next(lines).split())
        nodes.append({"id": node, "tag": str(tag)})
        edges += [[node, other] for other in rest[:degree] if node < other]
    return json.dumps({"nodes": nodes, "edges": edges}).encode(), label


def subjectivity() -> Pool:
    """10,000 sentences, subjective or objective (Pang and Lee 2004, CC BY 4.0)."""
    with _file("subjectivity/sentences.csv").open(newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    return _pool("text", [row["text"].encode() for row in rows], [row["label"] for row in rows])


def ag_news() -> Pool:
    """7,600 news, title and text, of the world, sports, business or science (Zhang et al. 2015)."""
    with _file("ag_news/test.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    return _pool("text", [f"{title}. {text}".encode() for _, title, text in rows], [row[0] for row in rows])


def moving_fashion() -> Pool:
    """1,200 videos of two seconds, each of one of Fashion-MNIST's images before a grey noise that stands still. The
    class is how it moves, one of eight ways; what moves, where, and how fast is random.
    """
    if not FASHION_MNIST.exists():
        raise Missing("Fashion-MNIST is missing: apt-get install dataset-fashion-mnist.")
    rng = np.random.default_rng(0)
    pixels = fashion_mnist()[0].sample(rng, _MOVING).pixels[:, 0]
    motions = [_MOTIONS[number % len(_MOTIONS)] for number in range(_MOVING)]
    return _pool(
        "video", [_mp4(_moving(one, how, rng)) for one, how in zip(pixels, motions, strict=True)], motions
    )


def _moving(
    pixels: npt.NDArray[np.uint8], motion: str, rng: np.random.Generator
) -> Iterator[npt.NDArray[np.uint8]]:
    """(28, 28) -> frames (32, 32)"""
    thing = Image.fromarray(pixels)
    ground = Image.fromarray(rng.integers(0, 80, (_SIDE, _SIDE), dtype=np.uint8))
    way, turn, swell = rng.uniform(8, 16), rng.uniform(60, 150), rng.uniform(1.5, 2.2)
    size, place = rng.uniform(12, 16), rng.uniform(0.35, 0.65, 2) * _SIDE
    across = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}.get(motion, (0, 0))
    for share in np.linspace(-0.5, 0.5, _FRAMES):
        middle = place + share * way * np.array(across)
        scale = size * swell ** (share * {"grow": 1, "shrink": -1}.get(motion, 0)) / 28
        angle = np.deg2rad(share * turn * {"clockwise": 1, "anticlockwise": -1}.get(motion, 0))
        cosine, sine = np.cos(angle) / scale, np.sin(angle) / scale
        x, y = middle  # of the frame, where the thing's middle is
        lines = (cosine, sine, 14 - cosine * x - sine * y, -sine, cosine, 14 + sine * x - cosine * y)
        shown = thing.transform((_SIDE, _SIDE), Image.Transform.AFFINE, lines, Image.Resampling.BILINEAR)
        yield np.maximum(np.asarray(ground), np.asarray(shown))


def _mp4(frames: Iterator[npt.NDArray[np.uint8]]) -> bytes:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as file:
        stream = file.add_stream("libx264", rate=_RATE, options={"preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = _SIDE, _SIDE, "yuv420p"
        stream.codec_context.thread_count = 1
        for frame in frames:
            file.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="gray")))
        file.mux(stream.encode(None))
    return buffer.getvalue()


def emoji() -> Pool:
    """Pictures of emoji and their names, without variants of skin and without flags; the class is Unicode's group, of
    eight (Noto Color Emoji, OFL 1.1).
    """
    for path, package in ((_EMOJI_FONT, "fonts-noto-color-emoji"), (_EMOJI_NAMES, "unicode-data")):
        if not path.exists():
            raise Missing(f"{path.name} is missing: apt-get install {package}.")
    font = ImageFont.truetype(_EMOJI_FONT, _DRAWN)
    group, data, groups = "", [], []
    for line in _EMOJI_NAMES.read_text().splitlines():
        if line.startswith("# group: "):
            group = line.removeprefix("# group: ")
        found = _EMOJI_LINE.fullmatch(line)
        if found is None or group in ("Component", "Flags") or "skin tone" in line:
            continue
        picture = Image.new("RGB", (136, 128), "white")
        drawn = "".join(chr(int(point, 16)) for point in found["points"].split())
        ImageDraw.Draw(picture).text((0, 0), drawn, font=font, embedded_color=True)
        if np.asarray(picture).min() == 255:
            continue  # the font is older than the list
        buffer = io.BytesIO()
        picture.resize((_EMOJI_SIDE, _EMOJI_SIDE)).save(buffer, "PNG")
        data.append(packed(buffer.getvalue(), found["name"].encode()))
        groups.append(group)
    return _pool("pair", data, groups)


POOLS: dict[str, Callable[[], Pool]] = {
    "mutag": lambda: graphs("MUTAG"),
    "proteins": lambda: graphs("PROTEINS"),
    "spoken_digits": spoken_digits,
    "spoken_digits_by_speaker": lambda: spoken_digits(by_speaker=True),
    "subjectivity": subjectivity,
    "ag_news": ag_news,
    "moving_fashion": moving_fashion,
    "emoji": emoji,
}

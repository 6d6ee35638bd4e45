"""The first ranking after an import, and rankings while a pretraining runs on the same worker.

Real files through HTTP: 5,000 photographs of 640 x 480 pixels are imported, and the clock runs from the end of the
import to the first batch that a ranking chose. Then, on 8,000 small pictures, a pretraining of minutes runs in the long
lane while an oracle labels bursts: the clock runs from the last answer of a burst to the ranking that knows it.
"""

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from PIL import Image, ImageFilter
from rich.console import Console

from benchmarks.report import Figure
from benchmarks.running import running, wait
from service.settings import Settings
from shortlist_client import Shortlist

CLASSES = ["red", "green", "blue"]
PHOTOGRAPHS, SMALL = 5_000, 8_000
BURST = 50
_LOOKS_S = 0.1  # between two looks
_EPOCHS = 500  # of the pretraining, which is cancelled at the end


def measure(bursts: int, head: str) -> dict[str, Figure]:
    return _first_ranking(PHOTOGRAPHS) | _while_pretraining(SMALL, bursts, head)


def _first_ranking(items: int) -> dict[str, Figure]:
    with TemporaryDirectory(prefix="shortlist-bench-") as folder:
        _write_pictures(Path(folder) / "pool", items, (640, 480))
        with running(Settings(data_dir=Path(folder) / "data"), sources=folder) as client:
            project = _project(client)
            _import(client, project, f"{folder}/pool")
            began = time.perf_counter()
            wait(lambda: _served(client, project)["ranking"] is not None, _LOOKS_S)
            batch = client.post(f"/projects/{project}/next-batch", {"annotator": "ann", "size": 20})["items"]
            seconds = time.perf_counter() - began
    assert "selected" in {item["arm"] for item in batch}
    Console(stderr=True).print(f"first ranking of {items} photographs: {seconds:.1f} s after their import")
    return {f"import_to_first_ranking_s_{items // 1000}k": seconds}


def _while_pretraining(items: int, bursts: int, head: str) -> dict[str, Figure]:
    console, waits = Console(stderr=True), list[float]()
    with TemporaryDirectory(prefix="shortlist-bench-") as folder:
        truth = _write_pictures(Path(folder) / "pool", items, (32, 32))
        with running(Settings(data_dir=Path(folder) / "data"), sources=folder) as client:
            project = _project(client, pretext_epochs=_EPOCHS, backbone="small", head=head)
            _import(client, project, f"{folder}/pool")
            wait(lambda: _served(client, project)["ranking"] is not None, _LOOKS_S)
            job = client.post(f"/projects/{project}/pretrain", {})["id"]
            wait(lambda: client.get(f"/jobs/{job}")["progress"] > 0.001, _LOOKS_S)
            for burst in range(bursts):
                waits.append(_burst(client, project, truth, (burst + 1) * BURST))
                console.print(f"{items} items, pretraining, burst {burst + 1}: {waits[-1]:.2f} s")
            assert client.get(f"/jobs/{job}")["state"] == "running"
    return {
        "label_to_ranking_while_pretraining_s": statistics.median(waits),
        "label_to_ranking_while_pretraining_s_max": max(waits),
    }


def _burst(client: Shortlist, project: str, truth: Callable[[str], str], labels: int) -> float:
    """Seconds from the last label to the ranking that was made with it."""
    batch = client.post(f"/projects/{project}/next-batch", {"annotator": "oracle", "size": BURST})["items"]
    given = [{"item": item["id"], "class": truth(item["key"]), "annotator": "oracle"} for item in batch]
    client.post(f"/projects/{project}/labels", {"labels": given})
    answered = time.perf_counter()
    wait(lambda: _served(client, project)["ranking"]["labels_used"] == labels, _LOOKS_S)
    return time.perf_counter() - answered


def _served(client: Shortlist, project: str) -> dict[str, Any]:
    served: dict[str, Any] = client.get(f"/projects/{project}/metrics")
    return served


def _project(client: Shortlist, **settings: object) -> str:
    body = {"name": "bench", "classes": CLASSES, "round_size": BURST, "retrain_min_interval_s": 0} | settings
    return str(client.post("/projects", body)["id"])


def _import(client: Shortlist, project: str, uri: str) -> None:
    job = client.post(f"/projects/{project}/sources", {"uri": uri})["id"]
    wait(lambda: client.get(f"/jobs/{job}")["state"] == "succeeded", _LOOKS_S)


def _write_pictures(folder: Path, count: int, size: tuple[int, int]) -> Callable[[str], str]:
    """Large blurred shapes, no two alike, under fine texture, in which one colour prevails; answers its name by the key
    of a picture.
    """
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (size[1] + 64, size[0] + 64, 3), np.uint8)
    textures = [Image.fromarray(noise).filter(ImageFilter.GaussianBlur(radius)) for radius in (1, 3, 8)]
    for number in range(count):
        left, top = rng.integers(0, 64, 2).tolist()
        texture = textures[number // 3 % 3].crop((left, top, left + size[0], top + size[1]))
        shapes = Image.fromarray(rng.integers(0, 256, (6, 8, 3), np.uint8)).resize(
            size, Image.Resampling.BICUBIC
        )
        picture = np.asarray(Image.blend(shapes, texture, 0.3))
        tinted = picture * (0.6 + 0.4 * (np.arange(3) == number % 3)) * rng.uniform(0.7, 1)
        Image.fromarray(tinted.astype(np.uint8)).save(folder / f"{number:06}.jpg", quality=85)
    return lambda key: CLASSES[int(Path(key).stem) % 3]

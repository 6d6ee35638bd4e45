"""Makes `before/data-folder.tar.gz` and `.json`: a data folder that the code of commit 23285fa left, and what its API
said of it.

It was run once at that commit, in the root of the repository, by

    python -m tests.upgrades.make_data_folder

and is kept to tell how the folder came to be. Run by newer code it would make a folder that newer code left, which
says nothing of upgrades. Everything goes through the real programs: `shortlist up` and its worker, and HTTP. Only
when they have stopped does it replace the place of the images by `/pool/images`, and drop what a copy of a data
folder does not need.
"""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx2 as httpx
import numpy as np
from PIL import Image, ImageDraw

from tests.upgrades.recorded import BEFORE

Json = dict[str, Any]

ROOT = Path(__file__).parents[2]
KEY = "a-throw-away-key-of-a-test"
POOL = "/pool/images"  # where the recorded folder says that its images are
CLASSES = ("circle", "cross", "square")
COLOURS = ((210, 70, 60), (60, 170, 80), (70, 90, 210), (220, 180, 50))
SIDE, IMAGES, COPIES = 24, 60, 6
SETTINGS = {
    "pretext_epochs": 1,
    "image_size": 24,
    "round_size": 10,
    "retrain_min_interval_s": 0,
    "retrain_min_labels": 10,
    "control_fraction": 0.3,
}
MADE_FRESH = ("workers", "kept_answers")  # tables that say nothing of the project
PATIENCE_S = 120.0


def write_images(folder: Path) -> None:
    """`<number>-<class>.png` or `.jpg`: a coloured shape on a shaded ground; the last six are copies of the first
    ones, hardly changed."""
    rng = np.random.default_rng(23285)
    folder.mkdir(parents=True)
    ramp = np.linspace(0, 60, SIDE)[:, None, None]
    for number in range(IMAGES):
        name = CLASSES[number % len(CLASSES)]
        pixels = (rng.integers(20, 120, 3) + ramp + rng.normal(0, 4, (SIDE, SIDE, 3))).clip(0, 255)
        image = Image.fromarray(pixels.astype(np.uint8))
        draw_shape(image, name, COLOURS[int(rng.integers(len(COLOURS)))], rng)
        save(image, folder / f"{number:02}-{name}", png=number % 2 == 0)
        if number < COPIES:
            brighter = Image.fromarray((np.array(image).astype(int) + 2).clip(0, 255).astype(np.uint8))
            save(brighter, folder / f"{IMAGES + number:02}-{name}", png=True)


def draw_shape(image: Image.Image, name: str, colour: tuple[int, int, int], rng: np.random.Generator) -> None:
    x, y, half = (int(value) for value in rng.integers((8, 8, 5), (16, 16, 8)))
    box = (x - half, y - half, x + half, y + half)
    draw = ImageDraw.Draw(image)
    if name == "circle":
        draw.ellipse(box, fill=colour)
    elif name == "square":
        draw.rectangle(box, fill=colour)
    else:
        draw.line(box, fill=colour, width=3)
        draw.line((x - half, y + half, x + half, y - half), fill=colour, width=3)


def save(image: Image.Image, path: Path, png: bool) -> None:
    if png:
        image.save(path.with_suffix(".png"))
    else:
        image.save(path.with_suffix(".jpg"), quality=92)


def true_class(key: str) -> str:
    return Path(key).stem.split("-")[1]


class Api:
    """The service that runs, and the project `shapes`."""

    def __init__(self, http: httpx.Client) -> None:
        self._http = http
        self.at = ""

    def get(self, path: str, **params: Any) -> Any:
        return self._checked(self._http.get(path, params=params)).json()

    def post(self, path: str, body: Json | None = None) -> Any:
        return self._checked(self._http.post(path, json=body or {})).json()

    def lines(self, path: str, **params: Any) -> list[Json]:
        answer = self._http.get(path, params=params, headers={"Accept": "application/x-ndjson"})
        return [json.loads(line) for line in self._checked(answer).text.splitlines()]

    @staticmethod
    def _checked(answer: httpx.Response) -> httpx.Response:
        assert answer.is_success, answer.text
        return answer

    def settle(self) -> None:
        """Until no job is left, twice in a row: what ends may queue the next."""
        wait_until(lambda: not self.unfinished())
        time.sleep(0.5)
        wait_until(lambda: not self.unfinished())

    def unfinished(self) -> list[Json]:
        found = self.get("/jobs", limit=1000)["items"]
        return [job for job in found if job["state"] in ("queued", "running")]

    def batch(self, annotator: str, size: int) -> Json:
        found: Json = self.post(f"{self.at}/next-batch", {"annotator": annotator, "size": size})
        assert found["reason"] is None
        return found

    def label(self, *labels: Json) -> Json:
        answer: Json = self.post(f"{self.at}/labels", {"labels": list(labels)})
        return answer

    def label_batch(self, annotator: str, size: int) -> list[Json]:
        """With their true classes; the labels that were sent."""
        batch = self.batch(annotator, size)
        sent = [
            {
                "item": item["id"],
                "class": true_class(item["key"]),
                "annotator": annotator,
                "batch": batch["batch"],
                "duration_ms": 600 + 10 * place,
            }
            for place, item in enumerate(batch["items"])
        ]
        assert {result["outcome"] for result in self.label(*sent)["results"]} == {"accepted"}
        return sent


def wait_until(condition: Callable[[], object]) -> None:
    give_up_at = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < give_up_at, "it did not happen in time"
        time.sleep(0.1)


def label_rounds(api: Api) -> None:
    """35 labels by two annotators, so that three rounds close; one changes her mind, and one rejects an item."""
    sent: list[Json] = []
    for annotator, size in (("ann", 10), ("ben", 10), ("ann", 6), ("ben", 4)):
        sent += api.label_batch(annotator, size)
        api.settle()
    wrong = next(label for label in sent if label["annotator"] == "ann")
    other = next(name for name in CLASSES if name != wrong["class"])
    assert api.label(wrong | {"class": other})["accepted"] == 1
    assert api.label(wrong | {"class": wrong["class"], "revision": 3})["accepted"] == 1
    api.settle()
    batch = api.batch("ben", 6)
    broken, *rest = batch["items"]
    about = {"annotator": "ben", "batch": batch["batch"]}
    api.label(
        {"item": broken["id"], "skip": "broken", **about},
        *({"item": item["id"], "class": true_class(item["key"]), **about} for item in rest),
    )
    api.settle()


def told(api: Api) -> Json:
    """What the API says, at rest; `next-batch` last, because it reserves what it answers."""
    at = api.at
    found: Json = {
        "labels": api.lines(f"{at}/labels", all=True),
        "decided": api.lines(f"{at}/labels"),
        "rounds": api.get(f"{at}/rounds")["items"],
        "metrics": api.get(f"{at}/metrics"),
        "project": api.get(at),
        "pretext_models": api.get(f"{at}/pretext-models")["items"],
        "scores": api.get(f"{at}/scores"),
        "item_scores": api.lines(f"{at}/scores"),
        "items": api.get(f"{at}/items", limit=1000)["items"],
        "jobs": api.get("/jobs", limit=1000)["items"],
    }
    assert len([one for one in found["rounds"] if one["state"] == "measured"]) >= 2
    assert found["metrics"]["head"]["metrics"]["promoted"]
    found["head"] = found["metrics"]["head"]["version"]
    found["ranking"] = found["metrics"]["ranking"]["version"]
    return found


def ranked(database: Path) -> list[Json]:
    """The order that is served, with what the head says of each item; no route tells it all."""
    query = """
        SELECT ranked.rank, items.key, ranked.score, ranked.predicted_class, ranked.predicted_probability
        FROM projects JOIN ranked_items AS ranked ON ranked.ranking_id = projects.ranking_id
        JOIN items ON items.id = ranked.item_id ORDER BY ranked.rank
    """
    names = ("rank", "key", "score", "class", "probability")
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        return [dict(zip(names, row, strict=True)) for row in connection.execute(query)]


def without_places(data_dir: Path, images: Path) -> None:
    """The database in one file, without the paths and names of this machine."""
    database = data_dir / "shortlist.db"
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        connection.execute("PRAGMA foreign_keys = ON")
        for table in MADE_FRESH:
            connection.execute(f"DELETE FROM {table}")
        connection.execute("UPDATE jobs SET worker = 'worker' WHERE worker IS NOT NULL")
        for table in ("items", "sources"):
            connection.execute(f"UPDATE {table} SET uri = replace(uri, ?, ?)", (str(images), POOL))
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.execute("PRAGMA journal_mode = DELETE")
        connection.execute("VACUUM")


def pack(folder: Path, target: Path) -> None:
    def plain(entry: tarfile.TarInfo) -> tarfile.TarInfo:
        entry.uid = entry.gid = entry.mtime = 0
        entry.uname = entry.gname = ""
        return entry

    with tarfile.open(target, "w:gz") as archive:
        for name in ("data", "images"):
            archive.add(folder / name, name, filter=plain)


def run(folder: Path) -> None:
    images, data_dir = folder / "images", folder / "data"
    write_images(images)
    outside = {name: value for name, value in os.environ.items() if not name.startswith("SHORTLIST_")}
    environment = outside | {
        "SHORTLIST_ADMIN_KEY": KEY,
        "SHORTLIST_DEVICE": "cpu",
        "SHORTLIST_THREADS": "1",
        "SHORTLIST_PORT": "0",
        "SHORTLIST_DATA_DIR": str(data_dir),
        "SHORTLIST_SOURCE_ROOTS": str(images),
    }
    command = [sys.executable, "-m", "service.cli", "up"]
    with subprocess.Popen(command, env=environment, cwd=ROOT, stdout=subprocess.PIPE, text=True) as up:
        try:
            assert up.stdout is not None
            address = up.stdout.readline().split()[1].split("/#")[0]
            headers = {"Authorization": f"Bearer {KEY}"}
            with httpx.Client(base_url=address, headers=headers, timeout=60) as http:
                found = use(Api(http), images, data_dir)
        finally:
            up.send_signal(signal.SIGINT)
            up.communicate(timeout=60)
    assert up.returncode == 0, up.returncode
    (data_dir / "kept.db").replace(data_dir / "shortlist.db")
    for rest in ("shortlist.db-wal", "shortlist.db-shm", "up.lock"):
        (data_dir / rest).unlink(missing_ok=True)
    shutil.rmtree(data_dir / "cache", ignore_errors=True)
    without_places(data_dir, images)
    found = json.loads(json.dumps({"key": KEY, "commit": "23285fa", **found}).replace(str(images), POOL))
    pack(folder, BEFORE / "data-folder.tar.gz")
    (BEFORE / "data-folder.json").write_text(json.dumps(found, indent=1) + "\n")


def use(api: Api, images: Path, data_dir: Path) -> Json:
    """From an empty data folder to what the API says at the end. `kept.db` is the database before the last call."""
    body = {"name": "shapes", "classes": list(CLASSES), **SETTINGS}
    api.at = f"/projects/{api.post('/projects', body)['id']}"
    api.post(f"{api.at}/sources", {"uri": str(images)})
    api.settle()
    api.post(f"{api.at}/pretrain")
    api.settle()
    label_rounds(api)
    database = data_dir / "shortlist.db"
    found = told(api) | {"ranked": ranked(database)}
    assert all(one["class"] for one in found["ranked"])  # a head made this ranking
    # The folder is to be as before that call, which reserves items, so that a test can ask the same.
    with closing(sqlite3.connect(database)) as source, closing(sqlite3.connect(data_dir / "kept.db")) as kept:
        source.backup(kept)
    found["next_batch"] = api.batch("cleo", 5)
    return found


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="shortlist-") as made:
        run(Path(made))

"""Pictures of every view of the page, light and dark, on a desk and on a phone, of a project that people work in.

    python -m benchmarks.page.shots POOL.parquet --to FOLDER [--data FOLDER] [--docs]

POOL has the columns `key`, `label` and `image`. Four annotators, who err now and then, label it for some rounds; with
`--data` that project is kept, and only the pictures are taken again the next time. `--docs` writes those of the
documentation, too. Needs Chromium and selenium.
"""

import argparse
import io
import random
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from PIL import Image

from benchmarks.page.browser import Tab, opened
from benchmarks.page.site import Site, running

ANNOTATORS = {"Ada": 0.02, "Grace": 0.03, "Linus": 0.06, "Zoë": 0.15}  # how often they err
ROUNDS, ROUND_SIZE = 12, 60
SIZES = {"wide": (1440, 900), "phone": (390, 844)}
_BROKEN, _UNSURE = 0.004, 0.01
_DOCS = Path(__file__).parents[2] / "docs"
# Of the documentation: the view, and the window it is seen in.
_OF_DOCS = {
    "page-dashboard": ("dashboard", (1280, 1180)),
    "page-desk": ("desk-why", (1280, 800)),
    "page-map": ("map-class", (1440, 900)),
    "page-phone": ("desk", (390, 800)),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pool", type=Path)
    parser.add_argument("--to", type=Path, required=True)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--only", default="", help="views whose name begins so")
    parser.add_argument("--docs", action="store_true", help="write those of the documentation, too")
    asked = parser.parse_args()
    asked.to.mkdir(parents=True, exist_ok=True)
    with _folder(asked.data) as folder, running(folder, asked.pool.resolve().parent) as site:
        project = _project(site, asked.pool.resolve())
        with opened(site) as tab:
            for theme in ("light", "dark"):
                for size, (width, height) in SIZES.items():
                    tab.size(width, height)
                    tab.theme(theme)
                    for name in _views(tab, project, asked.only):
                        whole = name.startswith(("dashboard", "setup", "new-project"))
                        picture = tab.shot(whole=whole)
                        (asked.to / f"{name}-{theme}-{size}.png").write_bytes(picture)
                        print(f"{name}-{theme}-{size}", flush=True)
            if asked.docs:
                tab.theme("light")
                _write_docs(tab, project)


def _write_docs(tab: Tab, project: dict[str, Any]) -> None:
    for name, (view, window) in _OF_DOCS.items():
        tab.size(*window)
        for shown in _views(tab, project, view.partition("-")[0]):
            if shown == view:
                picture = Image.open(io.BytesIO(tab.shot(whole=False)))
                picture.save(_DOCS / f"{name}.webp", quality=80, method=6)


@contextmanager
def _folder(kept: Path | None) -> Iterator[Path]:
    if kept is not None:
        kept.mkdir(parents=True, exist_ok=True)
        yield kept.resolve()
        return
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def _project(site: Site, pool: Path) -> dict[str, Any]:
    """As it is kept, or made and labeled."""
    truth = pq.read_table(pool, columns=["key", "label"]).to_pylist()
    classes = sorted({row["label"] for row in truth})
    projects = site.get("/projects")["items"]
    known = [each for each in projects if each["name"] == "Road signs"]
    empty = [each for each in projects if each["name"] == "Skies"] or [
        site.post("/projects", {"name": "Skies", "classes": ["cloudy", "rain", "shine", "sunrise"]})
    ]
    empty_id = {"empty": empty[0]["id"]}
    if known and site.get(f"/projects/{known[0]['id']}/metrics")["labels_used"] >= ROUNDS * ROUND_SIZE:
        return dict(known[0]) | empty_id
    project = (
        known[0]
        if known
        else site.post(
            "/projects",
            {
                "name": "Road signs",
                "classes": classes,
                "backbone": "small",
                "image_size": 32,
                "pretext_epochs": 2,
                "round_size": ROUND_SIZE,
                "retrain_min_interval_s": 0,
                "budget": 2000,
                "overlap": 1,
                "control_fraction": 0.25,
                "gold_fraction": 0.05,
            },
        )
    )
    at = f"/projects/{project['id']}"
    if not known:
        site.post(f"{at}/sources", {"uri": str(pool)})
        site.settled(at)
        site.post(f"{at}/pretrain", {})
        site.settled(at)
    _label(site, at, {row["key"]: row["label"] for row in truth}, classes)
    site.settled(at)
    return dict(project) | empty_id


def _label(site: Site, at: str, truth: dict[str, str], classes: list[str]) -> None:
    rng = random.Random(0)
    gold_marked = False
    while (used := site.get(f"{at}/metrics")["labels_used"]) < ROUNDS * ROUND_SIZE:
        for name, errs in ANNOTATORS.items():
            batch = site.post(f"{at}/next-batch", {"annotator": name, "size": ROUND_SIZE // len(ANNOTATORS)})
            labels: list[dict[str, Any]] = []
            for item in batch["items"]:
                right = (
                    truth[item["key"].rsplit("#", 1)[0]] if item["key"] not in truth else truth[item["key"]]
                )
                said: dict[str, Any] = {"class": rng.choice(classes) if rng.random() < errs else right}
                drawn = rng.random()
                if drawn < _BROKEN:
                    said = {"skip": "broken"}
                elif drawn < _BROKEN + _UNSURE:
                    said = {"skip": "unsure"}
                taken = int(rng.lognormvariate(7.6, 0.5) * (1 + errs))
                labels.append(
                    {"item": item["id"], "annotator": name, "batch": batch["batch"], "duration_ms": taken}
                    | said
                )
            if labels:
                site.post(f"{at}/labels", {"labels": labels})
        if not gold_marked and used >= ROUND_SIZE:
            some = site.get(f"{at}/items", state="available", limit=12)["items"]
            gold = [
                {"item": item["id"], "class": truth[item["key"]]} for item in some if item["key"] in truth
            ]
            site.post(f"{at}/gold", {"items": gold})
            gold_marked = True
        site.settled(at)  # so that the next round is picked by this one's head
        print(f"{used} labels", flush=True)


def _views(tab: Tab, project: dict[str, Any], only: str) -> Iterator[str]:
    """Opens one view after the other, and says its name when it is drawn."""
    at = f"/projects/{project['id']}"

    def wanted(name: str) -> bool:
        return name.startswith(only)

    if wanted("sign-in"):
        cookies = tab.driver.get_cookies()
        tab.driver.delete_all_cookies()
        tab.open("/")
        tab.see("//input[@id='key']")
        yield "sign-in"
        for cookie in cookies:
            tab.driver.add_cookie(cookie)
    if wanted("projects"):
        tab.open("/")
        tab.see("//ul[@class='project-list']//*[contains(., ' labels')]")
        yield "projects"
    if wanted("new-project"):
        tab.open("/?new")
        tab.see("//input[@id='name']")
        yield "new-project"
    if wanted("empty"):
        for view in ("", "/gallery", "/map", "/desk"):
            tab.open(f"/projects/{project['empty']}{view}")
            tab.see("//*[@class='empty'] | //*[@data-testid='next'] | //input[@id='annotator']")
            time.sleep(0.5)
            yield f"empty{view.replace('/', '-')}"
    if wanted("dashboard"):
        tab.open(at)
        tab.see("//*[@data-testid='curve']//canvas")
        time.sleep(1)
        yield "dashboard"
    for name, query in {
        "gallery": "",
        "gallery-doubt": "?sort=predicted_probability",
        "gallery-suspects": "?show=suspects",
    }.items():
        if wanted(name):
            tab.open(f"{at}/gallery{query}")
            tab.see("//*[contains(@class, 'tile')]//img | //*[@class='empty']")
            tab.pictures()
            yield name
    if wanted("item"):
        tab.open(f"{at}/gallery?sort=-pretext_loss")
        tab.see("//*[contains(@class, 'tile')]//button").click()
        tab.see("//*[@data-testid='detail']//h2[text()='Why this item?']")
        tab.pictures()
        yield "item"
    if wanted("map"):
        for by in ("class", "doubt", "loss", "arm"):
            tab.open(f"{at}/map?by={by}")
            tab.see("//*[@data-testid='map'][@data-frames]")
            time.sleep(0.7)
            if by == "class":
                tab.hover("//*[@data-testid='map']", 0.06, -0.08)
                time.sleep(1)
            yield f"map-{by}"
    if wanted("setup"):
        tab.open(f"{at}/setup")
        tab.see("//input[@id='setting-round_size']")
        tab.see("//ul[@class='class-list']")
        yield "setup"
    if wanted("desk"):
        tab.annotator("Ada")
        tab.open(f"{at}/desk")
        tab.see("//*[@data-testid='item']//img")
        tab.pictures()
        yield "desk"
        tab.see("//button[starts-with(normalize-space(), 'Why')]").click()
        time.sleep(0.3)
        yield "desk-why"
        tab.choose("One by one, or as a grid", "Grid: likeliest class")
        tab.see("//*[@data-testid='desk-grid']//img | //*[@class='empty'] | //*[@class='one-by-one quiet']")
        tab.pictures()
        for button in tab.all("//*[@data-testid='desk-grid']//button")[3:5]:
            button.click()
        yield "desk-grid"
        tab.see("//button[normalize-space()='Stop']").click()
        time.sleep(0.5)


if __name__ == "__main__":
    main()

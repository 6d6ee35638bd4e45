"""The speed of the page with a large pool, in headless Chromium: `make bench-pages`.

Writes benchmarks/results/pages.json. `note` in it says what the machine did beside; with others at work on it no
figure is worth keeping. Pictures are drawn by the processor here: with a graphics card the map is faster.
"""

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import sqlalchemy as sa
from PIL import Image

from benchmarks.page import site as page_site
from benchmarks.page.browser import Tab, opened
from benchmarks.serve.site import Site, running, score_and_rank
from service.store.artifacts import Artifacts
from service.store.ids import row_number
from service.store.item_map import LARGEST, ItemMap
from service.store.session import write_session
from service.store.tables import Item, Project, ScoreRun

RESULTS = Path(__file__).parents[1] / "results" / "pages.json"
_PICTURES = 500  # different ones; the items take turns
_KEYS = 60
_SCROLLED_S, _MOVED_S = 5.0, 4.0
_POLLS = (
    "",
    "/metrics",
    "/rounds?newest_first=true&brief=true&limit=30",
    "/annotators",
    "/pretext-models?limit=1",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--to", type=Path, default=RESULTS)
    asked = parser.parse_args()
    load = os.getloadavg()[0]
    with running("sqlite") as site:
        project = _filled(site, asked.items)
        with opened(page_site.Site(site.address, site.key)) as tab:
            tab.size(1440, 900)
            figures = _measured(tab, site, project, min(asked.items, LARGEST))
    note = f"load of the machine at the start {load:.1f}, at the end {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores"
    asked.to.write_text(
        json.dumps({"note": note, "items": asked.items} | figures, indent=2) + "\n", encoding="utf-8"
    )
    print(asked.to.read_text(encoding="utf-8"))


def _filled(site: Site, items: int) -> str:
    """A project of so many items, ranked, with a map; its id."""
    pictures = site.folder / "pictures"
    pictures.mkdir()
    rng = np.random.default_rng(0)
    for number in range(_PICTURES):
        small = rng.integers(0, 255, (6, 8, 3), np.uint8)
        Image.fromarray(small).resize((320, 240), Image.Resampling.BICUBIC).save(
            pictures / f"{number:03}.jpg"
        )

    def lines() -> Any:
        for start in range(0, items, 1000):
            numbers = range(start, min(start + 1000, items))
            yield "".join(
                json.dumps({"key": f"{number:08}.jpg", "uri": f"{pictures}/{number % _PICTURES:03}.jpg"})
                + "\n"
                for number in numbers
            ).encode()

    with site.http() as http:
        made = http.post("/projects", json={"name": "A large pool", "classes": ["cat", "dog", "owl"]})
        project: str = made.raise_for_status().json()["id"]
        ndjson = {"Content-Type": "application/x-ndjson"}
        http.post(f"/projects/{project}/items", content=lines(), headers=ndjson).raise_for_status()
    score_and_rank(site, project)
    with write_session(site.engine) as session:
        row = session.get_one(Project, row_number("p", project))
        run = session.get_one(ScoreRun, row.score_run_id)
        run.artifact, run.items = "scores/1/arrays", items
        ids = np.array(
            session.scalars(sa.select(Item.id).where(Item.project_id == row.id).order_by(Item.id)).all()
        )
    ids = np.sort(rng.choice(ids, min(len(ids), LARGEST), replace=False))
    middles = rng.uniform(8_000, 57_000, (40, 2))
    places = middles[rng.integers(40, size=len(ids))] + rng.normal(scale=1_800, size=(len(ids), 2))
    losses = rng.integers(0, 251, len(ids)).astype(np.uint8)
    artifacts = Artifacts(str(site.folder / "artifacts"), site.folder / "cache")
    ItemMap(ids.astype(np.int64), places.clip(0, 65_535).astype(np.uint16), losses).store(
        artifacts, run.artifact
    )
    return project


def _measured(tab: Tab, site: Site, project: str, points: int) -> dict[str, Any]:
    at = f"/projects/{project}"
    found: dict[str, Any] = {}
    for name, view, sign in (
        ("dashboard", at, "//*[@data-testid='next']"),
        ("gallery", f"{at}/gallery", "(//*[contains(@class, 'tile')]//img)[1]"),
    ):
        tab.open(view)
        tab.see(sign)
        found[f"{name}_told_ms"] = tab.driver.execute_script("return performance.now()")
        time.sleep(1)
        found[f"{name}_first_paint_ms"] = tab.driver.execute_script(
            "return performance.getEntriesByName('first-contentful-paint')[0].startTime"
        )
    found["gallery_scroll"] = _frames(tab, _SCROLLED_S, "scroll")
    tab.open(f"{at}/map?by=loss")
    begun = time.perf_counter()
    tab.see("//*[@data-testid='map'][@data-frames]")
    found["map"] = {
        "points": points,
        "drawn_after_s": time.perf_counter() - begun,
        "by_webgl": tab.driver.execute_script(_BY_WEBGL),
    } | _frames(tab, _MOVED_S, "map")
    tab.annotator("bench")
    tab.open(f"{at}/desk")
    tab.see("//*[@data-testid='item']//img")
    time.sleep(3)  # as an annotator looks at the first: those that follow are fetched meanwhile
    waited = tab.driver.execute_async_script(_PRESSED, _KEYS)
    found["key_to_next_picture_ms"] = {
        "presses": len(waited),
        "median": float(np.median(waited)),
        "p95": float(np.percentile(waited, 95)),
    }
    with site.http() as http:
        polls = {}
        for path in _POLLS:
            first = http.get(f"{at}{path}").raise_for_status()
            again = http.get(f"{at}{path}", headers={"If-None-Match": first.headers["etag"]})
            polls[path or "/"] = {"bytes": len(first.content), "unchanged": len(again.content)}
    return found | {"polls": polls}


def _frames(tab: Tab, seconds: float, what: str) -> dict[str, Any]:
    """`main_thread_ms` a frame says what is possible, `frames_per_s` what was drawn without a graphics card."""
    before = tab.main_thread_ms()
    found: dict[str, Any] = tab.driver.execute_async_script(_FRAMES, seconds, what)
    return found | {"main_thread_ms": (tab.main_thread_ms() - before) / found["frames"]}


_BY_WEBGL = "return document.querySelector('[data-testid=map]').getContext('webgl2') !== null"

# Frames in so many seconds, while the page is scrolled, or the map is moved and zoomed.
_FRAMES = """
const [seconds, what, done] = arguments;
const canvas = document.querySelector('[data-testid=map]');
const times = [];
const begun = performance.now();
function step(now) {
  times.push(now);
  if (now - begun > 1000 * seconds) {
    const gaps = times.slice(1).map((time, index) => time - times[index]).sort((a, b) => a - b);
    return done({ frames: gaps.length, frames_per_s: 1000 * gaps.length / (times.at(-1) - times[0]),
      gap_p95_ms: gaps[Math.floor(.95 * gaps.length)], drawn: canvas ? Number(canvas.dataset.frames) : null });
  }
  if (what === 'scroll') scrollBy(0, 60);
  else {
    const box = canvas.getBoundingClientRect();
    canvas.dispatchEvent(new WheelEvent('wheel', { deltaY: 12 * Math.sin(now / 400), cancelable: true,
      clientX: box.left + box.width * (.5 + .3 * Math.sin(now / 700)), clientY: box.top + box.height / 2 }));
  }
  requestAnimationFrame(step);
}
requestAnimationFrame(step);
"""

# Milliseconds from a key to the next picture on the screen, some 0.4 s apart, as a fast annotator presses them.
_PRESSED = """
const [presses, done] = arguments;
const waited = [];
const on = () => document.querySelector('[data-testid=item]')?.dataset.item;
function press() {
  if (waited.length === presses) return done(waited);
  const before = on(), begun = performance.now();
  dispatchEvent(new KeyboardEvent('keydown', { key: '1' }));
  const look = () => {
    const image = document.querySelector('[data-testid=item] img');
    if (on() !== before && image?.complete && image.naturalWidth) {
      waited.push(performance.now() - begun);
      setTimeout(press, 400);
    } else requestAnimationFrame(look);
  };
  requestAnimationFrame(look);
}
press();
"""

if __name__ == "__main__":
    main()

"""A tab of a headless Chromium, signed in to a site."""

import base64
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from benchmarks.page.site import Site
from tests.browsers import NoBrowser, headless_chromium

_PATIENCE_S = 120.0


class Tab:
    def __init__(self, driver: Any, site: Site) -> None:
        self.driver, self.address = driver, site.address
        driver.get(f"{self.address}/#key={site.key}")
        self.see("//*[text()='Sign out']")

    def open(self, fragment: str) -> None:
        self.driver.get("about:blank")  # else only the fragment would change
        self.driver.get(f"{self.address}/#{fragment}")

    def all(self, xpath: str) -> list[Any]:
        return list(self.driver.find_elements("xpath", xpath))

    def see(self, xpath: str) -> Any:
        give_up = time.monotonic() + _PATIENCE_S
        while time.monotonic() < give_up:
            try:
                shown = [each for each in self.all(xpath) if each.is_displayed()]
            except Exception as error:
                if "stale" not in str(error).lower():
                    raise
                continue
            if shown:
                return shown[0]
            time.sleep(0.05)
        sys.exit(f"This did not appear: {xpath}")

    def pictures(self) -> None:
        """Until all that are begun are there."""
        script = "return [...document.images].every((image) => image.complete)"
        give_up = time.monotonic() + _PATIENCE_S
        while not self.driver.execute_script(script) and time.monotonic() < give_up:
            time.sleep(0.05)
        time.sleep(0.2)

    def press(self, key: str) -> None:
        for kind in ("keyDown", "keyUp"):
            text = {"text": key} if len(key) == 1 and kind == "keyDown" else {}
            self.driver.execute_cdp_cmd("Input.dispatchKeyEvent", {"type": kind, "key": key} | text)

    def choose(self, label: str, option: str) -> None:
        self.see(f"//select[@aria-label='{label}']/option[text()='{option}']").click()

    def hover(self, xpath: str, right: float, down: float) -> None:
        """Over an element, so far from its middle, in parts of its size."""
        box = self.see(xpath).rect
        at = {
            "x": box["x"] + box["width"] * (0.5 + right) - self.driver.execute_script("return scrollX"),
            "y": box["y"] + box["height"] * (0.5 + down) - self.driver.execute_script("return scrollY"),
        }
        self.driver.execute_cdp_cmd("Input.dispatchMouseEvent", {"type": "mouseMoved"} | at)

    def main_thread_ms(self) -> float:
        """The milliseconds a page has computed so far, by the clock of its thread, whatever else runs."""
        self.driver.execute_cdp_cmd("Performance.enable", {"timeDomain": "threadTicks"})
        found = self.driver.execute_cdp_cmd("Performance.getMetrics", {})["metrics"]
        return 1000 * float(next(each["value"] for each in found if each["name"] == "TaskDuration"))

    def annotator(self, name: str) -> None:
        self.driver.execute_script("localStorage.setItem('shortlist.annotator', arguments[0])", name)

    def theme(self, name: str) -> None:
        self.driver.execute_script("localStorage.setItem('shortlist.theme', arguments[0])", name)

    def size(self, width: int, height: int) -> None:
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    def shot(self, *, whole: bool) -> bytes:
        """A PNG of the window, or of the whole page."""
        given = {"captureBeyondViewport": whole}
        return base64.b64decode(self.driver.execute_cdp_cmd("Page.captureScreenshot", given)["data"])


@contextmanager
def opened(site: Site) -> Iterator[Tab]:
    try:
        with headless_chromium() as driver:
            yield Tab(driver, site)
    except NoBrowser as missing:
        sys.exit(str(missing))

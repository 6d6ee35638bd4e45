"""A headless Chromium on a running site. Without one, the tests of the page are skipped."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import pytest

from tests.browsers import chromium
from tests.journeys.site import ADMIN_KEY, Site, until

WIDE, PHONE = (1440, 900), (390, 844)


class Browser:
    """One tab of somebody who looks at the page of `site`."""

    def __init__(self, driver: Any, site: Site) -> None:
        self.driver, self.site = driver, site
        self.address = str(site.http.base_url).rstrip("/")

    def open(self, fragment: str = "/") -> Self:
        self.driver.get("about:blank")  # else only the fragment would change
        self.driver.get(f"{self.address}/#{fragment}")
        return self

    def sign_in(self, key: str = ADMIN_KEY) -> Self:
        self.open(f"key={key}")
        self.see("//*[text()='Sign out']")
        return self

    def see(self, xpath: str) -> Any:
        """The first such element, once it is there and shown."""
        from selenium.common.exceptions import StaleElementReferenceException

        def look() -> Any:
            try:
                found = self.driver.find_elements("xpath", xpath)
                return next((each for each in found if each.is_displayed()), None)
            except StaleElementReferenceException:  # it was drawn anew meanwhile
                return None

        return until(look)

    def text(self) -> str:
        return str(self.driver.execute_script("return document.body.innerText"))

    def says(self, text: str) -> None:
        until(lambda: text in self.text())

    def press(self, *keys: str) -> None:
        for key in keys:
            for kind in ("rawKeyDown" if len(key) > 1 else "keyDown", "keyUp"):
                given = {"type": kind, "key": key} | (
                    {"text": key} if len(key) == 1 and kind == "keyDown" else {}
                )
                self.driver.execute_cdp_cmd("Input.dispatchKeyEvent", given)

    def size(self, width: int, height: int) -> None:
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    def offline(self, is_it: bool) -> None:
        speed = {"offline": is_it, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
        self.driver.execute_cdp_cmd("Network.emulateNetworkConditions", speed)

    def shot(self, name: str) -> None:
        """For people, in both themes, where SHORTLIST_TEST_SHOTS names a folder."""
        folder = os.environ.get("SHORTLIST_TEST_SHOTS")
        if not folder:
            return
        Path(folder).mkdir(parents=True, exist_ok=True)
        for theme in ("dark", "light"):
            self.driver.execute_script("document.documentElement.dataset.theme = arguments[0]", theme)
            self.driver.save_screenshot(str(Path(folder) / f"{name}-{theme}.png"))

    def overflow(self) -> int:
        """Pixels that the page is wider than its window."""
        script = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
        return int(self.driver.execute_script(script))

    def complaints(self) -> list[str]:
        """Broken policies and errors of our own; refused requests are no such."""
        return [
            line["message"]
            for line in self.driver.get_log("browser")
            if "Content Security Policy" in line["message"] or "Uncaught" in line["message"]
        ]


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory, sqlite_file: Path) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("page")
    database = shutil.copy(sqlite_file, folder / "shortlist.db")
    # Its worker is there until all tests are over, and other tests want the cores it looks for jobs with.
    with Site(folder, f"sqlite:///{database}", poll_s=0.25) as running:
        running.start_service()
        running.start_workers()
        yield running


@pytest.fixture(scope="session")
def driver() -> Iterator[Any]:
    with chromium() as driver:
        yield driver


@pytest.fixture
def browser(driver: Any, site: Site) -> Iterator[Browser]:
    """As new: without cookies and what pages stored."""
    driver.execute_cdp_cmd(
        "Storage.clearDataForOrigin", {"origin": str(site.http.base_url).rstrip("/"), "storageTypes": "all"}
    )
    driver.delete_all_cookies()
    driver.execute_cdp_cmd("Network.clearBrowserCookies", {})
    browser = Browser(driver, site)
    browser.size(*WIDE)
    yield browser
    browser.offline(False)
    complaints = browser.complaints()
    driver.get("about:blank")
    assert complaints == []


@pytest.fixture
def key_for(site: Site) -> Callable[..., str]:
    def make(role: str, **more: Any) -> str:
        return str(site.post("/keys", {"name": f"{role} of a test", "role": role, **more})["key"])

    return make

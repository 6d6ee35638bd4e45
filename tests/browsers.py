"""A headless Chromium, for tests of pages and for the benchmark of the page."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest


class NoBrowser(Exception):
    """Chromium, its driver or selenium is missing; says how to install it."""


@contextmanager
def headless_chromium() -> Iterator[Any]:
    """The driver of a new one, by selenium. Raises `NoBrowser`."""
    try:
        from selenium import webdriver
    except ImportError:
        raise NoBrowser("selenium is missing: pip install -e '.[dev]'") from None
    programs = [shutil.which(name) for name in ("chromium", "chromedriver")]
    if None in programs:
        raise NoBrowser("There is no browser here: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = str(programs[0])
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-dev-shm-usage",
        "--enable-unsafe-swiftshader",  # WebGL without a graphics card
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(programs[1]))
    try:
        yield driver
    finally:
        driver.quit()


@contextmanager
def chromium() -> Iterator[Any]:
    """One whose network a test may cut. Without a browser the test is skipped."""
    try:
        with headless_chromium() as driver:
            driver.execute_cdp_cmd("Network.enable", {})
            yield driver
    except NoBrowser as missing:
        pytest.skip(str(missing))

"""All of it in one go, as a lead and two annotators do it: once at a desk, once on a phone."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.journeys.images import COLOURS, write_images
from tests.journeys.site import Project, Site, until
from tests.web.conftest import PHONE, WIDE, Browser
from tests.web.test_page import ITEM, Desk
from tests.web.test_setup import choose, drop, fill, press
from tests.web.test_views import MAP, TILES, drag, number_in

CLASSES = tuple(sorted(COLOURS))  # as the folders are listed
LABELED = "//*[@data-testid='labeled']"


class Thumb(Desk):
    """Labels by tapping; the classes are in the order of their folders."""

    def answer(self, class_name: str) -> None:
        name = f"span[text()='{class_name}']"
        self.browser.see(f"//button[contains(@class, 'class')][.//{name}]").click()


class Keyboard(Desk):
    def answer(self, class_name: str) -> None:
        self.browser.press(str(CLASSES.index(class_name) + 1))


def work(desk: Thumb | Keyboard, count: int) -> list[str]:
    seen: list[str] = []
    for _ in range(count):
        number, class_name = desk.shown(after=seen[-1] if seen else None)
        desk.answer(class_name)
        seen.append(number)
    return seen


@pytest.mark.parametrize(("size", "hand"), [(WIDE, Keyboard), (PHONE, Thumb)], ids=["desk", "phone"])
def test_from_dropped_files_to_exported_labels(
    browser: Browser, site: Site, tmp_path: Path, size: tuple[int, int], hand: Callable[..., Any]
) -> None:
    name = f"whole way {size[0]}"
    folder = write_images(tmp_path / "photographs", 120, seed=size[0])
    browser.size(*size)
    browser.sign_in().open("/?new")
    fill(browser, "//input[@id='name']", name)
    (drop if hand is Keyboard else choose)(browser, folder)
    browser.says("120 files")
    classes = browser.see("//textarea[@id='classes']")
    until(lambda: classes.get_property("value") == ", ".join(CLASSES))
    press(browser, "Make it")
    browser.says("Imported: 120 added.")
    browser.see("//a[text()='Label']")  # pretraining is queued
    assert browser.overflow() == 0
    (made,) = [each for each in site.get("/projects")["items"] if each["name"] == name]
    project = Project.__new__(Project)
    project.site, project.json, project.at = site, made, f"/projects/{made['id']}"

    browser.see("//a[text()='Go to the project']").click()
    training = "//ul[@class='jobs']//li[starts-with(., 'train pretext')]"
    browser.see(f"{training}//*[text()='running' or text()='succeeded']")
    browser.see(f"{training}//*[text()='succeeded']")  # without a reload
    assert browser.overflow() == 0

    browser.see("//a[text()='Settings']").click()
    for setting, value in {
        "round_size": "15",
        "control_fraction": "0.4",
        "retrain_min_interval_s": "0",
    }.items():
        fill(browser, f"//input[@id='setting-{setting}']", value)
    press(browser, "Save")
    browser.says("Saved.")

    desk = hand(browser, project)
    labeled = work(desk, 16)
    browser.see("//button[contains(., 'Undo')]").click()
    until(lambda: desk.shown()[0] == labeled[-1])
    desk.saved()
    browser.driver.refresh()
    labeled = [*labeled[:-1], *work(desk, 16)]
    desk.saved()
    desk.cut_off()
    during = work(desk, 20)
    browser.says("20 labels kept here")
    browser.offline(False)
    desk.saved()
    labeled += during
    theirs = {each["id"] for each in project.next_batch("bob", 10)["items"]}  # at the same time
    labeled += work(desk, 4)
    assert not theirs & {*labeled, desk.shown()[0]}
    desk.saved()
    assert len(set(labeled)) == len(labeled)
    assert desk.stored().keys() == set(labeled)

    browser.see("//a[text()='Dashboard']").click()
    browser.see("//*[@data-testid='curve'][number(@data-points) >= 2]//canvas")
    cell = browser.see("//table[contains(@class, 'confusion')]//td//a")
    number = int(cell.text)
    cell.click()
    until(lambda: browser.driver.execute_script(TILES) == number)
    assert browser.overflow() == 0

    browser.see("//a[text()='Settings']").click()
    browser.see("//label[normalize-space()='red']").click()
    fill(browser, "//input[@aria-label='New name']", "crimson")
    press(browser, "Rename")
    press(browser, "Do it")
    browser.see("//label[normalize-space()='crimson']")
    assert browser.overflow() == 0

    browser.see("//a[text()='Map']").click()
    browser.see(MAP)
    press(browser, "Lasso")
    drag(browser, (0.02, 0.02), (0.6, 0.02), (0.6, 0.6), (0.02, 0.6))
    assert number_in(browser, "//*[@data-testid='taken']//b") > 0
    browser.see("//button[contains(., 'items next')]").click()
    browser.says("will be labeled next.")
    queued = {each["item"] for each in site.get(f"{project.at}/queue", limit=1000)["items"]}
    assert queued
    browser.see("//a[text()='Label']").click()
    browser.see(ITEM)
    rest: list[str] = []
    until(lambda: fetched_later(browser, rest, queued))
    desk.saved()
    assert browser.overflow() == 0

    browser.driver.execute_cdp_cmd(
        "Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)}
    )
    browser.see("//a[text()='Settings']").click()
    press(browser, "CSV")
    place = tmp_path / f"labels-{made['id']}.csv"
    until(place.exists)
    with place.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["item"] for row in rows} >= set(labeled)
    assert "crimson" in {row["class"] for row in rows}
    assert "red" not in {row["class"] for row in rows}


def fetched_later(browser: Browser, seen: list[str], queued: set[str]) -> bool:
    """Labels what was fetched before, until an item of the queue is on the desk."""
    shown = browser.see(ITEM).get_attribute("data-item")
    if shown in queued:
        return True
    if shown not in seen:
        seen.append(shown)
        browser.see("//button[contains(@class, 'class')]").click()
    return False

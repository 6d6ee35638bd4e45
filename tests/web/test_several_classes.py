"""The desk, the gallery and the dashboard of a project whose items have any number of classes."""

import os
from pathlib import Path

from tests.journeys.site import Site, until
from tests.web.conftest import Browser
from tests.web.test_page import CLASSES, Desk, project_of

SHOTS = os.environ.get("SHORTLIST_TEST_SHOTS")  # a folder for pictures of the page


def shot(browser: Browser, name: str) -> None:
    if SHOTS:
        browser.driver.save_screenshot(str(Path(SHOTS) / f"{name}.png"))


def sets_of(class_name: str) -> list[str]:
    """Items of the first class have none, others theirs and the first one."""
    return [] if class_name == CLASSES[0] else sorted([CLASSES[0], class_name])


def test_keys_mark_enter_sends_and_nothing_is_an_answer(browser: Browser, site: Site) -> None:
    project = project_of(site, "several", 60, round_size=20, control_fraction=0.5, label_kind="multi")
    project.settle()
    browser.sign_in()
    desk = Desk(browser, project)
    expected: dict[str, list[str]] = {}
    number = ""
    for turn in range(44):
        number, class_name = desk.shown(after=number or None)
        classes = sets_of(class_name)
        for name in classes:
            browser.press(str(CLASSES.index(name) + 1))
        if not classes:
            browser.see("//*[@data-testid='send-marked'][contains(., 'Nothing chosen: nothing here')]")
        elif turn < 6:  # a wrong key, and again: it is not marked any more
            other = next(name for name in CLASSES if name not in classes)
            browser.press(str(CLASSES.index(other) + 1))
            browser.see(f"//button[@aria-pressed='true'][contains(., '{other}')]")
            shot(browser, "desk-several")
            browser.press(str(CLASSES.index(other) + 1))
        browser.press("Enter")
        expected[number] = classes
    browser.press("Backspace")
    browser.says("undone")
    assert until(lambda: desk.shown()[0] == number)
    for name in expected[number]:  # what was chosen is chosen again
        browser.see(f"//button[@aria-pressed='true'][contains(., '{name}')]")
    browser.press("Enter")
    desk.saved()

    def stored() -> dict[str, list[str]]:
        return {
            each["item"]: each["classes"] for each in project.labels() if each["current"] and not each["skip"]
        }

    assert until(lambda: stored() == expected)
    identity = project.json["id"]
    until(lambda: site.get(f"/projects/{identity}/metrics")["learning_curve"])
    browser.open(f"/projects/{identity}")
    browser.says("mean average precision")
    browser.says("Average precision of each class")
    shot(browser, "dashboard-several")
    browser.open(f"/projects/{identity}/gallery?state=done")
    browser.says("nothing here")
    browser.says(", ".join(sorted(CLASSES[:2])))
    shot(browser, "gallery-several")

"""Recordings on the page: a picture of the sound, and a player that can go to any place of it."""

from tests.journeys.site import Project, Site, until
from tests.journeys.sounds import write_recordings
from tests.web.conftest import Browser
from tests.web.test_page import Desk

_PLAYER = "const player = document.querySelector('audio'); return player ? player.duration : null"


def test_a_recording_is_seen_and_heard(browser: Browser, site: Site) -> None:
    folder = site.images / "page-recordings"
    folder.mkdir()
    project = Project(site, "page recordings", ("rise", "fall"))
    project.add(write_recordings(folder / "recordings.parquet", 12))
    browser.sign_in()

    desk = Desk(browser, project)
    assert browser.see("//figure[@class='sound']/img").get_attribute("alt")
    duration = until(lambda: browser.driver.execute_script(_PLAYER))
    assert abs(duration - 0.6) < 0.05
    browser.shot("recordings-desk")
    item = browser.see("//*[@data-testid='item']").get_attribute("data-item")
    browser.press("1")
    desk.saved()
    assert set(desk.stored()) == {item}

    browser.open(f"/projects/{project.json['id']}/gallery")
    tile = browser.see("//div[@data-testid='grid']//img")
    until(lambda: browser.driver.execute_script("return arguments[0].naturalWidth", tile) == 256)
    tile.click()
    until(lambda: browser.driver.execute_script(_PLAYER))
    browser.shot("recordings-gallery")

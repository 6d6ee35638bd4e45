"""Videos on the page: a player that plays, and frames in the gallery."""

from tests.journeys.films import write_films
from tests.journeys.site import Project, Site, until
from tests.web.conftest import Browser
from tests.web.test_page import Desk
from tests.web.test_recordings import shot

_PLAYER = "const player = document.querySelector('.item video'); return player ? player.videoWidth : null"


def test_a_video_plays(browser: Browser, site: Site) -> None:
    folder = site.images / "page-films"
    folder.mkdir()
    project = Project(site, "page films", ("left", "right"))
    project.add(write_films(folder / "films.parquet", 12))
    browser.sign_in()

    desk = Desk(browser, project)
    until(lambda: browser.driver.execute_script(_PLAYER) == 32)
    shot(browser, "film-desk")
    item = browser.see("//*[@data-testid='item']").get_attribute("data-item")
    browser.press("1")
    desk.saved()
    assert set(desk.stored()) == {item}

    browser.open(f"/projects/{project.json['id']}/gallery")
    tile = browser.see("//div[@data-testid='grid']//img")
    until(lambda: 200 < browser.driver.execute_script("return arguments[0].naturalWidth", tile) <= 256)
    shot(browser, "film-gallery")

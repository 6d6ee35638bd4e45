"""Videos and pairs on the page: a player that plays, a picture where there is none; both halves side by side."""

from tests.journeys.captions import write_pairs
from tests.journeys.films import film, write_films
from tests.journeys.site import Project, Site, until
from tests.web.conftest import Browser
from tests.web.test_page import Desk

_PLAYER = "const player = document.querySelector('.item video'); return player ? player.videoWidth : null"
_PICTURE = (
    "const one = document.querySelector('.item img'); return one && one.complete ? one.naturalWidth : null"
)


def until_wide(browser: Browser, pixels: int) -> None:
    until(lambda: browser.driver.execute_script(_PICTURE) == pixels)


def test_a_video_plays(browser: Browser, site: Site) -> None:
    folder = site.images / "page-films"
    folder.mkdir()
    project = Project(site, "page films", ("left", "right"))
    project.add(write_films(folder / "films.parquet", 12))
    browser.sign_in()

    desk = Desk(browser, project)
    until(lambda: browser.driver.execute_script(_PLAYER) == 32)
    browser.shot("film-desk")
    item = browser.see("//*[@data-testid='item']").get_attribute("data-item")
    browser.press("1")
    desk.saved()
    assert set(desk.stored()) == {item}

    browser.open(f"/projects/{project.json['id']}/gallery")
    tile = browser.see("//div[@data-testid='grid']//img")
    until(lambda: 200 < browser.driver.execute_script("return arguments[0].naturalWidth", tile) <= 256)
    browser.shot("film-gallery")


def test_what_no_browser_plays_is_shown_as_a_picture(browser: Browser, site: Site) -> None:
    """An AVI file by a frame and a strip; an animated GIF by itself."""
    browser.sign_in()
    browser.driver.execute_script("localStorage.setItem('shortlist.annotator', 'ann')")
    for form, wide in (("avi", 1_280), ("gif", 32)):
        folder = site.images / f"page-{form}"
        folder.mkdir()
        (folder / f"film.{form}").write_bytes(film("left", 1, form=form))
        project = Project(site, f"page {form}", ("left", "right"), modality="video")
        project.add(folder)
        browser.open(f"/projects/{project.json['id']}/desk")
        until_wide(browser, wide)


def test_a_pair_is_seen_side_by_side(browser: Browser, site: Site) -> None:
    project = Project(site, "page pairs", ("red", "green"), modality="pair")
    project.add(write_pairs(site.images / "page-pairs", 12))
    browser.sign_in()

    Desk(browser, project)
    until_wide(browser, 24)
    assert "number" in browser.see("//div[@class='pair']//div[@class='text']").text
    browser.shot("pair-desk")
    browser.open(f"/projects/{project.json['id']}/gallery")
    browser.see("//div[@data-testid='grid']//span[@class='pair']/img")
    browser.shot("pair-gallery")

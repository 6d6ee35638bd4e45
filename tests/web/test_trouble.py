"""What goes wrong is said in a sentence, and no page stays blank."""

import re
import resource
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from service.store.ids import row_number
from tests.journeys.images import write_images
from tests.journeys.site import Project, Site, until
from tests.web.conftest import PHONE, WIDE, Browser
from tests.web.test_page import ITEM, Desk, project_of
from tests.web.test_setup import choose, fill, packed_in_folders, press

CLASSES = ("red", "green", "blue")


def test_an_item_whose_file_vanished(browser: Browser, site: Site) -> None:
    project = project_of(site, "vanished", 6, round_size=1000)
    item = project.items()[0]
    shutil.rmtree(site.images / "vanished")
    shutil.rmtree(site.folder / "data" / "cache", ignore_errors=True)
    browser.sign_in().open(f"/projects/{project.json['id']}/gallery?item={item['id']}")
    browser.see(
        "//*[@data-testid='detail']//*[@class='missing'][contains(., 'This picture cannot be shown. ')]"
    )
    desk = Desk(browser, project)
    browser.see(f"{ITEM}//*[@class='missing'][string-length() > 35]")  # with the reason
    browser.press("b")
    desk.saved()
    until(lambda: project.items(state="broken"))


def test_the_service_is_out_of_reach_at_first(browser: Browser, site: Site) -> None:
    """As behind a proxy, which gives the page out of its cache."""
    browser.sign_in()
    browser.driver.execute_cdp_cmd("Network.setBlockedURLs", {"urls": ["*/session"]})
    try:
        browser.open("/")
        browser.says("The service does not answer. Is it running?")
    finally:
        browser.driver.execute_cdp_cmd("Network.setBlockedURLs", {"urls": []})
    browser.see("//*[text()='Sign out']")


def test_every_view_says_that_the_service_is_out_of_reach(browser: Browser, site: Site) -> None:
    project = project_of(site, "out of reach", 6)
    browser.sign_in()
    at = f"/projects/{project.json['id']}"
    browser.open(at)
    browser.see("//*[@data-testid='next']")
    browser.offline(True)
    for view in ("Gallery", "Map", "Settings", "Dashboard"):
        browser.see(f"//a[text()='{view}']").click()
        browser.says("The service does not answer.")
    press(browser, "Sign out")
    press(browser, "Not signed out")
    browser.offline(False)
    press(browser, "Not signed out")
    browser.see("//input[@id='key']")


def test_a_sign_in_that_ends_is_told_and_the_place_is_kept(
    browser: Browser, site: Site, key_for: Callable[..., str]
) -> None:
    project = project_of(site, "ended sign-in", 6)
    browser.sign_in(key_for("reader")).open(f"/projects/{project.json['id']}/gallery")
    browser.see("//*[contains(@class, 'tile')]//img")
    newest = site.get("/keys")["items"][0]
    site.http.delete(f"/keys/{newest['id']}").raise_for_status()
    browser.see("//a[text()='Dashboard']").click()
    browser.says("Your sign-in has ended.")
    browser.see("//input[@id='key']").send_keys(key_for("reader"))
    press(browser, "Sign in")
    browser.see("//*[@data-testid='next']")


def test_roles_that_may_not(browser: Browser, site: Site, key_for: Callable[..., str]) -> None:
    mine, other = Project(site, "mine", CLASSES), Project(site, "of others", CLASSES)
    browser.sign_in(key_for("reader", project=mine.json["id"]))
    browser.open(f"/projects/{other.json['id']}")
    browser.says(f"This key sees no project {other.json['id']}.")
    browser.open(f"/projects/{mine.json['id']}/desk")
    browser.see("//*[@data-testid='next']")  # a reader labels nothing
    browser.says("There is nothing to label yet")
    assert "New project" not in browser.text()
    browser.open("/?new")
    browser.see("//*[@data-testid='next'] | //h1[text()='Projects']")
    assert not browser.driver.find_elements("id", "name")
    browser.open("/projects/%E0%A4%A/desk")  # nobody's address
    browser.says("This key sees no project")


def test_a_project_without_anything(browser: Browser, site: Site) -> None:
    project = Project(site, "empty", CLASSES)
    browser.sign_in()
    browser.driver.execute_script("localStorage.setItem('shortlist.annotator', 'ann')")
    at = f"/projects/{project.json['id']}"
    for size in (WIDE, PHONE):
        browser.size(*size)
        for view, sentence in {
            "": "Import items.",
            "/gallery": "No items here",
            "/desk": "Nothing to label right now",
            "/map": "No map yet",
            "/setup": "each change says first what it does",
            "/gallery?state=done&class=red": "Nothing fits these filters",
        }.items():
            browser.open(f"{at}{view}")
            browser.says(sentence)
            assert browser.overflow() == 0, view


@pytest.mark.parametrize("size", [WIDE, PHONE], ids=["wide", "phone"])
def test_two_hundred_classes_in_any_script(browser: Browser, site: Site, size: tuple[int, int]) -> None:
    names = [f"{'class of a very long name, number'} {number:06}"[:40] for number in range(196)]
    names += ["😀👩‍👩‍👧", "مبنى قديم", '<i>& "quoted"</i>', "W" * 40]
    project = project_of(site, f"many classes {size[0]}", 6, round_size=1000)
    project.site.http.patch(project.at, json={"classes": [*CLASSES, *names]}).raise_for_status()
    browser.sign_in()
    browser.size(*size)
    desk = Desk(browser, project)
    desk.shown()
    assert browser.overflow() == 0
    for typed, meant in (
        ("قديم", "مبنى قديم"),
        ("quoted", '<i>& "quoted"</i>'),
        ("number 000195", names[195]),
    ):
        item, _ = desk.shown()
        browser.see("//input[@aria-label='Class']").send_keys(typed)
        browser.see("//button[contains(@class, 'first')]")
        browser.press("Enter")
        desk.shown(after=item)
        desk.saved()
        assert desk.stored()[item] == meant
    for view in ("", "/gallery", "/setup"):
        browser.open(f"{project.at}{view}")
        browser.says("many classes")
        browser.says("قديم") if view != "/gallery" else None
        assert browser.overflow() == 0, view


def test_a_project_needs_two_classes(browser: Browser, site: Site) -> None:
    browser.sign_in().open("/?new")
    fill(browser, "//input[@id='name']", "one class")
    fill(browser, "//textarea[@id='classes']", "red")
    press(browser, "Make it")
    browser.see("//form//*[@role='alert']")
    assert "one class" not in {each["name"] for each in site.get("/projects")["items"]}


def test_an_archive_of_a_hundred_thousand_files(browser: Browser, site: Site, tmp_path: Path) -> None:
    """Only its directory is read before it is sent."""
    place = packed_in_folders(tmp_path / "many.zip", 100_000, CLASSES)
    browser.sign_in().open("/?new")
    choose(browser, place)
    browser.see("//label[@for='folders'][normalize-space()='The 3 folders']")
    assert browser.see("//textarea[@id='classes']").get_property("value") == "blue, green, red"


def sparse(place: Path, size: int) -> Path:
    """A file of so many bytes that takes no room here."""
    with place.open("wb") as file:
        file.truncate(size)
    return place


def most_memory(pid: int) -> int:
    """Bytes of memory that a process has had so far."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    return 1024 * int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0])


def begin_upload(browser: Browser, site: Site, name: str, place: Path) -> Project:
    project = Project(site, name, CLASSES)
    browser.open(f"/projects/{project.json['id']}/setup")
    choose(browser, place)
    press(browser, "Upload and import")
    return project


def uploaded(site: Site, project: Project) -> list[str]:
    place = site.data_dir / "artifacts" / "uploads" / str(row_number("p", project.json["id"]))
    return sorted(path.name for path in place.rglob("*") if path.is_file())


def test_a_very_large_file_is_streamed(browser: Browser, site: Site, tmp_path: Path) -> None:
    assert site.service is not None
    browser.sign_in()
    before = most_memory(site.service.pid)
    project = begin_upload(browser, site, "very large", sparse(tmp_path / "large.zip", 500_000_000))
    meter = browser.see("//*[@role='progressbar'][@aria-label='Progress of the upload'][@aria-valuenow > 2]")
    assert int(meter.get_attribute("aria-valuenow")) < 100
    browser.says("MB of 500.0 MB")
    browser.see("//*[contains(@class, 'doing')][contains(@class, 'bad')]")  # it is no archive
    assert most_memory(site.service.pid) - before < 64_000_000
    assert uploaded(site, project) == ["large.zip"]
    site.http.delete(project.at).raise_for_status()


def test_what_finds_no_room_is_not_sent(browser: Browser, site: Site, tmp_path: Path) -> None:
    try:
        place = sparse(tmp_path / "large.zip", shutil.disk_usage(tmp_path).free + 10**9)
    except OSError:
        pytest.skip("No file here can be larger than what is free.")
    browser.sign_in()
    project = begin_upload(browser, site, "no room", place)
    browser.see("//*[@role='alert'][contains(., 'There is room for ')][contains(., 'nothing was sent')]")
    assert uploaded(site, project) == []


@contextmanager
def no_larger_files(pid: int, size: int) -> Iterator[None]:
    """As on a disk that is full after so many bytes."""
    before = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, before)


def test_a_disk_that_fills_during_an_upload(browser: Browser, site: Site, tmp_path: Path) -> None:
    assert site.service is not None
    browser.sign_in()
    with no_larger_files(site.service.pid, 60_000_000):
        project = begin_upload(browser, site, "full disk", sparse(tmp_path / "large.zip", 200_000_000))
        browser.see("//*[@role='alert'][contains(., 'large.zip')][contains(., 'could not be stored')]")
    assert uploaded(site, project) == []


def test_a_service_that_is_killed_and_comes_up_again(
    browser: Browser, tmp_path: Path, sqlite_file: Path
) -> None:
    database = shutil.copy(sqlite_file, tmp_path / "shortlist.db")
    with Site(tmp_path / "site", f"sqlite:///{database}") as site:
        site.start_service()
        browser = Browser(browser.driver, site)
        project = Project(site, "comes again", CLASSES)
        project.register(write_images(site.images / "all", 12))
        browser.sign_in()
        desk = Desk(browser, project)
        labeled = desk.label(2)
        desk.saved()
        assert site.service is not None
        site.service.kill()
        site.service.communicate()
        labeled += desk.label(4)
        browser.see("//*[@data-testid='sending'][contains(., '4 labels kept here')]")
        browser.see("//a[text()='Gallery']").click()
        browser.says("The service does not answer.")
        site.start_service(int(browser.address.rpartition(":")[2]))
        until(lambda: browser.driver.execute_script("return document.querySelectorAll('.tile img').length"))
        until(lambda: desk.stored().keys() == set(labeled))

"""Set-up in the page: a project from files of this machine, classes that change, settings, webhooks."""

import shutil
import zipfile
from pathlib import Path

import pytest

from tests.journeys.images import COLOURS, write_images
from tests.journeys.site import Project, Site, until
from tests.web.conftest import PHONE, Browser
from tests.web.test_page import project_of

CLASSES = tuple(COLOURS)


def fill(browser: Browser, xpath: str, text: str) -> None:
    field = browser.see(xpath)
    field.clear()
    field.send_keys(text)


def press(browser: Browser, text: str) -> None:
    browser.see(f"//button[normalize-space()={text!r}]").click()


def drop(browser: Browser, *places: Path) -> None:
    """From a window of the operating system, over the place for files."""
    box = browser.see("//*[@data-testid='drop']").rect
    at = {"x": box["x"] + box["width"] / 2, "y": box["y"] + box["height"] / 2}
    data = {"items": [], "files": [str(place) for place in places], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        browser.driver.execute_cdp_cmd("Input.dispatchDragEvent", {"type": kind, "data": data} | at)


def choose(browser: Browser, place: Path) -> None:
    """In the dialog for files, or for a folder."""
    name = "A folder to upload" if place.is_dir() else "Files to upload"
    browser.see("//*[@data-testid='drop']")
    browser.driver.find_element("xpath", f"//input[@aria-label='{name}']").send_keys(str(place))


def packed_in_folders(place: Path, count: int, classes: tuple[str, ...]) -> Path:
    """A zip of so many empty pictures in folders, below one folder that holds them all."""
    with zipfile.ZipFile(place, "w") as file:
        for number in range(count):
            file.writestr(f"all/{classes[number % len(classes)]}/{number:06}.png", b"")
    return place


def api(site: Site, path: str) -> dict[str, object]:
    answer = site.http.get(path)
    assert answer.status_code == 200, answer.text
    found: dict[str, object] = answer.json()
    return found


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    """A zip of pictures, with a name that leads out of it."""
    images = write_images(tmp_path / "images", 12, seed=5)
    place = tmp_path / "photographs.zip"
    with zipfile.ZipFile(place, "w") as file:
        for path in sorted(images.rglob("*.png")):
            file.write(path, f"photos/{path.name}")
        file.writestr("../../evil.png", b"x")
    return place


def test_a_project_from_a_dropped_archive_to_the_first_label(
    browser: Browser, site: Site, packed: Path
) -> None:
    browser.sign_in()
    browser.open("/?new")  # of several projects or one, the list looks otherwise
    fill(browser, "//input[@id='name']", "from a zip")
    drop(browser, packed)
    browser.says("photographs.zip")
    fill(browser, "//textarea[@id='classes']", ", ".join((*CLASSES, '"odd, or ""none"""')))
    press(browser, "Make it")
    browser.says("Imported: 12 added, 1 refused.")
    browser.says("leads out of its archive")
    browser.see("//a[text()='Label']").click()
    browser.see("//input[@id='annotator']").send_keys("ann")
    press(browser, "Start labeling")
    browser.see("//*[@data-testid='item']//img")
    browser.press("1")
    browser.see("//*[@data-testid='sending'][text()='all saved']")
    (found,) = [one for one in site.http.get("/projects").json()["items"] if one["name"] == "from a zip"]
    assert found["classes"] == [*CLASSES, 'odd, or "none"']
    kinds = [job["kind"] for job in site.http.get("/jobs", params={"project": found["id"]}).json()["items"]]
    assert "import_source" in kinds
    until(lambda: "train_pretext" in str(site.http.get("/jobs", params={"project": found["id"]}).json()))


@pytest.mark.parametrize("zipped", [False, True], ids=["folder", "zip"])
def test_folders_are_classes_and_their_files_labeled(
    browser: Browser, site: Site, tmp_path: Path, zipped: bool
) -> None:
    root = tmp_path / "pets"
    write_images(root, 6, classes=CLASSES[:2])
    if zipped:
        root = Path(shutil.make_archive(str(root), "zip", tmp_path, "pets"))
    name = f"from {root.name}"
    browser.sign_in().open("/?new")
    fill(browser, "//input[@id='name']", name)
    drop(browser, root)
    browser.see("//select[@id='folders']/option[@value='labels']").click()
    assert browser.see("//textarea[@id='classes']").get_property("value") == ", ".join(sorted(CLASSES[:2]))
    press(browser, "Make it")
    browser.says("Imported: 6 added.")
    browser.see("//a[text()='Label']")
    (found,) = [one for one in site.http.get("/projects").json()["items"] if one["name"] == name]

    def done() -> list[dict[str, str]]:
        items: list[dict[str, str]] = site.http.get(
            f"/projects/{found['id']}/items", params={"state": "done"}
        ).json()["items"]
        return items

    until(lambda: len(done()) == 6)
    assert {(item["key"].split("/")[-2], item["class"]) for item in done()} == {
        (name, name) for name in CLASSES[:2]
    }


def test_classes_change_on_the_page_and_say_first_what_they_do(browser: Browser, site: Site) -> None:
    project = project_of(site, "changing", 12, round_size=50)
    project.settle()
    at = f"/projects/{project.json['id']}"
    key = site.http.get(f"{at}/items").json()["items"][0]["key"]
    site.post(f"{at}/labels", {"labels": [{"key": key, "class": CLASSES[0], "annotator": "ann"}]})
    browser.sign_in()
    browser.open(f"{at}/setup")
    browser.see(f"//label[normalize-space()='{CLASSES[0]}']").click()
    fill(browser, "//input[@aria-label='New name']", "<b>new</b>, name")
    press(browser, "Rename")
    effects = browser.see("//*[@data-testid='effects']")
    assert "1 label, 1 item of the pool" in effects.text
    assert CLASSES[0] in api(site, at)["classes"]  # type: ignore[operator]
    press(browser, "Do it")
    browser.see("//label[normalize-space()='<b>new</b>, name']")
    browser.says(f"was {CLASSES[0]}")
    assert api(site, at)["classes"][0] == "<b>new</b>, name"  # type: ignore[index]
    browser.see("//label[normalize-space()='<b>new</b>, name']").click()
    press(browser, "Remove")
    browser.says("cannot be removed, as these have it: 1 label")
    browser.see(f"//label[normalize-space()='{CLASSES[1]}']").click()
    fill(browser, "//input[@aria-label='New name']", CLASSES[1])
    press(browser, "Merge 2")
    browser.says("not comparable")
    press(browser, "Do it")
    until(
        lambda: CLASSES[0] not in str(api(site, at)["classes"]) and "<b>" not in str(api(site, at)["classes"])
    )
    browser.says("merged to")
    fill(browser, "//input[@aria-label='Name of a new class']", "another")
    press(browser, "Add")
    press(browser, "Do it")
    until(lambda: "another" in api(site, at)["classes"])  # type: ignore[operator]
    label = {"key": key, "class": CLASSES[0], "annotator": "bob"}
    site.post(f"{at}/labels", {"labels": [label]})  # by its oldest name


def test_settings_webhooks_and_a_phone(browser: Browser, site: Site) -> None:
    project = Project(site, "settings", CLASSES)
    at = f"/projects/{project.json['id']}"
    browser.sign_in()
    browser.open(f"{at}/setup")
    browser.says("labels that close a round")
    fill(browser, "//input[@id='setting-round_size']", "0")
    press(browser, "Save")
    browser.says("greater than or equal to 1")
    fill(browser, "//input[@id='setting-round_size']", "77")
    fill(browser, "//input[@id='setting-budget']", "900")
    press(browser, "Save")
    browser.says("Saved.")
    found = api(site, at)
    assert (found["round_size"], found["budget"]) == (77, 900)
    fill(browser, "//input[@aria-label='Address of a webhook']", "https://tool.example.com/hook")
    press(browser, "Add webhook")
    secret = browser.see("//input[@aria-label='Secret of the webhook']").get_property("value")
    assert secret.startswith("whsec_")
    browser.see("//button[text()='delete']").click()
    until(lambda: api(site, f"{at}/webhooks")["items"] == [])
    browser.size(*PHONE)
    browser.open(f"{at}/setup")
    browser.says("From your program")
    assert browser.overflow() == 0


def test_others_see_no_set_up(browser: Browser, site: Site, key_for: object) -> None:
    project = Project(site, "not theirs", CLASSES)
    browser.sign_in(key_for("reader"))  # type: ignore[operator]
    browser.open(f"/projects/{project.json['id']}/setup")
    browser.see("//*[@data-testid='next']")
    assert "Settings" not in browser.text()

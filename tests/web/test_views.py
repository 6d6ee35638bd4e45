"""The map, grids at the desk, what stands behind figures, and that everybody can use it."""

from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.journeys.images import COLOURS, true_class
from tests.journeys.site import Project, Site, until
from tests.web.conftest import PHONE, WIDE, Browser
from tests.web.test_page import ITEM, Desk, project_of
from tests.worker.processes import REPOSITORY

CLASSES = tuple(COLOURS)
AXE = REPOSITORY / "web" / "node_modules" / "axe-core" / "axe.min.js"
TILES = "return document.querySelectorAll('.tile').length"
MAP = "//*[@data-testid='map'][@data-frames]"


@pytest.fixture(scope="module")
def worked(site: Site) -> Project:
    """A project with a head, measured rounds and a map, on which several have worked."""
    project = project_of(site, "worked in", 120, round_size=20, control_fraction=0.4, backbone="small")
    project.settle()
    for _ in range(3):
        for annotator in ("ann", "bob"):
            project.label_batch(annotator, 10)
        project.settle()
    project.site.post(f"{project.at}/items/withdraw", {"items": [project.items(state="available")[0]["id"]]})
    assert project.metrics()["head"]
    return project


def drag(browser: Browser, *corners: tuple[float, float]) -> None:
    """With the mouse, over the map; in parts of its size."""
    box = browser.see(MAP).rect

    def at(corner: tuple[float, float]) -> dict[str, float]:
        return {"x": box["x"] + corner[0] * box["width"], "y": box["y"] + corner[1] * box["height"]}

    def mouse(kind: str, corner: tuple[float, float]) -> None:
        given = {"type": kind, "button": "left", "buttons": 1, "clickCount": 1} | at(corner)
        browser.driver.execute_cdp_cmd("Input.dispatchMouseEvent", given)

    mouse("mousePressed", corners[0])
    for corner in corners[1:]:
        mouse("mouseMoved", corner)
    mouse("mouseReleased", corners[-1])


def number_in(browser: Browser, xpath: str) -> int:
    return int("".join(sign for sign in browser.see(xpath).text if sign.isdigit()))


@pytest.mark.parametrize("by_webgl", [False, True], ids=["by hand", "by WebGL"])
def test_the_map_is_drawn_and_taken_from(browser: Browser, worked: Project, by_webgl: bool) -> None:
    browser.sign_in()
    # By hand, as there is no graphics card here; by WebGL as if there were one, though that is slow.
    name = "GPU" if by_webgl else "SwiftShader"
    source = f"WebGL2RenderingContext.prototype.getParameter = () => '{name}'"
    added = browser.driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": source})
    try:
        browser.open(f"/projects/{worked.json['id']}/map")
        canvas = browser.see(MAP)
        assert canvas.get_attribute("data-items") == "120"
        until(lambda: colours_of(canvas.screenshot_as_png) >= 3)  # ground, unlabeled, labeled
        script = "return arguments[0].getContext('webgl2') !== null"
        assert browser.driver.execute_script(script, canvas) == by_webgl
    finally:
        browser.driver.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", added)
    browser.says("60 of them coloured")
    browser.see("//*[contains(@class, 'map-legend')]//*[text()='red']")

    browser.see("//button[text()='Lasso']").click()
    drag(browser, (0.02, 0.02), (0.98, 0.02), (0.98, 0.98), (0.02, 0.98))
    browser.see("//*[@data-testid='taken']//b[.='120 items inside']")
    drag(browser, (0.3, 0.02), (0.5, 0.02), (0.5, 0.98), (0.3, 0.98))
    until(lambda: 0 < number_in(browser, "//*[@data-testid='taken']//b") < 120)
    inside = number_in(browser, "//*[@data-testid='taken']//b")
    browser.see("//a[text()='Show in the gallery']").click()
    until(lambda: browser.driver.execute_script(TILES) == inside)
    assert "outline=" in urlsplit(browser.driver.current_url).fragment


def colours_of(png: bytes) -> int:
    """Of a picture, those that fill more than a few of its pixels."""
    import io

    from PIL import Image

    found = Image.open(io.BytesIO(png)).convert("RGB").getcolors(1 << 24)
    return sum(number > 12 for number, _ in found or [])


def test_what_the_lasso_holds_is_labeled_next(browser: Browser, site: Site) -> None:
    project = project_of(site, "lassoed", 40, round_size=1000, backbone="small")
    project.settle()
    browser.sign_in().open(f"/projects/{project.json['id']}/map")
    canvas = browser.see(MAP)
    browser.driver.execute_script("arguments[0].focus()", canvas)
    browser.press("v")  # what is in view: by keyboard
    browser.see("//*[@data-testid='taken']//b[.='40 items inside']")
    browser.see("//button[.='Label 40 items next']").click()
    browser.says("40 items will be labeled next.")
    queued = {each["item"] for each in site.get(f"{project.at}/queue", limit=1000)["items"]}
    assert len(queued) == 40
    desk = Desk(browser, project)
    assert set(desk.label(3)) <= queued
    desk.saved()
    assert {each["arm"] for each in project.labels()} == {"queued"}


def test_a_grid_confirms_guesses_and_leaves_the_control_arm_alone(browser: Browser, site: Site) -> None:
    project = project_of(site, "grid", 120, round_size=1000, control_fraction=0.25, backbone="small")
    project.settle()
    project.label("somebody", project.items()[::5])
    project.settle()
    browser.sign_in()
    desk = Desk(browser, project)
    desk.shown()
    browser.see("//option[text()='Grid: likeliest class']").click()
    browser.see("//*[@data-testid='desk-grid']//img")
    script = (
        "return [...document.querySelectorAll('[data-testid=desk-grid] button')]"
        ".map((each) => [each.dataset.item, each.querySelector('img').alt])"
    )
    shown: list[tuple[str, str]] = [tuple(each) for each in browser.driver.execute_script(script)]
    guessed = browser.see("//div[contains(@class, 'desk-grid')]//h2/b").text
    assert len(shown) >= 2
    wrong = [item for item, key in shown if true_class(key) != guessed]
    wrong = wrong or [shown[0][0]]  # the head errs nowhere: somebody marks one all the same
    for item in wrong:
        browser.see(f"//button[@data-item='{item}']").click()
        browser.see(f"//button[@data-item='{item}'][@aria-pressed='true']")
    browser.press("Enter")
    browser.see(ITEM)  # what is left, one by one
    desk.saved()
    confirmed = {item for item, _ in shown} - set(wrong)
    mine = [each for each in project.labels() if each["annotator"] == "ann"]
    assert {each["item"]: each["class"] for each in mine} == dict.fromkeys(confirmed, guessed)
    assert {each["arm"] for each in mine} == {"selected"}

    rest: list[str] = []
    while browser.driver.execute_script("return !!document.querySelector('[data-testid=item]')"):
        number, class_name = desk.shown(after=rest[-1] if rest else None)
        browser.press(str(CLASSES.index(class_name) + 1))
        rest.append(number)
        until(
            lambda: browser.driver.execute_script(
                "const on = document.querySelector('[data-testid=item]'); return on?.dataset.item !== arguments[0]"
                " && (on || document.querySelector('[data-testid=desk-grid], .empty'))",
                rest[-1],
            )
        )
    desk.saved()
    assert set(wrong) <= set(rest)
    arms = {each["item"]: each["arm"] for each in project.labels() if each["annotator"] == "ann"}
    assert "control" in {arms[item] for item in rest}  # they were asked, and by themselves
    assert not {item for item, arm in arms.items() if arm == "control"} & {item for item, _ in shown}


def test_a_grid_is_undone_as_one(browser: Browser, site: Site) -> None:
    project = project_of(site, "undone grid", 60, round_size=1000, control_fraction=0, backbone="small")
    project.settle()
    project.label("somebody", project.items()[:24])
    project.settle()
    browser.sign_in()
    browser.size(*PHONE)
    desk = Desk(browser, project)
    desk.shown()
    browser.see("//option[text()='Grid: likeliest class']").click()
    browser.see("//*[@data-testid='desk-grid']//img")
    assert browser.overflow() == 0
    items = browser.driver.execute_script(
        "return [...document.querySelectorAll('[data-testid=desk-grid] button')].map((each) => each.dataset.item)"
    )
    browser.see("//*[@data-testid='send-grid']").click()
    until(lambda: desk.labeled_here() == len(items))
    desk.saved()
    assert set(desk.stored()) >= set(items)
    browser.press("Backspace")
    until(lambda: desk.labeled_here() == 0)
    desk.saved()
    assert not set(desk.stored()) & set(items)


def test_a_cell_of_the_confusion_matrix_opens_its_items(browser: Browser, worked: Project) -> None:
    browser.sign_in().open(f"/projects/{worked.json['id']}")
    browser.see("//*[@data-testid='reliability']")
    cell = browser.see("//table[contains(@class, 'confusion')]//td//a")
    number = int(cell.text)
    cell.click()
    until(lambda: browser.driver.execute_script(TILES) == number)
    browser.says("surest first")
    browser.driver.refresh()
    until(lambda: browser.driver.execute_script(TILES) == number)


def test_the_gallery_sorts_by_likeness_and_marks_gold(browser: Browser, worked: Project) -> None:
    example = worked.items(state="available")[0]
    at = f"/projects/{worked.json['id']}/gallery"
    browser.sign_in().open(f"{at}?item={example['id']}")
    browser.see("//*[@data-testid='detail']//a[text()='More like this']").click()
    browser.says("most similar first")
    until(lambda: browser.driver.execute_script(TILES) > 20)
    nearest = browser.see("//*[contains(@class, 'tile')]//button").get_attribute("title")
    found = worked.site.get(f"{worked.at}/items/{example['id']}/similar", limit=1)["items"]
    assert nearest == found[0]["key"]

    browser.open(f"{at}?state=available&sort=rank")
    browser.see("//*[contains(@class, 'tile')]//input").click()
    browser.see("//select[@aria-label='Gold']/option[.='surely red']").click()
    browser.open(f"{at}?gold=true")
    until(lambda: browser.driver.execute_script(TILES) == 1)
    (gold,) = worked.items(gold=True)
    assert gold["class"] == "red"
    worked.site.post(f"{worked.at}/gold/unmark", {"items": [gold["id"]]})


def test_labeled_neighbours_on_request(browser: Browser, worked: Project) -> None:
    browser.sign_in()
    desk = Desk(browser, worked, "neighbourly")
    for _ in range(20):
        number, name = desk.shown()
        button = browser.see("//button[contains(., 'Similar')]")
        if button.is_enabled():  # not of a control item
            break
        browser.press(str(CLASSES.index(name) + 1))
        desk.shown(after=number)
    browser.press("n")
    until(lambda: len(browser.driver.find_elements("xpath", "//*[@data-testid='neighbours']//li")) == 3)


def test_what_is_open_goes_on_when_the_service_is_back(browser: Browser, worked: Project) -> None:
    browser.sign_in().open(f"/projects/{worked.json['id']}")
    browser.see("//*[@data-testid='curve']//canvas")
    browser.offline(True)
    browser.see("//a[text()='Gallery']").click()
    browser.says("The service does not answer.")
    browser.offline(False)
    until(lambda: browser.driver.execute_script(TILES) > 20)
    assert "does not answer" not in browser.text()


def audit(browser: Browser) -> list[str]:
    """What axe-core finds against WCAG 2.2 AA and good practice, in a line each."""
    browser.driver.execute_script(AXE.read_text(encoding="utf-8"))
    found: list[dict[str, Any]] = browser.driver.execute_async_script(
        "const done = arguments[0];"
        "axe.run(document, { resultTypes: ['violations'] }).then((result) => done(result.violations))"
    )
    return [f"{each['id']}: {each['help']}: {each['nodes'][0]['html'][:200]}" for each in found]


@pytest.mark.skipif(not AXE.exists(), reason="axe-core is missing: npm ci in web/")
@pytest.mark.parametrize("size", [WIDE, PHONE], ids=["wide", "phone"])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_everybody_can_use_it(browser: Browser, worked: Project, theme: str, size: tuple[int, int]) -> None:
    at = f"/projects/{worked.json['id']}"
    Project(
        worked.site, f"beside it, {theme} {size[0]}", CLASSES
    )  # where there is one alone, no list is shown
    browser.size(*size)
    browser.open()
    browser.driver.execute_script("localStorage.setItem('shortlist.theme', arguments[0])", theme)
    browser.open()
    browser.see("//input[@id='key']")
    found = {"sign-in": audit(browser)}
    browser.sign_in()
    browser.driver.execute_script("localStorage.setItem('shortlist.annotator', 'axe')")
    views = {
        "/": "//h1[text()='Projects']",
        "/?new": "//input[@id='name']",
        at: "//*[@data-testid='reliability']",
        f"{at}/gallery": "//*[contains(@class, 'tile')]//img",
        f"{at}/gallery?state=quarantined": "//*[@class='empty']",
        f"{at}/gallery?item={worked.items()[0]['id']}": "//*[@data-testid='detail']//h2",
        f"{at}/map?by=class": MAP,
        f"{at}/map?by=loss": MAP,
        f"{at}/setup": "//input[@id='setting-round_size']",
        f"{at}/desk": ITEM,
    }
    for view, sign in views.items():
        browser.open(view)
        browser.see(sign)
        found[view] = audit(browser)
        assert browser.overflow() == 0, view
    browser.see("//option[text()='Grid: likeliest class']").click()
    browser.see("//*[@data-testid='desk-grid']//img | //*[@class='empty'] | //*[@class='one-by-one quiet']")
    found["grid"] = audit(browser)
    assert {view: each for view, each in found.items() if each} == {}

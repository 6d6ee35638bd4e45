"""The desk, the gallery and the dashboard of a project whose items have any number of classes."""

from tests.journeys.images import true_class
from tests.journeys.site import Site, until
from tests.web.conftest import Browser
from tests.web.test_page import CLASSES, Desk, project_of
from tests.web.test_views import TILES


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
            browser.shot("desk-several")
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
    project.settle()  # a head that comes later would change what the cells say
    assert site.get(f"/projects/{identity}/metrics")["learning_curve"]
    browser.open(f"/projects/{identity}")
    browser.says("mean average precision")
    cell = browser.see("//table[contains(@class, 'several')]//td[contains(@class, 'right')]//a")
    browser.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", cell)
    browser.shot("dashboard-several")
    items = int(cell.text)
    cell.click()
    until(lambda: browser.driver.execute_script(TILES) == items)
    browser.says("surest first")
    browser.shot("answers-several")
    browser.open(f"/projects/{identity}/map?by=class")
    browser.see(f"//select[@aria-label='Class']/option[.='{CLASSES[1]}']").click()
    browser.see(f"//*[contains(@class, 'map-legend')]//*[.='without {CLASSES[1]}']")
    browser.shot("map-several")
    browser.open(f"/projects/{identity}/gallery?state=done")
    browser.says("nothing here")
    browser.says(", ".join(sorted(CLASSES[:2])))
    browser.shot("gallery-several")


def test_a_grid_confirms_items_with_the_same_classes(browser: Browser, site: Site) -> None:
    project = project_of(
        site, "several grids", 60, round_size=1000, control_fraction=0, backbone="small", label_kind="multi"
    )
    project.settle()
    items = project.items()
    labels = [
        {"item": each["id"], "annotator": "somebody", "classes": sets_of(true_class(each["key"]))}
        for each in items[::2]
    ]
    assert site.post(f"{project.at}/labels", {"labels": labels})["labels_used"] == 30
    project.settle()
    browser.sign_in()
    desk = Desk(browser, project)
    desk.shown()
    browser.see("//option[text()='Grid: likeliest classes']").click()
    browser.see("//*[@data-testid='desk-grid']//img")
    browser.shot("grid-several")
    name = browser.see("//div[contains(@class, 'desk-grid')]//h2/b").text
    shown = browser.driver.execute_script(
        "return [...document.querySelectorAll('[data-testid=desk-grid] button')].map((each) => each.dataset.item)"
    )
    browser.see("//*[@data-testid='send-grid']").click()
    desk.saved()
    expected = [] if name == "nothing here" else name.split(", ")
    stored = {each["item"]: each["classes"] for each in project.labels() if each["annotator"] == "ann"}
    assert stored == dict.fromkeys(shown, expected)

"""The page, as people use it: in a browser, on a running service and worker."""

import json
from collections import Counter
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.journeys.images import COLOURS, true_class, write_images
from tests.journeys.site import Project, Site, until
from tests.web.conftest import PHONE, Browser

CLASSES = tuple(COLOURS)
HOSTILE = "<img src=x onerror='document.title=\"run\"'>"
ITEM = "//*[@data-testid='item']"


def project_of(site: Site, name: str, count: int, **settings: Any) -> Project:
    project = Project(site, name, CLASSES, **settings)
    project.add(write_images(site.images / name, count, seed=len(name)))
    return project


class Desk:
    """An annotator's, who tells the classes apart without fail."""

    def __init__(self, browser: Browser, project: Project, annotator: str = "ann") -> None:
        self.browser, self.project = browser, project
        browser.open(f"/projects/{project.json['id']}/desk")
        browser.see("//input[@id='annotator']").send_keys(annotator)
        browser.see("//button[text()='Start labeling']").click()

    def shown(self, after: str | None = None) -> tuple[str, str]:
        """Id and class of the item on the desk, once it is another than `after`."""
        script = (
            "const item = document.querySelector('[data-testid=item]'), image = item?.querySelector('img');"
            "return image ? [item.dataset.item, image.alt] : null"
        )

        def look() -> list[str] | None:
            found: list[str] | None = self.browser.driver.execute_script(script)
            return found if found and found[0] != after else None

        number, key = until(look)
        return number, true_class(key)

    def label(self, count: int) -> list[str]:
        """By keyboard; the items, in their order."""
        seen: list[str] = []
        for _ in range(count):
            number, class_name = self.shown(after=seen[-1] if seen else None)
            self.browser.press(str(CLASSES.index(class_name) + 1))
            seen.append(number)
        return seen

    def saved(self) -> None:
        self.browser.see("//*[@data-testid='sending'][text()='all saved']")

    def cut_off(self) -> None:
        """The connection is lost, once there is as much to label as the desk keeps for that."""
        script = "return Number(document.querySelector('.desk').dataset.ahead)"
        until(lambda: self.browser.driver.execute_script(script) >= 20)
        self.browser.offline(True)

    def labeled_here(self) -> int:
        return int(self.browser.see("//*[@data-testid='labeled']").text)

    def stored(self) -> dict[str, str]:
        """Class by item, of the labels that count."""
        return {
            each["item"]: each["class"] for each in self.project.labels() if each["current"] and each["class"]
        }


def test_a_key_once_and_it_stands_nowhere(browser: Browser, site: Site) -> None:
    browser.open()
    browser.see("//input[@id='key']").send_keys("no key of this service")
    browser.see("//button[text()='Sign in']").click()
    browser.says("This key is unknown or was revoked")
    browser.sign_in()
    assert "key" not in browser.driver.current_url
    assert browser.driver.execute_script("return document.cookie") == ""
    assert (
        browser.driver.execute_script("return JSON.stringify([localStorage, sessionStorage])").count(
            "admin-key"
        )
        == 0
    )
    (cookie,) = browser.driver.get_cookies()
    assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Strict")
    browser.open()
    browser.see("//h1[text()='Projects'] | //a[text()='Dashboard']")
    browser.see("//*[text()='Sign out']").click()
    browser.see("//input[@id='key']")


def test_fifty_labels_by_keyboard_undo_reload_and_the_curve(browser: Browser, site: Site) -> None:
    project = project_of(site, "fifty", 90, round_size=20, control_fraction=0.3)
    project.settle()
    browser.sign_in()
    desk = Desk(browser, project)
    first = desk.label(20)
    browser.press("Backspace")
    browser.says("undone")
    assert until(lambda: desk.shown()[0] == first[-1])
    assert desk.labeled_here() == 19
    assert desk.label(1) == first[-1:]
    desk.saved()
    assert desk.stored().keys() == set(first)
    undone = [each for each in project.labels() if each["item"] == first[-1]]
    assert [each["class"] is None for each in undone] in (
        [False],
        [False, True, False],
    )  # sent meanwhile, or not

    browser.driver.refresh()
    second = desk.label(30)
    assert not set(first) & set(second)
    desk.saved()
    stored = desk.stored()
    assert stored.keys() == {*first, *second}
    classes = {item["id"]: true_class(item["key"]) for item in project.items()}
    assert stored == {item: classes[item] for item in stored}
    durations = [each["duration_ms"] for each in project.labels() if each["class"]]
    assert all(0 < duration < 60_000 for duration in durations)
    assert {each["batch"] for each in project.labels() if each["class"]} != {None}

    until(lambda: len(project.metrics()["learning_curve"]) >= 2)
    browser.see("//a[text()='Dashboard']").click()
    browser.see("//*[@data-testid='next']//h1[starts-with(text(), 'Label ')]")
    browser.see("//*[@data-testid='curve'][number(@data-points) >= 2]//canvas")
    browser.says("50")
    assert browser.overflow() == 0


def test_a_lost_connection_loses_nothing_and_doubles_nothing(browser: Browser, site: Site) -> None:
    project = project_of(site, "offline", 60, round_size=1000)
    browser.sign_in()
    desk = Desk(browser, project)
    before = desk.label(3)
    desk.saved()
    desk.cut_off()
    during = desk.label(20)
    browser.see("//*[@data-testid='sending'][contains(., '20 labels kept here')]")
    browser.press("Backspace")  # never sent: nobody hears of it
    browser.see("//*[@data-testid='sending'][contains(., '19 labels kept here')]")
    assert desk.stored().keys() == set(before)
    browser.offline(False)
    desk.saved()
    assert desk.stored().keys() == {*before, *during[:-1]}
    after = desk.label(4)
    assert after[0] == during[-1]
    desk.saved()
    counts = Counter(each["item"] for each in project.labels())
    assert set(counts) == {*before, *during, *after}
    assert set(counts.values()) == {1}


def test_a_sign_in_that_ends_keeps_the_labels(
    browser: Browser, site: Site, key_for: Callable[..., str]
) -> None:
    project = project_of(site, "ended", 30, round_size=1000)
    bound = {"project": project.json["id"], "annotator": "bo"}
    first = key_for("annotator", **bound)
    browser.sign_in(first).open(f"/projects/{project.json['id']}")
    browser.see(ITEM)
    assert "Dashboard" not in browser.text()  # an annotator's key sees the desk only
    desk = Desk.__new__(Desk)
    desk.browser, desk.project = browser, project
    done = desk.label(2)
    desk.saved()
    keys = site.get("/keys")["items"]
    site.http.delete(f"/keys/{keys[0]['id']}").raise_for_status()
    done.append(desk.shown()[0])
    browser.press("1")
    browser.see("//input[@id='key']")
    assert desk.stored().keys() == set(done[:2])
    browser.sign_in(key_for("annotator", **bound))
    until(lambda: desk.stored().keys() == set(done))


def test_a_label_that_is_refused_is_told_and_stops_no_other(browser: Browser, site: Site) -> None:
    project = project_of(site, "refused", 30, round_size=1000)
    browser.sign_in()
    desk = Desk(browser, project)
    desk.shown()
    answer = site.http.patch(project.at, json={"classes": ["red", "green"]})
    assert answer.status_code == 200, answer.text
    browser.offline(True)  # so that they go out together
    for key in ("1", "3", "2"):  # red, blue, green
        before = desk.shown()[0]
        browser.press(key)
        desk.shown(after=before)
    browser.offline(False)
    browser.see("//*[@role='alert'][contains(., 'A label was not taken')][contains(., 'blue')]")
    desk.saved()
    assert sorted(desk.stored().values()) == ["green", "red"]


def test_a_closer_look(browser: Browser, site: Site) -> None:
    project = project_of(site, "closer", 6, round_size=1000)
    browser.sign_in()
    desk = Desk(browser, project)
    number, _ = desk.shown()
    zoom = browser.see("//*[@data-testid='zoom']")
    browser.driver.execute_script("arguments[0].dispatchEvent(new MouseEvent('dblclick'))", zoom)
    browser.see("//*[@data-testid='zoom'][@data-scale='3']")
    browser.press("Escape")
    browser.see("//*[@data-testid='zoom'][@data-scale='1']")
    browser.press("i")
    browser.see("//*[@data-testid='why']")
    assert desk.shown()[0] == number


def test_a_project_is_made_and_an_annotator_invited(browser: Browser, site: Site) -> None:
    write_images(site.images / "made here", 12)
    browser.sign_in().open()
    browser.see("//button[text()='New project']").click()
    browser.see("//input[@id='name']").send_keys("made here")
    browser.see("//textarea[@id='classes']").send_keys("red, green\nblue")
    browser.see("//input[@id='uri']").send_keys("/nowhere")
    browser.see("//button[text()='Make it']").click()
    browser.says("does not lie below an allowed folder")
    field = browser.see("//input[@id='uri']")
    field.clear()
    field.send_keys(str(site.images / "made here"))
    browser.see("//button[text()='Import']").click()
    browser.see("//*[@data-testid='next']//h1[starts-with(text(), 'Label')]")
    made = [each for each in site.get("/projects")["items"] if each["name"] == "made here"]
    assert [each["classes"] for each in made] == [list(CLASSES)]  # once, though its source was refused first

    browser.see("//input[@aria-label='Name of an annotator']").send_keys("Zoë <b>")
    browser.see("//button[text()='Make a link for them']").click()
    link = browser.see("//input[@aria-label='Link for Zoë <b>']").get_attribute("value")
    browser.see("//*[text()='Sign out']").click()
    browser.see("//input[@id='key']")
    browser.driver.get("about:blank")
    browser.driver.get(link)
    browser.see(ITEM)
    assert "key" not in browser.driver.current_url
    browser.press("1")
    browser.see("//*[@data-testid='sending'][text()='all saved']")
    (label,) = [
        json.loads(line) for line in site.http.get(f"/projects/{made[0]['id']}/labels").text.splitlines()
    ]
    assert (label["annotator"], label["class"]) == ("Zoë <b>", "red")


def test_two_annotators_at_once_never_hold_the_same(browser: Browser, site: Site) -> None:
    project = project_of(site, "two", 40, round_size=1000)
    other = {item["id"] for item in project.next_batch("bob", 15)["items"]}
    browser.sign_in()
    mine = Desk(browser, project).label(10)
    assert not other & set(mine)


def test_html_in_names_is_text(browser: Browser, site: Site) -> None:
    project = Project(site, HOSTILE, (HOSTILE, "b" * 40, "😀 מחלקה"))
    project.add(write_images(site.images / "<b>hostile", 6))
    browser.sign_in()
    at = f"/projects/{project.json['id']}"
    for view in ("", "/gallery", "/desk"):
        browser.open(f"{at}{view}")
        browser.says(HOSTILE)
    browser.see("//input[@id='annotator']").send_keys(HOSTILE)
    browser.see("//button[text()='Start labeling']").click()
    browser.see(ITEM)
    browser.press("1")
    browser.see("//*[@data-testid='sending'][text()='all saved']")
    browser.open(at)
    until(lambda: browser.text().count(HOSTILE) >= 3)  # project, class, annotator
    assert browser.driver.title != "run"


def test_the_gallery_scrolls_filters_and_explains(browser: Browser, site: Site) -> None:
    project = project_of(site, "gallery", 260)
    project.label("ann", project.items()[:5])
    browser.sign_in().open(f"/projects/{project.json['id']}/gallery")
    tiles = "return document.querySelectorAll('.tile').length"
    until(lambda: browser.driver.execute_script(tiles) > 20)
    drawn = browser.driver.execute_script(tiles)
    assert drawn < 200  # of 260: only those near the window
    browser.driver.execute_script("scrollTo(0, 1e6)")
    last = project.items()[-1]["key"]
    until(lambda: last in browser.driver.execute_script("scrollTo(0, 1e6); return document.body.innerHTML"))
    browser.see("//select[@aria-label='State']/option[text()='labeled']").click()
    until(lambda: browser.driver.execute_script(tiles) == 5)
    assert "state=done" in urlsplit(browser.driver.current_url).fragment
    browser.driver.refresh()
    until(lambda: browser.driver.execute_script(tiles) == 5)
    browser.see("//*[@class='tile ' or contains(@class, 'tile')]//button").click()
    browser.see("//*[@data-testid='detail']//h2[text()='Why this item?']")
    browser.says("its labels decided for")
    browser.says("In round 1 a label by ann came in that nobody had been asked for.")
    assert "item=i_" in browser.driver.current_url


def test_a_phone_labels_with_one_thumb(browser: Browser, site: Site) -> None:
    project = project_of(site, "phone", 30, round_size=1000)
    browser.sign_in()
    browser.size(*PHONE)
    desk = Desk(browser, project)
    for _ in range(5):
        number, name = desk.shown()
        button = browser.see(f"//button[contains(@class, 'class')][.//span[text()='{name}']]")
        box = button.rect
        assert box["height"] >= 44
        assert PHONE[1] / 2 < box["y"]  # in the thumb's half
        assert box["y"] + box["height"] <= PHONE[1]
        button.click()
        desk.shown(after=number)
    desk.saved()
    assert len(desk.stored()) == 5
    for view in ("", "/gallery", "/desk"):
        browser.open(f"/projects/{project.json['id']}{view}")
        browser.says("phone")
        browser.see("//*[contains(@class, 'figures')] | //*[contains(@class, 'tile')] | " + ITEM)
        assert browser.overflow() == 0, view


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_can_be_read(browser: Browser, site: Site, theme: str) -> None:
    """Contrast of at least 4.5 (WCAG AA) for each token that text is written with, on each ground it may stand on."""
    browser.sign_in()
    browser.driver.execute_script(f"document.documentElement.dataset.theme = '{theme}'")

    def luminance(token: str) -> float:
        script = "return getComputedStyle(document.documentElement).getPropertyValue(arguments[0]).trim()"
        value = browser.driver.execute_script(script, f"--{token}").lstrip("#")
        value = value if len(value) == 6 else "".join(2 * each for each in value)
        parts = [int(value[at : at + 2], 16) / 255 for at in (0, 2, 4)]
        red, green, blue = (
            part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
        )
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    pairs = [
        (ink, on) for ink in ("ink", "quiet", "accent", "good", "bad") for on in ("ground", "card", "sunk")
    ]
    pairs += [("ink", "accent-soft"), ("accent-ink", "accent"), ("good", "good-soft"), ("bad", "bad-soft")]
    pairs += [("ink", "good-soft"), ("ink", "bad-soft")]
    for ink, on in pairs:
        light, dark = sorted((luminance(ink), luminance(on)), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5, (ink, on)


def test_the_description_of_the_api_is_shown_from_here(browser: Browser) -> None:
    browser.sign_in()
    browser.driver.get(f"{browser.address}/docs")
    browser.says("/projects/{project_id}/next-batch")
